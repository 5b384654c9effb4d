//! Why the kernel side cannot run, in one sentence each that says what to do.

use std::{io, path::PathBuf};

use aya::programs::ProgramError;

use super::btf::BtfError;

/// The kernel's description of its types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `observer` cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No right to use BPF.
    #[error("observer may not use BPF here, it lacks {0}: run it as root (sudo observer), or grant it {0}")]
    MissingCapabilities(String),
    /// Capabilities that end at the border of a user namespace.
    #[error(
        "observer runs in a user namespace (a rootless container, or unshare -U), where the kernel allows no BPF: run it as root on the host"
    )]
    UserNamespace,
    /// No BTF.
    #[error("{} cannot be read ({because}): observer needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (5.10 or later)", path.display())]
    NoBtf {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        because: io::Error,
    },
    /// BTF that makes no sense.
    #[error("{KERNEL_BTF} is not usable ({0}): please report this with the output of `uname -r`")]
    BadBtf(BtfError),
    /// A field without which sockets cannot be told apart.
    #[error(
        "this kernel has no field {0}: observer does not know its layout; please report this with `observer doctor`"
    )]
    MissingField(String),
    /// The object was refused as a whole: its maps could not be made.
    #[error("the kernel refused the BPF object ({0}): check `ulimit -l`, kernel lockdown, and what a container may do")]
    Load(String),
    /// The hooks without which there is nothing to show.
    #[error("the kernel refused the {hook} hook ({because}): see `observer doctor` for what was tried")]
    MissingHook {
        /// The hook.
        hook: crate::model::trust::Hook,
        /// The kernel's answer.
        because: String,
    },
    /// The embedded object lacks what this version names.
    #[error("the embedded BPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
    Object(&'static str),
    /// A map could not be opened.
    #[error("open BPF map {name}: {because}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        because: aya::maps::MapError,
    },
}

/// The kernel's answer in one line: the errno, and the last word of the verifier where there is one.
#[must_use]
pub fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(%io_error, %log, "program load");
            let last = log.lines().rev().map(str::trim).find(|line| !is_statistics(line));
            match last {
                Some(last) => format!("load: {io_error}; verifier: {last}"),
                None => format!("load: {io_error}"),
            }
        }
        other => chain(other),
    }
}

/// What the verifier says after its verdict.
fn is_statistics(line: &str) -> bool {
    line.is_empty() || ["processed ", "stack depth ", "verification time "].iter().any(|it| line.starts_with(it))
}

/// An error with all its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
