//! What the HTTP process takes from itself before it reads a byte of a client: files, capabilities, its user, other system
//! calls. Nothing of it can be had back.

use std::io;

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::{
    io::Errno,
    process::{
        DumpableBehavior, Resource, Rlimit, Signal, getppid, getrlimit, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
};

use super::{bounds, system_calls};
use crate::{
    frame::SandboxParts,
    host::privileges::{Kept, Reduction, User},
};

/// What the HTTP process cannot start without, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Listeners,
    EventLoop,
    Limits,
    Privileges,
    Parent,
    Landlock,
    SystemCalls,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Listeners,
        Self::EventLoop,
        Self::Limits,
        Self::Privileges,
        Self::Parent,
        Self::Landlock,
        Self::SystemCalls,
    ];

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// For a sentence: "the HTTP process could not ...".
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Listeners => "receive the listening sockets",
            Self::EventLoop => "open descriptors for its event loop",
            Self::Limits => "set its resource limits",
            Self::Privileges => "drop its privileges",
            Self::Parent => "set PR_SET_PDEATHSIG",
            Self::Landlock => "restrict itself with Landlock",
            Self::SystemCalls => "install its seccomp filter",
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) step: Step,
    pub(super) errno: u32,
}

impl Refused {
    pub(super) fn new(step: Step, error: &io::Error) -> Self {
        Self { step, errno: error.raw_os_error().unwrap_or(libc::EINVAL).unsigned_abs() }
    }
}

/// What the HTTP process may lack: it runs all the same, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    Landlock,
    PartOfLandlock,
    OtherUser,
    NoGroups,
    EmptyBoundingSet,
}

impl Lack {
    const ALL: [Self; 5] =
        [Self::Landlock, Self::PartOfLandlock, Self::OtherUser, Self::NoGroups, Self::EmptyBoundingSet];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// What is missing, as the label of a series.
    const fn part(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::PartOfLandlock => "whole_landlock",
            Self::OtherUser => "other_user",
            Self::NoGroups => "no_groups",
            Self::EmptyBoundingSet => "empty_bounding_set",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Landlock => "this kernel has no Landlock",
            Self::PartOfLandlock => "this kernel has only a part of Landlock",
            Self::OtherUser => Kept::USER,
            Self::NoGroups => Kept::GROUPS,
            Self::EmptyBoundingSet => Kept::BOUNDING_SET,
        }
    }
}

/// How far the HTTP process is confined. Without empty capability sets, PR_SET_NO_NEW_PRIVS and seccomp it does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Confinement(u8);

impl Confinement {
    /// All that is confined but these.
    pub(super) fn without(lacks: impl IntoIterator<Item = Lack>) -> Self {
        Self(lacks.into_iter().fold(0, |bits, lack| bits | lack.bit()))
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        let known = Self::without(Lack::ALL);
        (bits & !known.0 == 0).then_some(Self(bits))
    }

    fn has(self, lack: Lack) -> bool {
        self.0 & lack.bit() != 0
    }

    /// Each part of the sandbox, and whether it is missing.
    pub(super) fn parts(self) -> SandboxParts {
        // Without Landlock the whole of it is missing too.
        let is_missing = |lack| self.has(lack) || lack == Lack::PartOfLandlock && self.has(Lack::Landlock);
        Lack::ALL.map(|lack| (lack.part(), is_missing(lack)))
    }

    /// What it lacks, in a sentence; `None` where it lacks nothing.
    pub(super) fn lacks(self) -> Option<String> {
        let lacks = Lack::ALL.into_iter().filter(|lack| self.has(*lack)).map(Lack::text);
        Some(lacks.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
    }
}

/// Confines this process, which must have one thread only. `parent` is the engine process.
pub(super) fn confine(parent: u32) -> Result<Confinement, Refused> {
    limit_resources().map_err(at(Step::Limits))?;
    let user = User::in_place_of_root(None).unwrap_or_else(User::current);
    let kept = Reduction::to(0, Some(user)).apply();
    let kept = kept.map_err(|refusal| Refused {
        step: Step::Privileges,
        errno: refusal.errno.unwrap_or(libc::EINVAL).unsigned_abs(),
    })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Privileges))?;
    end_with(parent).map_err(at(Step::Parent))?;
    let files = restrict_files().map_err(|error| Refused::new(Step::Landlock, &io::Error::other(error)))?;
    system_calls::allow_few().map_err(|error| Refused::new(Step::SystemCalls, &error))?;
    Ok(Confinement::without(lacks_of(kept).chain(files)))
}

fn lacks_of(kept: Kept) -> impl Iterator<Item = Lack> {
    let Kept { bounding_set, user, groups } = kept;
    let lacks = [(Lack::EmptyBoundingSet, bounding_set), (Lack::NoGroups, groups), (Lack::OtherUser, user)];
    lacks.into_iter().filter(|(_, is_kept)| *is_kept).map(|(lack, _)| lack)
}

fn at(step: Step) -> impl Fn(Errno) -> Refused {
    move |errno| Refused::new(step, &errno.into())
}

/// The kernel ends this process with its parent. A change of the user would reset that: it comes after one.
fn end_with(parent: u32) -> Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the kernel knew of the signal.
    let is_there = getppid().is_some_and(|pid| pid.as_raw_nonzero().get().unsigned_abs() == parent);
    if is_there { Ok(()) } else { Err(Errno::SRCH) }
}

fn limit_resources() -> Result<(), Errno> {
    let limits = [
        (Resource::Nofile, bounds::DESCRIPTORS),
        (Resource::As, bounds::ADDRESS_SPACE),
        // No core file, no other file, no other process.
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
    ];
    limits.into_iter().try_for_each(|(resource, most)| {
        // A lower hard limit stays.
        let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    })
}

/// What this kernel's Landlock lacks: files, TCP bind and connect, abstract Unix sockets and signals are denied.
fn restrict_files() -> Result<Option<Lack>, landlock::RulesetError> {
    // What older kernels lack is left out.
    let abi = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => Some(Lack::PartOfLandlock),
        RulesetStatus::NotEnforced => Some(Lack::Landlock),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_sentence() {
        assert_eq!(Confinement::default().lacks(), None);
        let confinement = Confinement::without([Lack::Landlock, Lack::OtherUser]);
        let text = "this kernel has no Landlock; its user could not be changed (CAP_SETUID, CAP_SETGID)";
        assert_eq!(confinement.lacks().as_deref(), Some(text));
        assert_eq!(Confinement::from_bits(confinement.bits()), Some(confinement));
        assert_eq!(Confinement::from_bits(0x80), None);
    }
}
