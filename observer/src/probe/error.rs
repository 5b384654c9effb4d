//! Why the kernel side cannot run, in one sentence each that says what to do.

use std::io;

use aya::programs::ProgramError;

use super::btf::BtfError;
use crate::{
    errno::{self, Refusal},
    host::{proc, rights},
};

/// The kernel's description of its types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `observer` cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No right to use BPF.
    #[error("load the BPF programs: EPERM: this process lacks {missing}; {}", rights::remedy(.missing))]
    MissingCapabilities {
        /// Their names.
        missing: String,
    },
    /// Capabilities that end at the border of a user namespace.
    #[error(
        "load the BPF programs: EPERM: the kernel allows no BPF in a user namespace (a rootless container, or unshare -U); run observer as root on the host"
    )]
    UserNamespace,
    /// No BTF.
    #[error(
        "read {KERNEL_BTF}: {}: observer needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (5.10 or later), and sysfs mounted on /sys",
        errno::describe(.0)
    )]
    NoBtf(io::Error),
    /// BTF that is there and cannot be read.
    #[error("read {KERNEL_BTF}: {}: {}", errno::describe(.0), advice(.0.raw_os_error()))]
    ClosedBtf(io::Error),
    /// BTF that makes no sense.
    #[error("{KERNEL_BTF} is not usable ({0}): please report this with the output of `uname -r`")]
    BadBtf(BtfError),
    /// A field that identifies sockets.
    #[error(
        "this kernel has no field {0}: observer does not know its layout; please report this with `observer doctor`"
    )]
    MissingField(String),
    /// The object was refused as a whole: its maps could not be made.
    #[error("load the BPF object: {because}: {}", advice(because.errno))]
    Load {
        /// The kernel's answer.
        because: Refusal,
    },
    /// The hooks without which there is nothing to show.
    #[error("attach the {hook} hook: {because}: {}", advice(because.errno))]
    MissingHook {
        /// The hook.
        hook: crate::model::quality::Hook,
        /// The kernel's answer.
        because: Refusal,
    },
    /// Hooks that would be there if something had not run short.
    #[error("attach {hooks}: {because}: {}", advice(because.errno))]
    ScarceHooks {
        /// Their names, in words.
        hooks: String,
        /// The kernel's answer to the last of them.
        because: Refusal,
    },
    /// No /proc.
    #[error(transparent)]
    NoProc(#[from] proc::NoProc),
    /// A first look at the host.
    #[error("{because}: {}", advice(because.errno))]
    Refused {
        /// The kernel's answer.
        because: Refusal,
    },
    /// The embedded object lacks what this version names.
    #[error("the embedded BPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
    Object(&'static str),
    /// A map could not be opened.
    #[error("open BPF map {name}: {because}: {}", advice(because.errno))]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        because: Refusal,
    },
}

impl ProbeError {
    pub(super) fn no_btf(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::NoBtf(error) } else { Self::ClosedBtf(error) }
    }

    pub(super) fn load(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Load { because: Refusal::new("", error) }
    }
}

/// What to do about an error number.
#[must_use]
pub fn advice(errno: Option<i32>) -> String {
    match errno {
        Some(libc::EMFILE) => {
            "observer has no file descriptor left: raise its limit (ulimit -n, LimitNOFILE= of its unit)".into()
        }
        Some(libc::ENFILE) => "the host is out of open files: raise fs.file-max, or close some".into(),
        Some(libc::ENOMEM) => {
            "memory is short: free some, raise the limit of its cgroup, or choose a smaller --ring-bytes".into()
        }
        Some(libc::EAGAIN) => {
            "threads are short: raise the limit of processes (ulimit -u, TasksMax= of its unit, pids.max of its cgroup)"
                .into()
        }
        Some(libc::EPERM | libc::EACCES) => permission_advice(),
        _ => "`observer doctor` shows what was tried".into(),
    }
}

fn permission_advice() -> String {
    let mut causes = rights::obstacles();
    if charges_locked_memory() {
        causes.push("before 5.11 BPF counts as locked memory: raise `ulimit -l`".to_owned());
    }
    if causes.is_empty() {
        causes.push(
            "a security module or a container's profile refuses bpf(), or the capability is not effective".into(),
        );
    }
    causes.join("; ")
}

/// Whether this kernel counts BPF's memory against `RLIMIT_MEMLOCK`: before 5.11.
fn charges_locked_memory() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(5), Some(11))
}

/// The kernel's answer in one line: the errno, and the last word of the verifier where there is one.
#[must_use]
pub fn reason(error: &ProgramError) -> Refusal {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(%io_error, %log, "program load");
            let last = log.lines().rev().map(str::trim).find(|line| !is_statistics(line));
            let answer = errno::describe(io_error);
            let cause = last.map_or_else(|| answer.clone(), |last| format!("{answer}; verifier: {last}"));
            Refusal { operation: "BPF_PROG_LOAD".to_owned(), errno: io_error.raw_os_error(), cause }
        }
        other => Refusal::new("", other),
    }
}

/// What the verifier says after its verdict.
fn is_statistics(line: &str) -> bool {
    line.is_empty() || ["processed ", "stack depth ", "verification time "].iter().any(|it| line.starts_with(it))
}
