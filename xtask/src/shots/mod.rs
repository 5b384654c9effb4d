//! `cargo xtask shots`: the pictures of the documents, drawn from recordings of real traffic.

mod actors;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{UnshareFlags, unshare_unsafe};

pub(crate) use self::actors::Actor;
use crate::process;

const RECORDINGS: &str = "observer/tests/data";
const OBSERVER: &str = "target/release/observer";
/// The cgroup above those of the actors.
const DEMO: &str = "observer-demo";
/// Long enough for rates, a little history and a forecast.
const SECONDS: u64 = 12;

/// Labs that are shown in docs/labs.md, each small enough for a recording of a few dozen kilobytes.
const LABS: [(&str, &str); 6] = [
    ("accept", "200"),
    ("client-ceiling", "140"),
    ("port-reuse", "100"),
    ("time-wait", "60"),
    ("fd-limit", "64"),
    ("backlog", "12"),
];

/// Draws every picture; with `record`, of recordings made just now.
pub(crate) fn run(record: bool) -> Result<()> {
    if record {
        process::run(process::cargo().args(["build", "--release", "--locked", "--package", "observer"]))?;
        // The namespace ends with its thread and the sockets of that.
        thread::spawn(record_demo).join().map_err(|_| anyhow!("recording panicked"))??;
        LABS.into_iter().try_for_each(record_lab)?;
    }
    let mut test = process::cargo();
    test.args(["test", "--locked", "--package", "observer", "--test", "shots", "every_picture"]);
    process::run(test.env("OBSERVER_WRITE_SHOTS", "1"))
}

/// A small host whose range is short: a web server, and clients of a database and of a cache that runs out of ports.
fn record_demo() -> Result<()> {
    // SAFETY: only this thread's network namespace is split off; no file table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace (this needs root)")?;
    for command in [
        "link set lo up",
        "addr add 10.0.0.5/32 dev lo",
        "addr add 10.0.0.9/32 dev lo",
        // As if the other address were another host's.
        "route replace local 10.0.0.9 dev lo table local src 10.0.0.5",
    ] {
        process::run(Command::new("ip").args(command.split(' ')))?;
    }
    // 256 ports show what 28,232 would, in a recording of a hundredth of the size.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40255").context("set the port range")?;
    let mut actors = Actors { children: Vec::new(), cgroups: vec![Cgroup::make(&cgroup2()?.join(DEMO))?] };
    for actor in Actor::ALL {
        actors.start(actor)?;
    }
    let mut recorder = Command::new(OBSERVER);
    let file = format!("{RECORDINGS}/demo.obs");
    recorder.args(["--own-netns", "record", "--force", &file, "--for", &SECONDS.to_string()]);
    process::run(&mut recorder)
}

/// A lab writes no file that is there.
fn record_lab((lab, scale): (&str, &str)) -> Result<()> {
    let file = format!("{RECORDINGS}/lab-{lab}.obs");
    // One that was not there is as good as removed.
    let _ = fs::remove_file(&file);
    process::run(Command::new(OBSERVER).args(["lab", lab, "--scale", scale, "--plain", "--record", &file]))
}

/// The first mount of cgroup2.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
    Ok(mount.context("the demonstration has services: mount cgroup2")?[1].into())
}

/// A cgroup that ends with this.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(path: &Path) -> Result<Self> {
        fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// Processes that end with this, and then their cgroups, the first one last.
struct Actors {
    children: Vec<Child>,
    cgroups: Vec<Cgroup>,
}

impl Actors {
    fn start(&mut self, actor: Actor) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["act", &actor.name()]);
        if let Some(unit) = actor.unit() {
            let cgroup = Cgroup::make(&self.cgroups[0].0.join(unit))?;
            command.arg("--cgroup").arg(&cgroup.0);
            self.cgroups.push(cgroup);
        }
        self.children.push(command.spawn().with_context(|| format!("start {}", actor.name()))?);
        Ok(())
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        while self.cgroups.pop().is_some() {}
    }
}
