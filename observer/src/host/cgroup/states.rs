//! Containers that runc and crun run without an engine. Their cgroups have any path; the runtime's state says which.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::files;
use crate::{
    host::{proc, text},
    model::units::Pid,
};

/// How long a list of states is used.
const FRESH: Duration = Duration::from_secs(1);
/// Where runc and crun keep a directory for each container, and the file in it.
const PLACES: [(&str, &str); 3] =
    [("run/runc", "state.json"), ("run/containerd/runc/default", "state.json"), ("run/crun", "status")];

/// runc's `state.json` and crun's `status`.
#[derive(Deserialize)]
struct State {
    #[serde(default)]
    cgroup_paths: BTreeMap<String, String>,
    #[serde(rename = "cgroup-path")]
    cgroup_path: Option<String>,
    #[serde(default, alias = "init_process_pid")]
    pid: u32,
}

impl State {
    fn cgroups(&self) -> Vec<String> {
        let of_runc = self.cgroup_paths.iter().filter_map(|(key, path)| in_hierarchy(key, path));
        let of_crun = self.cgroup_path.as_deref().filter(|path| path.len() > 1);
        let cgroups: BTreeSet<&str> = of_runc.chain(of_crun).collect();
        cgroups.into_iter().map(str::to_owned).collect()
    }
}

/// What the state of a container says, and the file that says it.
#[derive(Debug)]
struct Known {
    version: Version,
    /// The paths of its cgroups.
    cgroups: Vec<String>,
    /// Its first process, by the number that the runtime knows.
    pid: Pid,
}

/// Which file was read: runtimes put a new one in the place of the old one.
type Version = (u64, i64, i64, u64);

/// The states of all containers. A file is read once, however many containers there are, and none is left out.
#[derive(Debug, Default)]
pub(super) struct States {
    at: Option<Instant>,
    known: FxHashMap<(usize, OsString), Known>,
}

impl States {
    /// The container whose cgroup this is, or contains it, the innermost; and the rest of the path.
    pub(super) fn find<'a>(&mut self, base: &Path, path: &'a [u8], now: Instant) -> Option<(String, &'a [u8])> {
        if self.at.is_none_or(|at| now.saturating_duration_since(at) >= FRESH) {
            self.at = Some(now);
            self.read(base);
        }
        // Seen from a cgroup namespace, a path begins above: `/../web`. That of a runtime has no such beginning.
        let mut below = path;
        while let Some(rest) = below.strip_prefix(b"/..").filter(|rest| rest.starts_with(b"/")) {
            below = rest;
        }
        let above = &path[..path.len() - below.len()];
        let rest_in = |cgroup: &str| {
            let rest = below.strip_prefix(cgroup.as_bytes())?;
            (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
        };
        let all = self.known.iter().flat_map(|((_, id), known)| known.cgroups.iter().map(move |it| (id, known, it)));
        let found = all.filter_map(|(id, known, cgroup)| {
            let rest = rest_in(cgroup)?;
            // How deep this cgroup namespace is nobody knows: another path may end alike.
            let is_it = above.is_empty() || is_shown_at(known.pid, &[above, cgroup.as_bytes()].concat());
            is_it.then_some((id, rest))
        });
        let (id, rest) = found.min_by_key(|(id, rest)| (rest.len(), *id))?;
        Some((id.to_str()?.to_owned(), rest))
    }

    fn read(&mut self, base: &Path) {
        let mut before = std::mem::take(&mut self.known);
        for (place, (directory, file)) in PLACES.iter().enumerate() {
            for entry in fs::read_dir(base.join(directory)).into_iter().flatten().flatten() {
                let path = entry.path().join(file);
                let Some(version) = version(&path) else { continue };
                let key = (place, entry.file_name());
                let known = before.remove(&key).filter(|known| known.version == version);
                if let Some(known) = known.or_else(|| read(&path, version)) {
                    self.known.insert(key, known);
                }
            }
        }
    }
}

fn version(path: &PathBuf) -> Option<Version> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
}

