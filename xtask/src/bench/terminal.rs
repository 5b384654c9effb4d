//! The live screen in a pseudo-terminal.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::running::Running;

const COLUMNS: u16 = 160;
const ROWS: u16 = 50;
/// A full scan of a million sockets comes before the first frame that shows it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program and its terminal.
pub(crate) struct Terminal {
    pub(super) running: Running,
    master: File,
    parser: vt100::Parser,
}

impl Terminal {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).context("make a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 })?;
        let slave: OwnedFd = ioctl_tiocgptpeer(&master, flags)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        // SAFETY: only system calls are made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let running = Running::start(command)?;
        Ok(Self { running, master: File::from(master), parser: vt100::Parser::new(ROWS, COLUMNS, 0) })
    }

    pub(super) fn contents(&self) -> String {
        self.parser.screen().contents()
    }

    /// Reads until the screen has all these words; returns when it had.
    pub(crate) fn wait_for(&mut self, words: &[&str]) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = [0; 16_384];
        loop {
            let contents = self.contents();
            if words.iter().all(|word| contents.contains(word)) {
                return Ok(Instant::now());
            }
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let patience = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            if poll(&mut fds, Some(&patience))? == 0 {
                bail!("{words:?} did not come on the screen:\n{contents}");
            }
            let read = self.master.read(&mut bytes).with_context(|| format!("the screen ended:\n{contents}"))?;
            self.parser.process(&bytes[..read]);
        }
    }

    /// From now on nobody looks: what is written is read, and costs as little as can be.
    pub(super) fn look_away(self) -> Result<Running> {
        let mut master = self.master;
        thread::Builder::new().name("terminal".into()).spawn(move || {
            let mut bytes = [0; 16_384];
            // The program's end is an error.
            while master.read(&mut bytes).is_ok_and(|read| read > 0) {}
        })?;
        Ok(self.running)
    }
}
