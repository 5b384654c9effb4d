//! What the engine gives up once its hooks are attached. What is needed after that differs between kernels and mounts of
//! /proc: a thread that has given up all else tries it.

use std::{fs, os::unix::fs::MetadataExt as _, thread};

use super::Watched;
use crate::{
    host::{
        pid_namespace::PidView,
        privileges::{Reduction, User},
        proc, processes, rights,
    },
    model::capability::{BPF, CAPABILITIES, DAC_READ_SEARCH, NET_ADMIN, SYS_ADMIN, SYS_PTRACE},
};

/// Who the process is once the hooks are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewUser {
    /// In place of root the user that called sudo, or nobody.
    OfSudo,
    /// In place of root nobody, who can start this program again. Where only root can, root stays, without capabilities.
    Nobody,
    /// The same as before.
    Same,
}

/// What happens to the rights of the calling thread once the hooks are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAttach {
    /// They stay: a lab changes what only root may.
    KeepRights,
    /// They go, but for what the scans and readings need.
    DropRights(NewUser),
}

impl AfterAttach {
    /// Whom a process that is root becomes.
    pub(crate) fn user(self) -> Option<User> {
        match self {
            Self::KeepRights => None,
            Self::DropRights(user) => user.user(),
        }
    }
}

impl NewUser {
    /// Whom a process that is root becomes.
    pub(crate) fn user(self) -> Option<User> {
        match self {
            Self::OfSudo => User::in_place_of_root(User::of_sudo()),
            Self::Nobody => User::in_place_of_root(None).filter(|_| is_executable_by_all()),
            Self::Same => None,
        }
    }
}

fn is_executable_by_all() -> bool {
    fs::metadata(proc::THIS_PROGRAM).is_ok_and(|program| program.mode() & 0o001 != 0)
}

/// What a trial without most rights was refused.
struct Refused {
    bpf: bool,
    processes: bool,
}

/// What the calling thread can give up. `serves_scans` says whether bpf() does what scans need.
pub(crate) fn reduction(
    serves_scans: impl Fn() -> bool + Sync,
    watched: Watched,
    processes: PidView,
    user: NewUser,
) -> Reduction {
    let user = user.user();
    // Its files show the descriptors of processes that no iterator shows: only their owners may list them, and follow them.
    let of_walk = if processes.needs_walk() { DAC_READ_SEARCH.mask() | SYS_PTRACE.mask() } else { 0 };
    let lasting = of_walk
        | match watched {
            Watched::Own => 0,
            Watched::All => SYS_ADMIN.mask() | SYS_PTRACE.mask() | NET_ADMIN.mask() | DAC_READ_SEARCH.mask(),
        };
    let keep = match try_with(Reduction::to(lasting, user), &serves_scans) {
        Some(Refused { bpf, processes }) => {
            // Before 5.19 (commit c8644cd0efe7), where kernel.unprivileged_bpf_disabled is not 0.
            let of_bpf = if BPF.is_in(rights::held()) { BPF } else { SYS_ADMIN };
            let of_processes = if processes { of_processes(lasting, user, &serves_scans) } else { 0 };
            lasting | if bpf { of_bpf.mask() } else { 0 } | of_processes
        }
        // Nothing was tried.
        None => CAPABILITIES.iter().fold(0, |set, capability| set | capability.mask()),
    };
    Reduction::to(keep, user)
}

/// What the files of other users' processes need: hidepid CAP_SYS_PTRACE, the list of /proc/PID/fd, which is their owner's,
/// CAP_DAC_READ_SEARCH too.
fn of_processes(lasting: u64, user: Option<User>, serves_scans: &(impl Fn() -> bool + Sync)) -> u64 {
    let first = SYS_PTRACE.mask();
    match try_with(Reduction::to(lasting | first, user), serves_scans) {
        Some(Refused { processes: false, .. }) => first,
        _ => first | DAC_READ_SEARCH.mask(),
    }
}

/// What is refused to a thread without these rights; `None` without a thread, or where it could not give them up.
fn try_with(reduction: Reduction, serves_scans: &(impl Fn() -> bool + Sync)) -> Option<Refused> {
    thread::scope(|scope| {
        let trial = thread::Builder::new().name("rights".to_owned()).spawn_scoped(scope, || {
            reduction.apply().ok()?;
            Some(Refused { bpf: !serves_scans(), processes: !processes::are_readable() })
        });
        trial.ok()?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
