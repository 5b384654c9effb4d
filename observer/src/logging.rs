//! The log: to a file or nowhere, never to the terminal.

use std::{path::Path, sync::Mutex};

use anyhow::Context as _;

use crate::new_file;

/// Keeps a log that has something in it.
#[derive(Debug)]
#[must_use = "a log that was made for nothing goes with it"]
pub struct Log(Option<new_file::Log>);

impl Log {
    /// Whether anything is logged.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.0.is_some()
    }
}

/// Starts logging to `file`, if one is given: a regular file, which is added to.
pub fn start(file: Option<&Path>) -> anyhow::Result<Log> {
    let Some(path) = file else { return Ok(Log(None)) };
    let (log, file) = new_file::Log::open(path)?;
    // aya-log hands the kernel side's lines to the `log` crate; aya's own report every relocation.
    tracing_log::LogTracer::builder().ignore_crate("aya").init().context("start logging")?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .finish();
    tracing::subscriber::set_global_default(subscriber).context("start logging")?;
    Ok(Log(Some(log)))
}
