//! What the HTTP process takes from itself before it reads a byte of a client: files, capabilities, its user, other system
//! calls. Nothing of it can be had back.

use std::{fmt::Write as _, io};

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::{
    io::Errno,
    process::{
        DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid, getppid, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{bounds, system_calls};

/// User and group of nobody, on every distribution.
const NOBODY: u32 = 65534;

/// What the HTTP process cannot start without, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Listeners,
    EventLoop,
    Limits,
    NoNewPrivileges,
    Capabilities,
    Parent,
    Landlock,
    SystemCalls,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Listeners,
        Self::EventLoop,
        Self::Limits,
        Self::NoNewPrivileges,
        Self::Capabilities,
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
            Self::NoNewPrivileges => "set PR_SET_NO_NEW_PRIVS",
            Self::Capabilities => "drop its capabilities",
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

/// How far the HTTP process is confined. Capabilities, PR_SET_NO_NEW_PRIVS and seccomp are not in here: without them it does
/// not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Confinement {
    /// Landlock denies all files, TCP bind and connect, and signals.
    pub(super) landlock: bool,
    /// Landlock denies what this kernel's version of it can.
    pub(super) landlock_in_part: bool,
    /// It does not run as root.
    pub(super) is_unprivileged_user: bool,
    /// It has no supplementary groups.
    pub(super) has_no_groups: bool,
    /// Its bounding set is empty.
    pub(super) has_empty_bounding_set: bool,
}

impl Confinement {
    const fn flags(self) -> [bool; 5] {
        let Self { landlock, landlock_in_part, is_unprivileged_user, has_no_groups, has_empty_bounding_set } = self;
        [landlock, landlock_in_part, is_unprivileged_user, has_no_groups, has_empty_bounding_set]
    }

    pub(super) fn bits(self) -> u8 {
        self.flags().into_iter().enumerate().map(|(i, flag)| u8::from(flag) << i).sum()
    }

    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        let flag = |i: u8| bits >> i & 1 != 0;
        let it = Self {
            landlock: flag(0),
            landlock_in_part: flag(1),
            is_unprivileged_user: flag(2),
            has_no_groups: flag(3),
            has_empty_bounding_set: flag(4),
        };
        (it.bits() == bits).then_some(it)
    }

    /// What it lacks, in a sentence; `None` where it lacks nothing.
    pub(super) fn lacks(self) -> Option<String> {
        let parts = [
            (!self.landlock && !self.landlock_in_part, "this kernel has no Landlock"),
            (self.landlock_in_part, "this kernel has a part of Landlock only"),
            (!self.is_unprivileged_user, "its user could not be changed (CAP_SETUID, CAP_SETGID)"),
            (!self.has_no_groups, "its supplementary groups could not be dropped (CAP_SETGID)"),
            (!self.has_empty_bounding_set, "its bounding set could not be emptied (CAP_SETPCAP)"),
        ];
        let mut text = String::new();
        for (_, part) in parts.into_iter().filter(|(lacks, _)| *lacks) {
            let _ = write!(text, "{}{part}", if text.is_empty() { "" } else { "; " });
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Confines this process, which must have one thread only. `parent` is the engine process.
pub(super) fn confine(parent: u32) -> Result<Confinement, Refused> {
    limit_resources().map_err(at(Step::Limits))?;
    set_no_new_privs(true).map_err(at(Step::NoNewPrivileges))?;
    let has_empty_bounding_set = empty_bounding_set();
    let (is_unprivileged_user, has_no_groups) = change_user();
    clear_ambient_capability_set().map_err(at(Step::Capabilities))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(at(Step::Capabilities))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Capabilities))?;
    end_with(parent).map_err(at(Step::Parent))?;
    let (landlock, landlock_in_part) =
        restrict_files().map_err(|error| Refused::new(Step::Landlock, &io::Error::other(error)))?;
    system_calls::allow_few().map_err(|error| Refused::new(Step::SystemCalls, &error))?;
    Ok(Confinement { landlock, landlock_in_part, is_unprivileged_user, has_no_groups, has_empty_bounding_set })
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
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    })
}

/// Whether it worked: it takes CAP_SETPCAP.
fn empty_bounding_set() -> bool {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel has no further one.
            Err(Errno::INVAL) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// From root to nobody. Returns whether it is not root now, and whether it has no supplementary groups.
fn change_user() -> (bool, bool) {
    let has_no_groups =
        set_thread_groups(&[]).is_ok() || rustix::process::getgroups().is_ok_and(|groups| groups.is_empty());
    if !rustix::process::getuid().is_root() && !rustix::process::geteuid().is_root() {
        return (true, has_no_groups);
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let is_group = set_thread_res_gid(group, group, group).is_ok();
    (set_thread_res_uid(user, user, user).is_ok() && is_group, has_no_groups)
}

/// Whether Landlock denies everything, and whether a part of it.
fn restrict_files() -> Result<(bool, bool), landlock::RulesetError> {
    // What older kernels lack is left out.
    let abi = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => (true, false),
        RulesetStatus::PartiallyEnforced => (false, true),
        RulesetStatus::NotEnforced => (false, false),
    })
}
