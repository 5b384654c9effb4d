//! The program: static, with the list of its crates inside, and without a folder of the building machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::vm::arch::Arch;
use crate::vm::guest;
use crate::{process, tools, workspace};

/// The profile in `Cargo.toml`.
const PROFILE: &str = "dist";

/// A shell whose completions observer writes, and the file's name.
pub(super) struct Shell {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
}

pub(super) const SHELLS: [Shell; 5] = [
    Shell { name: "bash", file: "observer.bash" },
    Shell { name: "elvish", file: "observer.elv" },
    Shell { name: "fish", file: "observer.fish" },
    Shell { name: "powershell", file: "_observer.ps1" },
    Shell { name: "zsh", file: "_observer" },
];

/// What the program writes about itself.
pub(super) struct Generated {
    /// Man pages of section 1, by the names of their files.
    pub(super) pages: Vec<(String, Vec<u8>)>,
    pub(super) completions: Vec<(&'static Shell, Vec<u8>)>,
}

/// Builds the program; returns its path. For another processor Debian's compiler does it, because Debian has the standard library
/// of every processor.
pub(super) fn build(auditable: &Path, arch: &Arch, epoch: u64, quick: bool) -> Result<PathBuf> {
    let target = workspace::target_dir()?.join("dist-cargo");
    let mut cargo = Command::new(auditable);
    let mut flags = remapped(&target)?;
    if arch.is_native() {
        without_settings(&mut cargo);
        // musl's standard library would have to come from rustup. glibc links statically too, with `files` and `dns` inside for
        // names of hosts.
        flags.push("-Ctarget-feature=+crt-static".to_owned());
    } else {
        cargo = tools::with_debian_rust(cargo);
        flags.extend(guest::flags_of_others(arch)?);
    }
    cargo.args(["auditable", "build", "--locked", "--package", "observer", "--bin", "observer"]);
    cargo.args(["--profile", PROFILE, "--target", &arch.target()]).arg("--target-dir").arg(&target);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if quick {
        for (setting, value) in [("LTO", "off"), ("OPT_LEVEL", "1"), ("CODEGEN_UNITS", "16")] {
            cargo.env(format!("CARGO_PROFILE_DIST_{setting}"), value);
        }
    }
    cargo.env("SOURCE_DATE_EPOCH", epoch.to_string());
    process::run(&mut cargo)?;
    Ok(target.join(arch.target()).join(PROFILE).join("observer"))
}

/// Flags that keep folders of the building machine out of the program.
fn remapped(target: &Path) -> Result<Vec<String>> {
    let mut flags = Vec::new();
    // rustc takes the last one that fits: the folder of products may be inside the repository.
    for (folder, name) in
        [(&cargo_home()?, "/cargo"), (&workspace::root()?, "/observer"), (&target.to_owned(), "/target")]
    {
        let folder = folder.to_str().with_context(|| format!("{} is not UTF-8", folder.display()))?;
        flags.push(format!("--remap-path-prefix={folder}={name}"));
    }
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf> {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// Removes the variables with which a user changes what cargo builds: a released program has the settings of `Cargo.toml`.
fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| changes_the_build(name)) {
        command.env_remove(name);
    }
}

fn changes_the_build(name: &OsStr) -> bool {
    const PREFIXES: [&str; 6] =
        ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_INCREMENTAL", "RUSTC_", "RUSTFLAGS"];
    let name = name.to_string_lossy();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == "CARGO_ENCODED_RUSTFLAGS"
}

/// The man pages and completions that `program` writes.
pub(super) fn generated(program: &Path, work: &Path) -> Result<Generated> {
    let folder = super::fresh(work.join("man"))?;
    process::run(Command::new(program).arg("man").arg("--folder").arg(&folder))?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let name = path.file_name().and_then(OsStr::to_str).context("the name of a man page")?.to_owned();
        pages.push((name, fs::read(&path).with_context(|| format!("read {}", path.display()))?));
    }
    pages.sort();
    let completions = SHELLS.iter().map(|shell| {
        let script = process::stdout(Command::new(program).args(["completions", shell.name]))?;
        Ok((shell, script.into_bytes()))
    });
    Ok(Generated { pages, completions: completions.collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_users_do_not_change_a_released_program() {
        for name in
            ["CARGO_PROFILE_DEV_DEBUG", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET"]
        {
            assert!(changes_the_build(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "RUSTUP_HOME"] {
            assert!(!changes_the_build(OsStr::new(name)), "{name}");
        }
    }
}
