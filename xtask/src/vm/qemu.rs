//! Boots a kernel in QEMU and listens to its console.

use std::io::{self, PipeReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::arch::Arch;
use super::console::{Console, End};

/// One processor: with two that are emulated in parallel, kernels panicked while they patched their own code, which
/// probes make them do all the time.
const PROCESSORS: &str = "1";
const MEMORY_MIB: &str = "1024";

/// The kernel's own messages from errors on, a restart (which ends QEMU) at the first sign that it is broken, and no work
/// for safety that an emulated machine has no need of: Debian's kernels zero all memory that they allocate.
const COMMAND_LINE: &str = "panic=-1 oops=panic quiet loglevel=4 mitigations=off init_on_alloc=0";

/// What gets a guest stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From start to power-off.
    pub(crate) total: Duration,
    /// Without a byte on the console.
    pub(crate) silence: Duration,
}

/// How a kernel is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) arch: &'static Arch,
    /// By the processor's own virtualization in place of emulation.
    pub(crate) kvm: bool,
    pub(crate) limits: Limits,
    /// Whether it takes only the time of processors that nothing else on this machine wants.
    pub(crate) is_background: bool,
}

impl Machine {
    /// Runs a kernel to its end. `show` gets every line for people as it comes.
    pub(crate) fn boot(&self, kernel: &Path, initramfs: &Path, mut show: impl FnMut(&str)) -> Result<(End, Console)> {
        // QEMU's own complaints go where the console goes.
        let (reader, writer) = io::pipe().context("make a pipe")?;
        let errors = writer.try_clone().context("share a pipe")?;
        let mut qemu = self.command(kernel, initramfs);
        let child = qemu.stdin(Stdio::null()).stdout(writer).stderr(errors).spawn().context("start QEMU")?;
        // The pipe ends when nobody can write to it any more: the command must let go of our copies.
        drop(qemu);
        let _running = Running(child);

        let chunks = read_chunks(reader)?;
        let mut console = Console::default();
        let mut text = Vec::new();
        let deadline = Instant::now() + self.limits.total;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match chunks.recv_timeout(left.min(self.limits.silence)) {
                Ok(chunk) => text.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => return Ok((End::ByItself, console)),
                Err(RecvTimeoutError::Timeout) if left <= self.limits.silence => {
                    return Ok((End::OutOfTime(self.limits.total), console));
                }
                Err(RecvTimeoutError::Timeout) => return Ok((End::Silent(self.limits.silence), console)),
            }
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Some(shown) = console.line(String::from_utf8_lossy(&line).trim_end()) {
                    show(&shown);
                }
            }
            console.unfinished(&String::from_utf8_lossy(&text));
        }
    }

    fn command(&self, kernel: &Path, initramfs: &Path) -> Command {
        let mut qemu = if self.is_background {
            let mut nice = Command::new("nice");
            nice.args(["-n", "10", self.arch.qemu]);
            nice
        } else {
            Command::new(self.arch.qemu)
        };
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
        qemu.args(["-no-reboot", "-machine", self.arch.machine, "-smp", PROCESSORS, "-m", MEMORY_MIB]);
        // That /dev/kvm is there does not say that a stock kernel can run by it: nobody gets it unasked.
        qemu.args(if self.kvm {
            ["-accel", "kvm", "-cpu", "host"]
        } else {
            ["-accel", "tcg,thread=single", "-cpu", self.arch.cpu]
        });
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        qemu.args(["-append", &format!("console={} {COMMAND_LINE} {}", self.arch.console, self.arch.command_line)]);
        qemu
    }
}

/// A QEMU that does not outlive what waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bytes of a pipe as they come, so that one can wait for them with a limit.
fn read_chunks(mut pipe: PipeReader) -> Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut bytes) {
            if sender.send(bytes[..read].to_vec()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("console".to_owned()).spawn(read).context("start a thread")?;
    Ok(receiver)
}
