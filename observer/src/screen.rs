//! The live screen: the engine on a thread of its own, the terminal on this one.

use std::thread;

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;

use crate::{
    engine::{Engine, Options, Scans},
    tui,
};

/// Shows the live screen until the user leaves it. All that can fail at start fails before the screen is touched.
pub fn run(diagnostics: bool) -> anyhow::Result<()> {
    tui::check_terminal()?;
    let engine = Engine::start(Options { scans: Scans::Regularly, diagnostics })?;
    let (publish, snapshots) = watch::channel(engine.first_snapshot());
    let engine = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || engine.run(&publish))
        .context("start the engine's thread")?;
    let shown = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the screen")?
        .block_on(tui::run(snapshots));
    // The screen let go of its receiver: the engine ends at its next look. Its own error says more than the screen's.
    engine.join().map_err(|_| anyhow!("the engine panicked"))??;
    shown
}
