//! The stream of a running service (`observer serve --attach-socket`), as a recording that goes on.

use std::{io::ErrorKind, os::unix::net::UnixStream, path::Path, time::Duration};

use anyhow::{Context as _, anyhow};

use super::{Replay, Source};
use crate::{
    errno,
    recording::{ReadError, greeting},
};

/// Where a service offers its stream, if nothing else is said: `observer.service` does.
pub const DEFAULT_SOCKET: &str = "/run/observer/attach.sock";

/// How long a service may send nothing. It sends something every second, once it has begun; on a host with a million sockets
/// it takes ten seconds to begin.
const PATIENCE: Duration = Duration::from_mins(1);

/// A service that sends its inputs.
pub(crate) struct Connected {
    /// A model that they feed. Reading waits for what comes.
    pub(crate) replay: Replay<Source>,
    /// The connection.
    pub(crate) stream: UnixStream,
    /// What messages call the service.
    pub(crate) name: String,
}

/// Connects to the service at `path`. Waits for its next scan.
pub(crate) fn connect(path: &Path) -> anyhow::Result<Connected> {
    let name = format!("unix:{}", errno::printable(path));
    let mut stream = UnixStream::connect(path).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => ": the group of that socket may, add this user to it",
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                ": no service is there, start observer serve --attach-socket PATH as root"
            }
            _ => "",
        };
        anyhow!("attach to {name}: {}{advice}", errno::describe(&error))
    })?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a time limit for the service")?;
    greeting::read(&mut stream).with_context(|| format!("attach to {name}"))?;
    let source = Box::new(stream.try_clone().context("open the connection to the service")?);
    let replay = Replay::start(source as Source).map_err(|error| match error {
        // It has said so before what could be read of a recording.
        ReadError::NoHeader | ReadError::NotARecording => {
            anyhow!("attach to {name}: the service ended before its first scan")
        }
        error => anyhow::Error::new(error).context(format!("attach to {name}")),
    })?;
    Ok(Connected { replay, stream, name })
}
