//! Where measurements are made: network and mount namespaces that end with their thread, and nothing of the host changes.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::process;

/// Sysctls of the namespace: nothing but the tool may hold the load up.
const SYSCTLS: [(&str, &str); 4] = [
    // A connect() is many times more expensive from half of the range on. The servers' ports are above it.
    ("ip_local_port_range", "1024 46999"),
    // Above it connections end without TIME_WAIT: another load.
    ("tcp_max_tw_buckets", "2000000"),
    ("tcp_max_syn_backlog", "65536"),
    ("tcp_syncookies", "0"),
];

/// Does `work` in namespaces of its own.
pub(super) fn on_stage<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a measurement panicked"))?
    })
}

fn enter() -> Result<()> {
    // SAFETY: namespaces are split off, no file table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
        .context("make namespaces (this needs root)")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("keep mounts to ourselves")?;
    for (kind, target) in [("tracefs", "/sys/kernel/tracing"), ("debugfs", "/sys/kernel/debug")] {
        // Peers that find none of it say so themselves, and their rows do.
        let _ = mount("none", target, kind, MountFlags::empty(), None);
    }
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    for (name, value) in SYSCTLS {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value).with_context(|| format!("set {name}"))?;
    }
    fs::write("/proc/sys/net/core/somaxconn", "65535").context("set somaxconn")
}

/// A listener with room for so many connections.
pub(super) fn listener(address: SocketAddr, backlog: i32) -> Result<TcpListener> {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&listener, &address).with_context(|| format!("bind to {address}"))?;
    // std's queue of 128 would overflow, and what overflows comes again a second later.
    listen(&listener, backlog)?;
    Ok(listener.into())
}

/// This program, to play another part.
pub(super) fn this_program() -> Result<Command> {
    Ok(Command::new(env::current_exe().context("find this program")?))
}

/// Lets `command` end with the thread that starts it, however that ends.
pub(super) fn ends_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: the one call that is made between fork and exec is a system call.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) }
}
