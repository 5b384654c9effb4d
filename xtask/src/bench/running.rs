//! Processes that run beside what is measured: they end with the value that stands for them, and with this program.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::stage;

const BEAT: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is killed when this is dropped.
pub(super) struct Running {
    child: Child,
    /// Kept open: some end with it.
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `command`, whose output goes where it says.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = stage::ends_with_us(command).spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { stdin: child.stdin.take(), stdout: child.stdout.take().map(BufReader::new), child })
    }

    /// Starts `command` with pipes to it and from it.
    pub(super) fn start_piped(command: &mut Command) -> Result<Self> {
        Self::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file of this name in the process's folder of /proc.
    pub(super) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid()))
    }

    /// Waits for the next line.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut read = String::new();
        self.stdout.as_mut().context("its output is not ours")?.read_line(&mut read)?;
        Ok(read)
    }

    /// Waits for the next line, and for it to be `line`.
    pub(super) fn expect_line(&mut self, line: &str) -> Result<()> {
        let read = self.line()?;
        ensure!(read.trim_end() == line, "{read:?} came in place of {line:?}");
        Ok(())
    }

    /// Writes a line to its standard input.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin.as_mut().context("its input is not ours")?, "{line}")?)
    }

    /// User and system time of all its threads, those that have ended included.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let mut clock = 0;
        // SAFETY: `clock` is where the answer goes.
        let failed = unsafe { libc::clock_getcpuclockid(self.child.id().cast_signed(), &raw mut clock) };
        ensure!(failed == 0, "no CPU clock for process {}: errno {failed}", self.pid());
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is where the answer goes.
        ensure!(unsafe { libc::clock_gettime(clock, &raw mut time) } == 0, "read the CPU time of {}", self.pid());
        Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec)?))
    }

    /// Bytes of memory that it has touched.
    pub(super) fn resident(&self) -> Result<u32> {
        let status = fs::read_to_string(self.proc("status")).context("read the memory of a process")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u32 = line.trim().trim_end_matches(" kB").trim().parse()?;
        kilobytes.checked_mul(1024).context("more than 4 GiB")
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks it to end as Ctrl-C does, and waits until it has.
    pub(super) fn interrupt(&mut self, name: &str) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a process without a number")?;
        let mut asked = None::<Instant>;
        wait_until(&format!("end of {name}"), || {
            // Some ignore signals while they are busy.
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(2)) && !self.has_ended()? {
                kill_process(pid, Signal::INT).context("end a tool")?;
                asked = Some(Instant::now());
            }
            self.has_ended()
        })?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the answer is yes, but not for ever.
pub(super) fn wait_until(what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_until_within(what, PATIENCE, is_so)
}

/// The same, with a patience of its own.
pub(super) fn wait_until_within(what: &str, patience: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("waited in vain for the {what}");
        }
        thread::sleep(BEAT);
    }
    Ok(())
}
