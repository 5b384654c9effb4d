//! The limit of open files of the whole host. This lab alone changes something outside its namespace. Therefore it runs
//! only where an environment variable says that nobody else uses this kernel.

use std::{
    env, fs, io,
    net::{SocketAddrV4, TcpStream},
    thread,
};

use anyhow::{Context as _, anyhow, ensure};

use super::{
    Lab, Scale,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, value},
    stage::{self, LOCALHOST},
};
use crate::{
    host::{
        files,
        text::{self, Reads},
    },
    model::{failure::FailureKind, limit::LimitKind, units::grouped},
};

/// Set where nobody else uses this kernel, as in the guests of `cargo xtask vm`.
const THROWAWAY: &str = "OBSERVER_VM";
const FILE_MAX: &str = "/proc/sys/fs/file-max";
/// How many sockets the user without rights tries to open.
const TRIES: u32 = 3;
/// The user `nobody`, who has no rights.
const NOBODY: libc::uid_t = 65_534;

pub(super) static LAB: Lab = Lab {
    name: "file-max",
    claim: "when the whole host has as many open files as fs.file-max allows, everybody but the administrator gets \
     ENFILE",
    theory: &[
        "fs.file-max limits the open files of all processes together: sockets, pipes, files. /proc/sys/fs/file-nr \
         shows how many are open. At the limit socket(), accept() and open() fail with ENFILE, \"too many open files \
         in system\".",
        "The kernel never refuses a process with CAP_SYS_ADMIN, so that somebody can still log in and repair it. Tests \
         as root do not see this limit.",
        "The kernel derives it from the size of memory, and systemd sets it to 2^63-1. Memory runs out first. It is a \
         limit of the host: no namespace has its own. A lab that lowers it makes every program on the machine fail.",
    ],
    limits: &[LimitKind::HostFiles],
    scale: Scale { least: 1, usual: 1, most: 1, shrinks: false },
    needs: |scale| Ok(Needs { processes: 0, ..Needs::of_connections(scale) }),
    may_run,
    run,
};

fn may_run() -> anyhow::Result<()> {
    ensure!(
        env::var_os(THROWAWAY).is_some(),
        "lab file-max lowers fs.file-max, a limit of the whole host, and every program on it would fail. It runs only \
         with {THROWAWAY}=1 in the environment, on your own virtual machine. `observer explain file-max` explains what \
         it shows"
    );
    Ok(())
}

/// Restores the limit when dropped.
struct Restored(String);

impl Drop for Restored {
    fn drop(&mut self) {
        if let Err(error) = fs::write(FILE_MAX, &self.0) {
            tracing::error!(%error, before = self.0, "could not restore fs.file-max");
        }
    }
}

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let _listener = stage::listen_long(at)?;
    let before = files::read(&Reads::default()).context("read /proc/sys/fs/file-nr")?;

    session.step("Set fs.file-max below the number of open files.")?;
    session.theory(format!(
        "{} files are open, and the limit is {}. With a limit of 1 the kernel opens no more.",
        grouped(before.allocated),
        grouped(before.max)
    ))?;
    let limit = Restored(text::string(FILE_MAX).context("read fs.file-max")?);
    fs::write(FILE_MAX, "1").context("set fs.file-max")?;
    let administrator = errno(&TcpStream::connect(at));
    let tries = move || as_nobody(|| (0..TRIES).map(|_| errno(&TcpStream::connect(at))).collect::<Vec<_>>());
    let refused = thread::Builder::new()
        .spawn(tries)
        .context("start a thread without rights")?
        .join()
        .map_err(|_| anyhow!("the thread without rights panicked"))?;
    drop(limit);
    let refused = refused.context("become nobody")?;
    session.kernel(format!("The administrator's socket(): {}.", refusal(administrator)))?;
    session.kernel(format!("A user without rights: {}.", refusal(refused[0])))?;
    let reported = session.observed(|it| {
        let rows = it.failures.iter().filter(|row| row.key.kind == FailureKind::HostFiles);
        Some(rows.map(|row| row.count).sum::<u64>()).filter(|count| *count > 0)
    })?;
    let count = u32::try_from(refused.iter().filter(|errno| **errno == Some(libc::ENFILE)).count())?;
    session.check(Check::equal("the administrator's socket()", "works", None, outcome(administrator)));
    session.check(Check::equal("sockets refused to others with ENFILE", TRIES, value(reported), count));

    session.step("Restore fs.file-max.")?;
    session.theory("Everybody can open files again.")?;
    let after = files::read(&Reads::default()).context("read /proc/sys/fs/file-nr")?;
    session.kernel(format!("fs.file-max: {}.", grouped(after.max)))?;
    session.check(Check::equal("fs.file-max afterwards", before.max, None, after.max));
    Ok(())
}

fn errno<T>(result: &io::Result<T>) -> Option<i32> {
    result.as_ref().err().and_then(io::Error::raw_os_error)
}

/// Drops the administrator's rights of the calling thread for good, and runs `work`.
fn as_nobody<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    // The raw call changes the calling thread alone. The library's function changes all threads.
    // SAFETY: the call has no pointers.
    match unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } {
        0 => Ok(work()),
        _ => Err(io::Error::last_os_error()),
    }
}
