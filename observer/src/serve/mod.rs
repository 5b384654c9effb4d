//! `observer serve`: the engine without a screen, and documents of it over HTTP.
//!
//! Two processes. The engine process has the rights: it observes, renders, and reads no byte of the network. The HTTP process
//! has the listening sockets and nothing else; it asks for a document when a client does and the newest one is old. Documents
//! are sealed memory files. docs/architecture.md gives the reasons.
//!
//! Engine process: `source` (the engine's thread), `documents`, `page`, `listen`, `viewers`, `receiver`, `http_process`, `notify`;
//! `supervisor` joins them. HTTP process: `child`, `sandbox`, `system_calls`, `store`, `http`, `negotiate`, `stall`,
//! `push`. Between them: `channel`.
//! `bounds` has every limit.

mod bounds;
mod channel;
mod child;
mod documents;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod http;
mod http_process;
mod listen;
mod negotiate;
mod notify;
mod page;
#[cfg(feature = "otlp")]
mod push;
mod receiver;
mod sandbox;
mod source;
mod stall;
mod store;
mod supervisor;
mod system_calls;
mod viewers;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;

pub use self::{
    child::run_if_asked,
    listen::ListenAddress,
    receiver::{PushOptions, ReceiverUrl},
};
use self::{
    listen::Listeners, receiver::Receiver, source::EngineThread, supervisor::Supervisor, viewers::AttachSocket,
};
use crate::{
    end_signals::EndSignals,
    engine::{self, AfterAttach, EngineOptions, NewUser},
    export::series::Bounds,
    host::descriptors,
    outlet,
    recording::{Recorder, RecorderBounds},
};

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; without any the sockets of the service manager, or [`ListenAddress::DEFAULT`].
    pub listen: Vec<ListenAddress>,
    /// How many series there can be.
    pub bounds: Bounds,
    /// What to push to an OTLP receiver.
    pub push: Option<PushOptions>,
    /// Where viewers of the live screen connect.
    pub attach_socket: Option<PathBuf>,
    /// The directory of a recorder, and what it keeps.
    pub recorder: Option<(PathBuf, RecorderBounds)>,
}

/// Serves until SIGINT, SIGTERM or SIGHUP. All that can fail at start fails before anything is served.
pub fn run(engine: EngineOptions, options: &ServeOptions) -> anyhow::Result<ExitCode> {
    descriptors::require_for_event_loop().context("open descriptors for the event loop")?;
    engine::require_rights()?;
    let listeners = Listeners::open(&options.listen)?;
    for address in listeners.reachable() {
        report(&format!(
            "{address} can be reached from other hosts: observer has neither TLS nor passwords, and whoever reaches this port reads \
             names and addresses of this host"
        ));
    }
    let receiver = options.push.clone().map(Receiver::find).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    runtime.block_on(async {
        let signals = EndSignals::new().context("wait for signals")?;
        let attach = options.attach_socket.as_deref().map(AttachSocket::open).transpose()?;
        // The HTTP process is started again as this user: as nobody, whoever called sudo.
        let user = if listeners.have_files() || attach.is_some() { NewUser::Same } else { NewUser::Nobody };
        let engine = EngineOptions { after_attach: AfterAttach::DropRights(user), ..engine };
        let open =
            |(path, bounds): &(PathBuf, RecorderBounds)| Recorder::open(path, *bounds, engine.after_attach.user());
        let recorder = options.recorder.as_ref().map(open).transpose()?;
        let handle = recorder.as_ref().map(Recorder::handle);
        let engine = EngineThread::start(engine, recorder)?;
        Supervisor::new(listeners, engine, options.bounds, receiver, attach, handle).run(signals).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// For whoever started observer, and for the log.
fn report(sentence: &str) {
    tracing::info!("{sentence}");
    outlet::to_stderr(&format!("observer: {sentence}\n"));
}
