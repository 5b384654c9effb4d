//! Machines of systemd-nspawn: systemd is their first process. Like podman, nspawn wants cgroup2 alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::runtimes::{cgroup2, output, unique, wait_until};

/// A machine; it ends when dropped.
pub(crate) struct Machine {
    pub(crate) name: String,
    cgroup: PathBuf,
    nspawn: Child,
    files: TempDir,
}

impl Machine {
    /// Boots a machine with the host's own systemd, in a network namespace of its own, that has busybox with this command as
    /// its service `listen.service`.
    pub(crate) fn start(what: &str, command: &str) -> Self {
        let text = format!("[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/busybox {command}\n");
        let files = tempfile::tempdir().unwrap();
        let unit = files.path().join("listen.service");
        fs::write(&unit, text).unwrap();
        let bind = format!("--bind-ro={}:/run/systemd/system/listen.service", unit.display());
        // The host's /usr, and nothing else of it.
        let words = ["--directory=/", "--volatile=yes", &bind, "systemd.unit=listen.service"];
        Self::boot(what, files, &words.map(str::to_owned))
    }

    /// Boots Debian with these files of the host (`from`, `to`) in it. What it writes is gone with it.
    pub(crate) fn debian(what: &str, binds: &[(PathBuf, &str)]) -> Self {
        let root = debian_root();
        let mut words = vec![format!("--directory={}", root.display()), "--volatile=overlay".to_owned()];
        words.extend(binds.iter().map(|(from, to)| format!("--bind-ro={}:{to}", from.display())));
        let machine = Self::boot(what, tempfile::tempdir().unwrap(), &words);
        let mut state = String::new();
        wait_until(&format!("the machine runs: {}", machine.files.path().display()), || {
            state = machine
                .try_run(&["systemctl", "is-system-running"])
                .map_or_else(|_| String::new(), |it| text(&it.stdout));
            ["running", "degraded"].contains(&state.trim())
        });
        assert_eq!(state.trim(), "running", "{}", machine.output(&["systemctl", "--failed"]));
        machine
    }

    /// Options of nspawn come first in `words`; what follows them is for the machine's systemd.
    fn boot(what: &str, files: TempDir, words: &[String]) -> Self {
        /// nspawn stays in the cgroup that it is started in, as in that of a service, and puts the machine below it.
        const BOOT: &str = "echo $$ > \"$1/cgroup.procs\" && shift && umount -R /sys/fs/cgroup && \
            mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        // nspawn's own filter knows the rights of a machine, and not what observer does with them.
        const OPTIONS: &str = "--register=no --keep-unit --private-network --link-journal=no \
            --capability=all --system-call-filter=bpf --system-call-filter=perf_event_open --system-call-filter=setns \
            --system-call-filter=pidfd_getfd --system-call-filter=landlock_create_ruleset \
            --system-call-filter=landlock_add_rule --system-call-filter=landlock_restrict_self --console=pipe --boot";
        let name = unique(what);
        let cgroup = cgroup2().join(format!("{name}.service"));
        fs::create_dir(&cgroup).unwrap();
        let mut boot = Command::new("unshare");
        boot.args(["--mount", "sh", "-c", BOOT, "sh"]).arg(&cgroup).arg("systemd-nspawn");
        boot.args(OPTIONS.split_whitespace()).arg(format!("--machine={name}")).args(words);
        let log = fs::File::create(files.path().join("log")).unwrap();
        boot.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let nspawn = boot.spawn().unwrap();
        Self { name, cgroup, nspawn, files }
    }

    /// The first process of the service, once it runs.
    pub(crate) fn pid(&self) -> u32 {
        let mut pid = None;
        wait_until("the service of the machine", || {
            pid = self.first_pid("system.slice/listen.service");
            pid.is_some()
        });
        pid.unwrap()
    }

    /// The host's number of the first process of a cgroup of the machine.
    pub(crate) fn first_pid(&self, cgroup: &str) -> Option<u32> {
        let listed = self.cgroup.join("payload").join(cgroup).join("cgroup.procs");
        fs::read_to_string(listed).ok().and_then(|pids| pids.lines().next()?.parse().ok())
    }

    /// What comes before a program that is to run in the machine.
    pub(crate) fn enter(&self) -> io::Result<Vec<String>> {
        let first = self.first_pid("init.scope").ok_or(io::ErrorKind::NotFound)?;
        let words = "nsenter --mount --uts --ipc --net --pid --cgroup --target";
        Ok(words.split(' ').map(str::to_owned).chain([first.to_string(), "--".to_owned()]).collect())
    }

    /// Runs a program in the machine.
    pub(crate) fn try_run(&self, words: &[&str]) -> io::Result<Output> {
        let enter = self.enter()?;
        let mut command = Command::new(&enter[0]);
        output(command.args(&enter[1..]).args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin"))
    }

    /// Runs a program in the machine to its end, whatever that is; returns all that it printed.
    pub(crate) fn output(&self, words: &[&str]) -> String {
        let output = self.try_run(words).unwrap();
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    }

    /// Runs a program in the machine, which has to succeed; returns what it printed.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.try_run(words).unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        text(&output.stdout)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
        self.nspawn.wait().unwrap();
        wait_until("the cgroups of the machine are gone", || remove_tree(&self.cgroup).is_ok());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Debian with systemd, where `cargo xtask test` makes it.
fn debian_root() -> PathBuf {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").unwrap_or_else(|| folder("HOME").unwrap().join(".cache"));
    let root = cache.join("observer/debian-root");
    assert!(root.join("usr/bin/systemctl").exists(), "{}: `cargo xtask test` makes it", root.display());
    root
}

/// Removes a cgroup with all below it.
fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(cgroup)
}
