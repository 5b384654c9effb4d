//! What the dependencies may be: `deny.toml`, held by cargo-deny.

use std::process::Command;

use anyhow::Result;

use crate::{process, tools};

/// The BPF side has dependencies of its own, which the targets in `deny.toml` leave out.
const BPF: &str = "bpfel-unknown-none";

/// Fails if a dependency has a licence, a source or a name that `deny.toml` does not allow. Installs cargo-deny first.
pub(crate) fn check() -> Result<()> {
    let deny = tools::for_deny()?;
    process::run(Command::new(&deny).args(["--locked", "check", "licenses", "bans", "sources"]))?;
    // Bans are rules for the host program, where aya-ebpf must not be linked.
    process::run(Command::new(&deny).args(["--locked", "--target", BPF, "check", "licenses", "sources"]))
}
