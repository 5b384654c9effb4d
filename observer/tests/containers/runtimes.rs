//! Containers of real runtimes, and what the kernel says of their cgroups. This file needs nothing of the other tests: a
//! test program that wants containers takes it with `#[path]`.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long to wait for anything on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Which network namespace a container is in.
#[derive(Clone, Copy)]
pub(crate) enum Network<'a> {
    /// One of its own, with `lo` up.
    Own,
    /// That of the thread that starts it, as `hostNetwork: true` does.
    Shared,
    /// A mounted one, `/run/netns/blue`.
    Mounted(&'a str),
}

/// A container of runc without an engine; it ends when dropped.
pub(crate) struct Runc {
    pub(crate) id: String,
    pub(crate) pid: u32,
    _bundle: TempDir,
}

impl Runc {
    /// Starts busybox with this command in a container. `what` is a part of its id.
    pub(crate) fn start(what: &str, network: Network<'_>, command: &[&str]) -> Self {
        let id = unique(what);
        let bundle = tempfile::tempdir().unwrap();
        root_file_system(&bundle.path().join("rootfs"));
        run(Command::new("runc").arg("spec").current_dir(bundle.path()));
        let config = bundle.path().join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = [&["/bin/busybox"], command].concat().into();
        // A process may lower its limits, and without CAP_SYS_RESOURCE not raise them.
        spec["process"]["rlimits"] = serde_json::json!([]);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        match network {
            Network::Own => namespaces.push(serde_json::json!({"type": "network"})),
            Network::Shared => {}
            Network::Mounted(path) => namespaces.push(serde_json::json!({"type": "network", "path": path})),
        }
        fs::write(&config, spec.to_string()).unwrap();
        let pid_file = bundle.path().join("pid");
        // The container keeps what it gets as its output: a pipe would never end.
        let mut runc = Command::new("runc");
        runc.args(["run", "--detach", "--pid-file"]).arg(&pid_file).arg("--bundle").arg(bundle.path()).arg(&id);
        let errors = bundle.path().join("errors");
        runc.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors).unwrap());
        let status = runc.status().expect("runc is needed (Debian package runc)");
        assert!(status.success(), "runc: {}", fs::read_to_string(&errors).unwrap());
        let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        Self { id, pid, _bundle: bundle }
    }

    /// Ends the container and its cgroup.
    pub(crate) fn end(&self) {
        run(Command::new("runc").args(["delete", "--force", &self.id]));
        wait_until("the cgroup of the container is gone", || !self.cgroup().exists());
    }

    /// The directory of its cgroup in cgroup2.
    pub(crate) fn cgroup(&self) -> PathBuf {
        cgroup2().join(&self.id)
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        // It may have been ended by the test.
        let _ = output(Command::new("runc").args(["delete", "--force", &self.id]));
    }
}

/// A container of podman, in a mount namespace with cgroup2 alone: podman refuses hosts with both versions.
pub(crate) struct Podman {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) pid: u32,
    _root: TempDir,
}

impl Podman {
    /// Starts busybox with this command in a container with its own network namespace.
    pub(crate) fn start(what: &str, command: &[&str]) -> Self {
        let name = unique(what);
        let root = tempfile::tempdir().unwrap();
        root_file_system(root.path());
        // crun wants CAP_SYS_RESOURCE for the program that allows devices.
        let options = "--runtime runc run --detach --network none --pids-limit 0 --ulimit nofile=1024:1024 \
            --ulimit nproc=1024:1024 --name";
        let words: Vec<&str> = options.split_whitespace().chain([name.as_str(), "--rootfs"]).collect();
        let program = [&[root.path().to_str().unwrap(), "/bin/busybox"], command].concat();
        let id = podman(&[&words[..], &program].concat());
        let pid = podman(&["inspect", "--format", "{{.State.Pid}}", &name]).parse().unwrap();
        Self { name, id, pid, _root: root }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        podman(&["rm", "--force", "--time", "0", &self.name]);
    }
}

/// Runs podman to its end; returns what it printed.
pub(crate) fn podman(arguments: &[&str]) -> String {
    const ALONE: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", ALONE, "sh", "podman", "--cgroup-manager=cgroupfs"]).args(arguments);
    run(&mut command).trim().to_owned()
}

/// A file that `cargo xtask dist` made in the folder of builds: the one whose name ends so.
pub(crate) fn artefact(ending: &str) -> PathBuf {
    let dist = Path::new(env!("CARGO_BIN_EXE_observer")).ancestors().nth(2).unwrap().join("dist");
    let files = fs::read_dir(&dist).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut found = files.filter(|path| path.to_str().unwrap().ends_with(ending));
    found.next().unwrap_or_else(|| panic!("no *{ending} in {}: `cargo xtask dist --quick` makes it", dist.display()))
}

/// A name that no other test and no earlier run has.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("observer-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// busybox and what a container needs to mount.
fn root_file_system(root: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox is needed (Debian package busybox-static)");
    // By another process: a file that this one has open for writing cannot be executed, and a fork of another thread keeps it
    // open (ETXTBSY).
    assert!(Command::new("cp").arg(busybox).arg(root.join("bin/busybox")).status().unwrap().success());
    for applet in ["sh", "cat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// Where cgroup2 is mounted, as util-linux finds it.
pub(crate) fn cgroup2() -> PathBuf {
    let found = run(Command::new("findmnt").args(["--types", "cgroup2", "--noheadings", "--output", "TARGET"]));
    PathBuf::from(found.lines().next().expect("cgroup2 is not mounted"))
}

/// The id of a cgroup: the inode of its directory.
pub(crate) fn inode(directory: &Path) -> u64 {
    fs::metadata(directory).unwrap().ino()
}

/// The path of the cgroup of the listener on a port of the calling thread's network namespace, as `ss --cgroup` shows it.
pub(crate) fn listener_cgroup(port: u16) -> Option<String> {
    let shown = run(Command::new("ss").args(["-Hltn", "--cgroup", &format!("sport = :{port}")]));
    shown.split_whitespace().find_map(|word| word.strip_prefix("cgroup:")).map(str::to_owned)
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "did not come: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

/// Runs a program to its end; returns what it printed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
