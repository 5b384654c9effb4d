//! The live screen: the engine on a thread of its own, the terminal on this one.

use std::{process::ExitCode, thread};

use anyhow::{Context as _, anyhow, ensure};
use tokio::sync::watch;

use crate::{
    engine::{Engine, Options},
    tui::{self, Ended, MIN_HEIGHT, MIN_WIDTH},
};

/// Shows the live screen until the user leaves it. All that can fail at start fails before the screen is touched.
pub fn run(options: Options, look: tui::Options) -> anyhow::Result<ExitCode> {
    let (width, height) = crossterm::terminal::size().context("ask the terminal for its size")?;
    ensure!(
        width >= MIN_WIDTH && height >= MIN_HEIGHT,
        "this terminal has {width} columns and {height} lines, the screen needs {MIN_WIDTH} and {MIN_HEIGHT}: \
         make it larger, or run `observer snapshot`"
    );
    let mut engine = Engine::start(options)?;
    let (publish, snapshots) = watch::channel(engine.snapshot_for_screen(None));
    let (ask, queries) = watch::channel(None);
    let engine = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || engine.run(&publish, queries))
        .context("start the engine's thread")?;
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the screen")?
        .block_on(tui::run(snapshots, ask, look));
    // The screen let go of its receiver: the engine ends at its next look. Its own error says more than the screen's.
    engine.join().map_err(|_| anyhow!("the engine panicked: please report this"))??;
    Ok(match ended? {
        Ended::Quit | Ended::TerminalGone => ExitCode::SUCCESS,
        // As a shell tells of a program that a signal ended.
        Ended::Signal(number) => ExitCode::from(128 + u8::try_from(number).unwrap_or(0)),
    })
}
