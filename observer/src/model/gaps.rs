//! What observer could not read, and the rounds that it skipped. A limit that it did not read is not ok.

use serde::{Deserialize, Serialize};

use super::capability::{DAC_READ_SEARCH, NET_ADMIN, SYS_ADMIN, SYS_PTRACE};
use crate::errno;

/// Whose open files the fd scans show. Only their sockets have owners that no event named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessScope {
    /// Every process of the host.
    #[default]
    All,
    /// The processes of observer's pid namespace. Of processes outside, only their calls are known.
    PidNamespace,
}

impl ProcessScope {
    /// In JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::PidNamespace => "pid_namespace",
        }
    }

    /// What is missing, and what helps.
    #[must_use]
    pub const fn missing(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::PidNamespace => Some(
                "processes outside this pid namespace: observer does not see their descriptors and limits, nor which \
                 of them own sockets from before the start. Mount the host's /proc and give --proc PATH",
            ),
        }
    }
}

/// A kind of thing that observer could not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unread {
    /// Descriptors and limits of processes.
    Processes,
    /// Processes that /proc does not list (mount option `hidepid`). Their number is unknown.
    HiddenProcesses,
    /// The network namespaces that processes are in.
    Memberships,
    /// Known network namespaces that observer could not enter.
    Namespaces,
    /// Files of /proc/sys, /proc/net and of the whole host.
    Files,
    /// tracefs: mounted, but this user may not read it, and a hook needs it.
    Tracefs,
    /// Processes outside the pid namespace whose process table is read; their number is not known.
    OutsideProcesses,
}

/// Kinds with a count. The last kind follows from the process table that observer reads.
const COUNTED: usize = Unread::ALL.len() - 1;

impl Unread {
    /// In the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Processes,
        Self::HiddenProcesses,
        Self::Memberships,
        Self::Namespaces,
        Self::Files,
        Self::Tracefs,
        Self::OutsideProcesses,
    ];

    /// Its key in JSON.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::HiddenProcesses => "hidden_processes",
            Self::Memberships => "process_namespaces",
            Self::Namespaces => "namespaces",
            Self::Files => "files",
            Self::Tracefs => "tracefs",
            Self::OutsideProcesses => "outside_processes",
        }
    }

    /// The capability that would let observer read it; `None` where none helps.
    #[must_use]
    pub const fn capability(self) -> Option<&'static str> {
        match self {
            Self::Processes | Self::HiddenProcesses | Self::Memberships => Some(SYS_PTRACE.name),
            Self::Namespaces => Some("CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_NET_ADMIN"),
            Self::Files | Self::Tracefs => Some(DAC_READ_SEARCH.name),
            Self::OutsideProcesses => None,
        }
    }

    /// What would help, in a word or two.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self.capability() {
            Some(capability) => capability,
            None => "mount the host's /proc and give --proc PATH",
        }
    }

    /// The same as a set.
    const fn capability_bits(self) -> u64 {
        match self {
            Self::Processes | Self::HiddenProcesses | Self::Memberships => SYS_PTRACE.mask(),
            Self::Namespaces => SYS_ADMIN.mask() | SYS_PTRACE.mask() | NET_ADMIN.mask(),
            Self::Files | Self::Tracefs => DAC_READ_SEARCH.mask(),
            Self::OutsideProcesses => 0,
        }
    }

    /// What stays unknown without it.
    #[must_use]
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::Processes => "their file descriptors and limits are unknown",
            Self::HiddenProcesses => "other users' processes, their descriptors and namespaces are unknown",
            Self::Memberships => "a network namespace of such a process appears only once it has sockets",
            Self::Namespaces => "events alone count their sockets; their port ranges are unknown",
            Self::Files => "the limits in these files are unknown",
            Self::Tracefs => "refused calls and the processes of accepted connections may be missing",
            Self::OutsideProcesses => {
                "their descriptors, limits and namespaces are unknown, and so are the owners of sockets from before the start"
            }
        }
    }

    /// Whether this gap may hide an exhausted limit. Sockets show the namespaces of unread processes: observer knows
    /// such a namespace, and counts it as one that it could not enter.
    #[must_use]
    pub const fn hides_limits(self) -> bool {
        !matches!(self, Self::Tracefs | Self::Memberships)
    }

    /// `3 processes not read`
    #[must_use]
    pub fn words(self, count: u32) -> String {
        let plural = |one: &str, many: &str| format!("{count} {} not read", if count == 1 { one } else { many });
        match self {
            Self::Processes => plural("process", "processes"),
            Self::HiddenProcesses => "processes of other users hidden (hidepid)".to_owned(),
            Self::Memberships => plural("process's namespace", "processes' namespaces"),
            Self::Namespaces => format!("{count} {} not entered", if count == 1 { "namespace" } else { "namespaces" }),
            Self::Files => plural("kernel file", "kernel files"),
            Self::Tracefs => "tracefs closed".to_owned(),
            Self::OutsideProcesses => "processes outside this pid namespace not visible".to_owned(),
        }
    }
}

