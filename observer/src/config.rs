//! Settings: the command line overrides the environment, the environment overrides the file.

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use etcetera::BaseStrategy as _;
use serde::Deserialize;

use crate::{
    engine::{AfterAttach, EngineOptions, NewUser, Watched},
    errno,
    model::{cost::CpuShare, name::fold_text},
    probe::plan::ForcedMethods,
    tui::{self, ThemeName},
};

/// Settings that all three places have, under the same names. `None`: not set there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSettings {
    /// When the live screen uses colours. Words always say the same.
    #[arg(long, global = true, env = "OBSERVER_COLOR")]
    color: Option<When>,
    /// Colours of the live screen: for a dark or a light terminal, none, or with high contrast.
    #[arg(long, global = true, env = "OBSERVER_THEME")]
    theme: Option<ThemeName>,
    /// When the live screen uses ASCII letters only; auto: where the locale is not UTF-8.
    #[arg(long, global = true, env = "OBSERVER_ASCII")]
    ascii: Option<When>,
    /// Use the mouse in the live screen to scroll and select (`m` toggles it). The terminal's own selection then needs Shift.
    #[arg(long, global = true, env = "OBSERVER_MOUSE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mouse: Option<bool>,
    /// Watch only the network namespace that observer runs in, instead of all.
    #[arg(long, global = true, env = "OBSERVER_OWN_NETNS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    own_netns: Option<bool>,
    /// Size of the ring buffer between kernel and observer, in bytes: a power of two, at least 4096. By default 1048576 for each CPU,
    /// rounded up to a power of two, and at least 8388608.
    #[arg(long, global = true, env = "OBSERVER_RING_BYTES", value_name = "BYTES")]
    ring_bytes: Option<RingBytes>,
    /// Suspend the hooks when observer, its hooks included, has taken more than this share of all CPUs for ten seconds, in percent
    /// from 0.01 to 100: by default 5. Scans alone count until the load has gone.
    #[arg(long, global = true, env = "OBSERVER_MAX_COST", value_name = "PERCENT")]
    max_cost: Option<MaxCost>,
    /// Report EMFILE and ENFILE of every system call that makes descriptors, not only of socket() and accept().
    #[arg(long, global = true, env = "OBSERVER_TRACE_ALL_FD_SYSCALLS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    trace_all_fd_syscalls: Option<bool>,
    /// Read other processes in this procfs mount instead of /proc: in a container, the host's (-v /proc:/host/proc:ro).
    #[arg(long, global = true, env = "OBSERVER_PROC", value_name = "PATH")]
    proc: Option<PathBuf>,
}

/// When to do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// As the environment suggests: `NO_COLOR`, the locale.
    #[default]
    Auto,
    /// Whatever that says.
    Always,
    /// Not at all.
    Never,
}

impl When {
    fn decide(self, suggested: bool) -> bool {
        match self {
            Self::Auto => suggested,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What the kernel takes for the size of a ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
struct RingBytes(u32);

impl TryFrom<u32> for RingBytes {
    type Error = &'static str;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        // `RINGBUF_MAX_DATA_SZ` of kernel/bpf/ringbuf.c leaves more than this; a page is at least 4 KiB.
        let is_taken = bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes);
        is_taken.then_some(Self(bytes)).ok_or("not a power of two from 4096 to 1073741824")
    }
}

impl FromStr for RingBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: u32 = text.parse().map_err(|error| format!("{error}"))?;
        Self::try_from(bytes).map_err(str::to_owned)
    }
}

/// A share of all CPUs, given in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
struct MaxCost(CpuShare);

impl Default for MaxCost {
    fn default() -> Self {
        Self(CpuShare::from_ratio(0.05))
    }
}

impl TryFrom<f64> for MaxCost {
    type Error = &'static str;

    fn try_from(percent: f64) -> Result<Self, Self::Error> {
        let is_sane = (0.01..=100.0).contains(&percent);
        is_sane.then(|| Self(CpuShare::from_ratio(percent / 100.0))).ok_or("not 0.01 to 100 percent")
    }
}

