//! `cargo xtask shots`: the pictures of the documents, drawn from recordings of real traffic.

mod actors;

use std::fs;
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{UnshareFlags, unshare_unsafe};

pub(crate) use self::actors::Actor;
use crate::process;

const RECORDING: &str = "observer/tests/data/demo.obs";
const OBSERVER: &str = "target/release/observer";
/// Long enough for rates, a little history and a forecast.
const SECONDS: u64 = 12;

/// Draws every picture; with `record`, of recordings made just now.
pub(crate) fn run(record: bool) -> Result<()> {
    if record {
        process::run(process::cargo().args(["build", "--release", "--locked", "--package", "observer"]))?;
        // The namespace ends with its thread and the sockets of that.
        thread::spawn(record_demo).join().map_err(|_| anyhow!("recording panicked"))??;
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
    let mut actors = Actors(Vec::new());
    for actor in Actor::ALL {
        actors.start(actor)?;
    }
    let mut recorder = Command::new(OBSERVER);
    recorder.args(["--own-netns", "record", "--force", RECORDING, "--for", &SECONDS.to_string()]);
    process::run(&mut recorder)
}

/// Processes that end with this.
struct Actors(Vec<Child>);

impl Actors {
    fn start(&mut self, actor: Actor) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["act", &actor.name()]);
        self.0.push(command.spawn().with_context(|| format!("start {}", actor.name()))?);
        Ok(())
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