/// How many of a kind observer could not read at the last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many; 0 for none.
    pub count: u32,
    /// The last answer of the system.
    pub errno: Option<i32>,
}

impl Gap {
    /// One more.
    pub const fn add(&mut self, errno: Option<i32>) {
        self.count = self.count.saturating_add(1);
        self.errno = errno;
    }

    /// This one, or `other` if that has more: of two looks of which the second was cut short.
    #[must_use]
    pub const fn or_larger(self, other: Self) -> Self {
        if other.count > self.count { other } else { self }
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let errno = if other.count > 0 { other.errno } else { self.errno };
        Self { count: self.count.saturating_add(other.count), errno }
    }
}

/// Rounds of work (scans, readings of namespaces or of the host) that the system refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// How many since start.
    pub rounds: u64,
    /// The last operation that was refused.
    pub operation: String,
    /// What the system answered.
    pub errno: Option<i32>,
    /// The same in words.
    pub cause: String,
}

impl Skipped {
    /// `3 rounds skipped: EMFILE at BPF_ITER_CREATE`; `None` if there are none.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let rounds = if self.rounds == 1 { "round" } else { "rounds" };
        let cause = self.errno.map_or_else(|| self.cause.clone(), errno::name);
        (self.rounds > 0).then(|| format!("{} {rounds} skipped: {cause} at {}", self.rounds, self.operation))
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// The capabilities that observer has now (capget(2)).
    pub capabilities: u64,
    unread: [Gap; COUNTED],
    /// Whose processes are read. A recording has it in its header.
    #[serde(skip)]
    processes: ProcessScope,
    /// Rounds that were skipped.
    pub skipped: Skipped,
}

impl Gaps {
    /// Of a process with these capabilities, before it has read anything.
    #[must_use]
    pub fn of(capabilities: u64) -> Self {
        Self { capabilities, ..Self::default() }
    }

    /// The same with other words for the rounds that were skipped. A field that may name somebody is to be changed here, too:
    /// see `crate::anonymize`.
    #[must_use]
    pub(crate) fn map_skipped(self, change: impl FnOnce(Skipped) -> Skipped) -> Self {
        let Self { capabilities, unread, processes, skipped } = self;
        Self { capabilities, unread, processes, skipped: change(skipped) }
    }

    /// The same where the processes of this scope are read.
    #[must_use]
    pub fn within(self, processes: ProcessScope) -> Self {
        Self { processes, ..self }
    }

    /// What could not be read of a kind.
    #[must_use]
    pub const fn get(&self, kind: Unread) -> Gap {
        match (kind, self.processes) {
            (Unread::OutsideProcesses, ProcessScope::All) => Gap { count: 0, errno: None },
            (Unread::OutsideProcesses, ProcessScope::PidNamespace) => Gap { count: 1, errno: None },
            _ => self.unread[kind as usize],
        }
    }

    /// Stores the result of the last attempt for a kind. Processes outside have none: see [`Self::within`].
    pub fn set(&mut self, kind: Unread, gap: Gap) {
        if let Some(known) = self.unread.get_mut(kind as usize) {
            *known = gap;
        }
    }