impl FromStr for MaxCost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent: f64 = text.trim_end_matches('%').parse().map_err(|error| format!("{error}"))?;
        Self::try_from(percent).map_err(str::to_owned)
    }
}

/// Why a file of settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is there, and cannot be read; or it was named, and is not there.
    #[error("read the settings in {}: {}", errno::printable(.path), errno::describe(.error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It is no TOML, or has a setting that there is not.
    #[error("the settings in {}: {}", errno::printable(.path), first_line(.error))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, and what was expected.
        error: Box<toml::de::Error>,
    },
}

/// What is wrong, and in which line: the parser's own picture of it has several lines.
fn first_line(error: &toml::de::Error) -> String {
    let sentence = error.to_string().lines().filter(|line| !line.contains('|')).collect::<Vec<_>>().join(": ");
    // It quotes the file, which may have what steers a terminal.
    fold_text(&sentence)
}

impl UserSettings {
    /// `observer/config.toml` in `$XDG_CONFIG_HOME`, or in `~/.config` (XDG Base Directory Specification).
    #[must_use]
    pub fn default_file() -> Option<PathBuf> {
        let folders = etcetera::base_strategy::Xdg::new().ok()?;
        Some(folders.config_dir().join("observer/config.toml"))
    }

    /// Reads a file that was named, or the default one if that is there.
    pub fn read(named: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, must_exist) = match named {
            Some(path) => (path.to_owned(), true),
            None => match Self::default_file() {
                Some(path) => (path, false),
                None => return Ok(Self::default()),
            },
        };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            // A folder that this user may not read has settings of another: `sudo -u` may keep the other's HOME.
            Err(error) if !must_exist && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                Ok(Self::default())
            }
            Err(error) => Err(ConfigError::Unreadable { path, error }),
        }
    }

    /// Reads the text of the file `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let wrong = |error| ConfigError::Wrong { path: path.to_owned(), error: Box::new(error) };
        toml::from_str(text).map_err(wrong)
    }

    /// These settings; those that are not set here are taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            color: self.color.or(other.color),
            theme: self.theme.or(other.theme),
            ascii: self.ascii.or(other.ascii),
            mouse: self.mouse.or(other.mouse),
            own_netns: self.own_netns.or(other.own_netns),
            ring_bytes: self.ring_bytes.or(other.ring_bytes),
            max_cost: self.max_cost.or(other.max_cost),
            trace_all_fd_syscalls: self.trace_all_fd_syscalls.or(other.trace_all_fd_syscalls),
            proc: self.proc.or(other.proc),
        }
    }

    /// Where processes are read, if not in /proc.
    #[must_use]
    pub fn proc(&self) -> Option<&Path> {
        self.proc.as_deref()
    }

    /// How the engine is to run; diagnostics are the logger's to switch on.
    #[must_use]
    pub fn engine(&self, methods: ForcedMethods) -> EngineOptions {
        let default = EngineOptions::default();
        EngineOptions {
            watched: if self.own_netns.unwrap_or(false) { Watched::Own } else { Watched::All },
            ring_bytes: self.ring_bytes.map_or(default.ring_bytes, |bytes| bytes.0),
            max_cost: Some(self.max_cost.unwrap_or_default().0),
            methods,
            trace_all_fd_syscalls: self.trace_all_fd_syscalls.unwrap_or(default.trace_all_fd_syscalls),
            after_attach: AfterAttach::DropRights(NewUser::OfSudo),
            ..default
        }
    }

    /// How the screen is to look. `env` reads the environment.
    #[must_use]
    pub fn look<S: AsRef<OsStr>>(&self, env: impl Fn(&str) -> Option<S>) -> tui::Look {
        let is_set = |name: &str| env(name).is_some_and(|value| !value.as_ref().is_empty());
        // <https://no-color.org>
        let has_color = self.color.unwrap_or_default().decide(!is_set("NO_COLOR"));
        let theme = self.theme.unwrap_or_default();
        // As setlocale(3) looks for the locale; C and POSIX are ASCII.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| is_set(name)).and_then(&env);
        let is_utf8 = locale.is_some_and(|locale| {
            let locale = locale.as_ref().to_string_lossy().to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        tui::Look {
            theme: if has_color { theme } else { ThemeName::Mono },
            ascii: self.ascii.unwrap_or_default().decide(!is_utf8),
            mouse: self.mouse.unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> UserSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_set_first_decides() {
        let flags = settings("theme = 'light'\nmouse = false");
        let file = settings("theme = 'mono'\nmouse = true\nown_netns = true\nring_bytes = 4096");
        let cost = |text: &str| settings(text).engine(ForcedMethods::default()).max_cost.map(CpuShare::ratio);
        assert_eq!((cost(""), cost("max_cost = 2.5"), cost("max_cost = 100")), (Some(0.05), Some(0.025), Some(1.0)));
        let both = flags.or(file);
        assert_eq!(both, settings("theme = 'light'\nmouse = false\nown_netns = true\nring_bytes = 4096"));
        let options = both.engine(ForcedMethods::default());
        assert_eq!((options.watched, options.ring_bytes), (Watched::Own, 4096));
    }

    #[test]
    fn no_color_and_the_locale_decide_unless_a_setting_does() {
        let look = |text: &str, env: &[(&str, &str)]| {
            let read = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let tui::Look { theme, ascii, .. } = settings(text).look(read);
            (theme, ascii)
        };
        let utf8 = ("LANG", "en_US.UTF-8");
        assert_eq!(look("", &[utf8]), (ThemeName::Dark, false));
        assert_eq!(look("", &[utf8, ("NO_COLOR", "1")]), (ThemeName::Mono, false));
        assert_eq!(look("", &[utf8, ("NO_COLOR", "")]), (ThemeName::Dark, false));
        assert_eq!(look("color = 'always'\ntheme = 'light'", &[utf8, ("NO_COLOR", "1")]), (ThemeName::Light, false));
        assert_eq!(look("color = 'never'\ntheme = 'light'", &[utf8]), (ThemeName::Mono, false));
        // LC_ALL stands above all; a name that is empty is not set.
        assert_eq!(look("", &[utf8, ("LC_ALL", "C")]), (ThemeName::Dark, true));
        assert_eq!(look("", &[utf8, ("LC_ALL", "")]), (ThemeName::Dark, false));
        assert_eq!(look("", &[("LC_CTYPE", "C.utf8")]), (ThemeName::Dark, false));
        assert_eq!(look("", &[]), (ThemeName::Dark, true));
        assert_eq!(look("ascii = 'never'", &[]), (ThemeName::Dark, false));
        assert_eq!(look("ascii = 'always'", &[utf8]), (ThemeName::Dark, true));
    }

    #[test]
    fn the_help_has_the_size_of_the_ring() {
        let command = UserSettings::augment_args(clap::Command::new("observer"));
        let ring = command.get_arguments().find(|arg| arg.get_id() == "ring_bytes").unwrap();
        assert!(ring.get_help().unwrap().to_string().contains(&EngineOptions::LEAST_RING_BYTES.to_string()));
        for (cpus, mebibytes) in [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (usize::MAX, 1024)] {
            assert_eq!(EngineOptions::ring_bytes(cpus), mebibytes << 20, "{cpus} CPUs");
        }
    }

    #[test]
    fn a_wrong_file_is_reported_in_one_line() {
        for (text, words) in [
            ("colour = 'auto'", "unknown field `colour`"),
            ("theme = 'pink'", "unknown variant `pink`"),
            ("ring_bytes = 5000", "not a power of two"),
            ("max_cost = 0", "not 0.01 to 100 percent"),
            ("mouse =", "line 1"),
            ("theme = \"\\u001b[31m\"", "unknown variant `?[31m`"),
            ("color = 'a\tb'", "unknown variant"),
        ] {
            let said = UserSettings::parse(text, Path::new("/x/config.toml")).unwrap_err().to_string();
            assert!(said.contains(words) && !said.contains(char::is_control), "{said}");
        }
    }
}
