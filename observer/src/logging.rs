//! The log: to a file or nowhere, never to the terminal.

use std::{fs::OpenOptions, path::Path, sync::Mutex};

use anyhow::Context as _;

/// Starts logging to `file`, if one is given; returns whether anything is logged.
pub fn start(file: Option<&Path>) -> anyhow::Result<bool> {
    let Some(path) = file else { return Ok(false) };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open the log file {}", path.display()))?;
    // aya-log hands the kernel side's lines to the `log` crate; aya's own tell of every relocation.
    tracing_log::LogTracer::builder().ignore_crate("aya").init().context("start logging")?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Mutex::new(log))
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .finish();
    tracing::subscriber::set_global_default(subscriber).context("start logging")?;
    Ok(true)
}
