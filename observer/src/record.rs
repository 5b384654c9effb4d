//! `observer record`: the engine without a screen, and all that it takes in to a file.

use std::{
    fs::{self, File},
    future,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

use crate::{
    engine::{self, Engine},
    host::descriptors,
    model::units::grouped,
    recording::Tally,
};

/// What to record.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub file: PathBuf,
    /// For how long; `None` until a signal comes.
    pub length: Option<Duration>,
    /// Whether a file that is there may be replaced.
    pub replaces: bool,
}

/// Records until SIGINT, SIGTERM or SIGHUP, or for the time that was asked for; then tells on `out` what it did.
pub fn run(engine: engine::Options, options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    descriptors::require_for_event_loop().context("open descriptors for the event loop")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("wait for signals")?;
    let tally = runtime.block_on(record(engine, options))?;
    let Tally { records, bytes, last_at } = tally;
    let (records, bytes) = (grouped(records), grouped(bytes));
    writeln!(
        out,
        "observer: recorded {:.1} s to {}: {records} records, {bytes} bytes",
        last_at.as_secs_f64(),
        options.file.display()
    )?;
    Ok(())
}

async fn record(engine: engine::Options, options: &Options) -> anyhow::Result<Tally> {
    // Before the engine is there: from here on no signal ends the program without its last chunk.
    let mut signals = Signals::new().context("wait for signals")?;
    let mut engine = Engine::start_recording(engine, || open(&options.file, options.replaces))?;
    // Either end tells the other by going away.
    let (running, is_wanted) = oneshot::channel::<()>();
    let thread = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            engine.poll_until(|| running.is_closed())?;
            engine.finish()
        })
        .context("start the engine's thread")?;
    let is_over = async {
        match options.length {
            Some(length) => sleep(length).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        () = signals.next() => {}
        () = is_over => {}
        // An error of the engine: it is told below. The other end of the channel is dropped here, whatever came first.
        _ = is_wanted => {}
    }
    let tally = thread.join().map_err(|_| anyhow!("the engine panicked: please report this"))?;
    Ok(tally.with_context(|| options.file.display().to_string())?.unwrap_or_default())
}

fn open(path: &Path, replaces: bool) -> anyhow::Result<File> {
    if replaces
        && let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("replace {}", path.display()));
    }
    File::create_new(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow!("{} is there already: --force replaces it", path.display()),
        _ => anyhow::Error::new(error).context(format!("open {}", path.display())),
    })
}

/// What ends a recording.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
