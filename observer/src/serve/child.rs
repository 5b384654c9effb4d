//! The HTTP process: this program started again with a hidden command. It confines itself before it reads a byte of a client,
//! and ends with the engine process.
//!
//! Where there is an OTLP receiver, it exports too, on connections that the engine process made: the sandbox opens none.

use std::{
    env, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::ExitCode,
    sync::Arc,
};

use tokio::{runtime::Runtime, sync::mpsc};

use super::{
    channel::{self, FromHttp, HttpEnd, ToHttp},
    http::{self, HttpListener},
    receiver::{Push, PushOptions},
    sandbox::{self, Confinement, Refused, Step},
    store::Store,
};

/// The command that makes this program the HTTP process.
pub(super) const COMMAND: &str = "serve-http";

/// Serves until the engine process ends, if that started this process; returns `None` at once otherwise.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut words = env::args().skip(1);
    if words.next()? != COMMAND {
        return None;
    }
    let parent = words.next()?.parse().ok()?;
    // The process has sent its error on the channel, if somebody reads that.
    Some(run(parent, PushOptions::from_args(words)).unwrap_or(ExitCode::FAILURE))
}

/// Serves on the channel of standard input. `parent` is the engine process.
fn run(parent: u32, push: Option<Push>) -> io::Result<ExitCode> {
    close_inherited();
    rustix::thread::set_name(c"observer-http")?;
    let stdin = io::stdin();
    let Prepared { runtime, channel, listeners, confinement } = match prepare(stdin.as_fd(), parent) {
        Ok(prepared) => prepared,
        Err(Refused { step, errno }) => {
            channel::send(stdin.as_fd(), FromHttp::Refused { step, errno })?;
            return Ok(ExitCode::FAILURE);
        }
    };
    runtime.block_on(async {
        channel.send(FromHttp::Ready(confinement))?;
        let (connected, connections) = mpsc::channel(1);
        let store = Arc::new(Store::new(channel, connected));
        http::accept_all(listeners, &store);
        export_all(push, &store, connections);
        store.receive_all().await;
        Ok(ExitCode::SUCCESS)
    })
}

#[cfg(feature = "otlp")]
fn export_all(push: Option<Push>, store: &Arc<Store>, connections: mpsc::Receiver<io::Result<OwnedFd>>) {
    if let Some(push) = push {
        tokio::spawn(super::push::run(push, Arc::clone(store), connections));
    }
}

/// No command line of this build has a receiver.
#[cfg(not(feature = "otlp"))]
fn export_all(_: Option<Push>, _: &Arc<Store>, _: mpsc::Receiver<io::Result<OwnedFd>>) {}

/// A process that has all it needs, and nothing else.
struct Prepared {
    runtime: Runtime,
    channel: HttpEnd,
    listeners: Vec<HttpListener>,
    confinement: Confinement,
}

fn prepare(channel: BorrowedFd<'_>, parent: u32) -> Result<Prepared, Refused> {
    let listeners = receive_listeners(channel).map_err(|error| Refused::new(Step::Listeners, &error))?;
    // All descriptors are in the event loop before the sandbox forbids what that takes.
    let (runtime, channel, listeners) =
        event_loop(channel, listeners).map_err(|error| Refused::new(Step::EventLoop, &error))?;
    let confinement = sandbox::confine(parent)?;
    Ok(Prepared { runtime, channel, listeners, confinement })
}

fn receive_listeners(channel: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let Some((ToHttp::Listeners(count), fds)) = channel::receive(channel)? else {
        return Err(io::Error::from_raw_os_error(libc::EPROTO));
    };
    // The kernel passes none where RLIMIT_NOFILE has no room for them.
    if fds.len() == usize::from(count) { Ok(fds) } else { Err(io::Error::from_raw_os_error(libc::EMFILE)) }
}

fn event_loop(channel: BorrowedFd<'_>, listeners: Vec<OwnedFd>) -> io::Result<(Runtime, HttpEnd, Vec<HttpListener>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let entered = runtime.enter();
    let channel = HttpEnd::new(channel.try_clone_to_owned()?)?;
    let listeners = listeners.into_iter().map(HttpListener::new).collect::<io::Result<_>>()?;
    drop(entered);
    Ok((runtime, channel, listeners))
}

/// Closes what a process without O_CLOEXEC left open in its children. Linux has the call since 5.9.
fn close_inherited() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: nothing in this process owns a descriptor yet but the three standard streams.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
}