fn read(path: &Path, version: Version) -> Option<Known> {
    let state: State = files::read(path, files::LONGEST)?;
    Some(Known { version, cgroups: state.cgroups(), pid: Pid(state.pid) })
}

/// The cgroups that a state says, of whichever container.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn cgroups_in(bytes: &[u8]) -> Vec<String> {
    files::parse(bytes).map_or_else(Vec::new, |state: State| state.cgroups())
}

/// Whether /proc shows a process at this path, or below it.
fn is_shown_at(pid: Pid, path: &[u8]) -> bool {
    let lines = text::bytes(proc::file(pid, "cgroup")).unwrap_or_default();
    let mut paths = lines.split(|byte| *byte == b'\n').filter_map(|line| line.splitn(3, |byte| *byte == b':').nth(2));
    paths.any(|it| it.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")))
}

/// The path within its hierarchy of a cgroup whose directory is `path`, as runc mounts them: the directory of a v1
/// hierarchy is that of its controllers, the empty controller stands for cgroup2.
fn in_hierarchy<'a>(controller: &str, path: &'a str) -> Option<&'a str> {
    let below = path.strip_prefix("/sys/fs/cgroup")?;
    let path = if controller.is_empty() {
        below.strip_prefix("/unified").filter(|rest| rest.starts_with('/')).unwrap_or(below)
    } else {
        &below[1 + below.get(1..)?.find('/')?..]
    };
    (path.len() > 1).then_some(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(base: &Path, id: &str, state: &serde_json::Value) {
        let directory = base.join("run/runc").join(id);
        fs::create_dir_all(&directory).unwrap();
        // As runc does it.
        fs::write(directory.join("new"), state.to_string()).unwrap();
        fs::rename(directory.join("new"), directory.join("state.json")).unwrap();
    }

    fn state(path: &str, pid: u32) -> serde_json::Value {
        json!({"init_process_pid": pid, "cgroup_paths": {"": format!("/sys/fs/cgroup{path}")}})
    }

    #[test]
    fn none_of_very_many_is_left_out_and_a_file_is_read_again_only_if_it_changed() {
        let (host, mut states, start) = (tempfile::tempdir().unwrap(), States::default(), Instant::now());
        for n in 0..600 {
            write(host.path(), &format!("c{n}"), &state(&format!("/c{n}"), 1));
        }
        let mut found = |path: &str, seconds| {
            let found = states.find(host.path(), path.as_bytes(), start + Duration::from_secs(seconds));
            found.map(|(id, rest)| (id, String::from_utf8(rest.to_vec()).unwrap()))
        };
        for n in 0..600 {
            assert_eq!(found(&format!("/c{n}/x"), 0), Some((format!("c{n}"), "/x".to_owned())));
        }
        write(host.path(), "c7", &state("/moved", 1));
        fs::remove_dir_all(host.path().join("run/runc/c8")).unwrap();
        assert_eq!(found("/c7", 0), Some(("c7".to_owned(), String::new())), "it was read a moment ago");
        assert_eq!((found("/c7", 1), found("/c8", 1)), (None, None));
        assert_eq!(found("/moved", 1), Some(("c7".to_owned(), String::new())));
    }

    #[test]
    fn the_innermost_of_two_is_taken() {
        let host = tempfile::tempdir().unwrap();
        write(host.path(), "outer", &state("/a", 1));
        write(host.path(), "inner", &state("/a/b", 1));
        let found = States::default().find(host.path(), b"/a/b/c", Instant::now());
        assert_eq!(found, Some(("inner".to_owned(), &b"/c"[..])));
    }

    #[test]
    fn a_path_above_this_namespace_that_only_ends_alike_is_not_that_of_a_container() {
        // This process is not in a cgroup of that path.
        let host = tempfile::tempdir().unwrap();
        write(host.path(), "web", &state("/web", std::process::id()));
        let found = |path: &str| States::default().find(host.path(), path.as_bytes(), Instant::now()).is_some();
        assert!(found("/web"));
        assert!(!found("/../web") && !found("/../../web/x"));
    }
}