    /// The kinds with a gap.
    pub fn unread(&self) -> impl Iterator<Item = (Unread, Gap)> + '_ {
        Unread::ALL.into_iter().map(|kind| (kind, self.get(kind))).filter(|(_, gap)| gap.count > 0)
    }

    /// Whether a gap may hide an exhausted limit.
    #[must_use]
    pub fn hide_limits(&self) -> bool {
        self.unread().any(|(kind, _)| kind.hides_limits())
    }

    /// `12 processes not read (EACCES)`, one for each kind.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        self.unread().map(|(kind, gap)| sentence(kind, gap)).collect()
    }

    /// The same with the capabilities that would help.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        self.unread().map(|(kind, gap)| self.advice_about(kind, gap)).collect()
    }

    /// The same for one kind.
    #[must_use]
    pub fn advice_about(&self, kind: Unread, gap: Gap) -> String {
        format!("{}{}", sentence(kind, gap), self.help(kind, gap))
    }

    fn help(&self, kind: Unread, gap: Gap) -> String {
        let Some(capability) = kind.capability() else { return format!("; {}", kind.remedy()) };
        let bits = kind.capability_bits();
        if gap.errno.is_some_and(|errno| !is_refusal(errno)) {
            String::new()
        } else if self.capabilities & bits == bits {
            format!(", although observer has {capability}: a security module, a seccomp filter or a namespace refuses")
        } else {
            format!("; {capability} would help")
        }
    }
}

fn sentence(kind: Unread, gap: Gap) -> String {
    let why = gap.errno.map_or_else(String::new, |errno| format!(" ({})", errno::name(errno)));
    format!("{}{why}", kind.words(gap.count))
}

/// Whether rights are what is missing: EPERM, EACCES.
const fn is_refusal(errno: i32) -> bool {
    matches!(errno, 1 | 13)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_named_with_its_errno_and_the_capability_that_helps() {
        let mut gaps = Gaps::default();
        assert!(gaps.sentences().is_empty() && !gaps.hide_limits());
        gaps.set(Unread::Tracefs, Gap { count: 1, errno: Some(13) });
        assert!(!gaps.hide_limits(), "no limit comes from tracefs");
        gaps.set(Unread::Processes, Gap { count: 3, errno: Some(13) });
        gaps.set(Unread::Files, Gap { count: 1, errno: Some(2) });
        assert!(gaps.hide_limits());
        assert_eq!(
            gaps.advice(),
            [
                "3 processes not read (EACCES); CAP_SYS_PTRACE would help",
                "1 kernel file not read (ENOENT)",
                "tracefs closed (EACCES); CAP_DAC_READ_SEARCH would help",
            ]
        );
        gaps.capabilities = u64::MAX;
        assert!(gaps.advice()[0].starts_with("3 processes not read (EACCES), although observer has CAP_SYS_PTRACE:"));
    }

    #[test]
    fn processes_outside_the_pid_namespace_are_a_gap_that_another_proc_fills() {
        let gaps = Gaps::of(u64::MAX).within(ProcessScope::PidNamespace);
        assert!(gaps.hide_limits());
        assert_eq!(
            gaps.advice(),
            ["processes outside this pid namespace not visible; mount the host's /proc and give --proc PATH"]
        );
        assert!(gaps.unread().all(|(kind, _)| kind == Unread::OutsideProcesses && kind.capability().is_none()));
        assert_eq!(Gaps::of(0).within(ProcessScope::All), Gaps::of(0));
    }

    #[test]
    fn a_look_that_was_cut_short_takes_nothing_off_a_gap() {
        let gap = |count, errno| Gap { count, errno: Some(errno) };
        assert_eq!(gap(3, 1).or_larger(Gap::default()), gap(3, 1));
        assert_eq!(gap(3, 1).or_larger(gap(2, 13)), gap(3, 1));
        assert_eq!(gap(3, 1).or_larger(gap(4, 13)), gap(4, 13));
    }

    #[test]
    fn skipped_rounds_say_where_and_why() {
        let skipped =
            Skipped { rounds: 3, operation: "BPF_ITER_CREATE".to_owned(), errno: Some(24), cause: String::new() };
        assert_eq!(skipped.sentence().unwrap(), "3 rounds skipped: EMFILE at BPF_ITER_CREATE");
        assert_eq!(Skipped::default().sentence(), None);
    }
}
