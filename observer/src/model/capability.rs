//! The capabilities that observer can use: what each is for, and what it costs when it is missing. Whoever names one reads
//! this table: errors, `observer doctor`, the data quality screen, JSON and the series.

/// A capability of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// As capabilities(7) writes it.
    pub name: &'static str,
    /// Its bit in include/uapi/linux/capability.h.
    pub bit: u32,
    /// What observer uses it for.
    pub purpose: &'static str,
    /// What is missing without it.
    pub if_missing: &'static str,
    /// Whether it has a use after the hooks are attached. The others go then.
    pub is_lasting: bool,
}

/// Loading and attaching.
pub const BPF: Capability = Capability {
    name: "CAP_BPF",
    bit: 39,
    purpose: "loads the BPF programs; before 5.19 each bpf() call needs it",
    if_missing: "nothing runs but replays, unless CAP_SYS_ADMIN is there",
    is_lasting: false,
};

/// Attaching to tracepoints and functions.
pub const PERFMON: Capability = Capability {
    name: "CAP_PERFMON",
    bit: 38,
    purpose: "loads programs that read kernel memory, and attaches them",
    if_missing: "nothing runs but replays, unless CAP_SYS_ADMIN is there",
    is_lasting: false,
};

/// Entering namespaces.
pub const SYS_ADMIN: Capability = Capability {
    name: "CAP_SYS_ADMIN",
    bit: 21,
    purpose: "enters other network namespaces, and contains CAP_BPF and CAP_PERFMON",
    if_missing: "events alone count the sockets of other network namespaces, and their port ranges and counters are unknown",
    is_lasting: true,
};

/// Other users' processes.
pub const SYS_PTRACE: Capability = Capability {
    name: "CAP_SYS_PTRACE",
    bit: 19,
    purpose: "finds the network namespaces of other users' processes, processes that hidepid hides, and before 6.2 their \
              descriptors",
    if_missing: "other network namespaces appear only once they have sockets",
    is_lasting: true,
};

/// Namespaces of sockets.
pub const NET_ADMIN: Capability = Capability {
    name: "CAP_NET_ADMIN",
    bit: 12,
    purpose: "finds the network namespace of a socket (SIOCGSKNS), where nothing but a socket keeps it alive",
    if_missing: "a network namespace that nothing but a socket keeps alive is not entered",
    is_lasting: true,
};

/// Files and directories of root.
pub const DAC_READ_SEARCH: Capability = Capability {
    name: "CAP_DAC_READ_SEARCH",
    bit: 2,
    purpose: "reads tracefs, the runtimes' files with names of containers, paths of cgroups by handle, and other users' \
              descriptors before 6.2 and in the /proc of another pid namespace",
    if_missing: "hooks that fall back to tracefs are missing, names of some containers too, the memory of a socket is \
                 unknown, and walks find the paths of cgroups",
    is_lasting: true,
};

/// All of them, in the order in which they are shown.
pub const CAPABILITIES: [Capability; 6] = [BPF, PERFMON, SYS_ADMIN, SYS_PTRACE, NET_ADMIN, DAC_READ_SEARCH];

impl Capability {
    /// As the kernel has it in a set.
    #[must_use]
    pub const fn mask(self) -> u64 {
        1 << self.bit
    }

    /// Whether a set has it.
    #[must_use]
    pub const fn is_in(self, set: u64) -> bool {
        set & self.mask() != 0
    }
}

/// Whether observer has a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It has it.
    Held,
    /// It had it, and gave it up because nothing needs it any more.
    GivenUp,
    /// It never had it, and nothing is missing for that: it did what it is for without it.
    Unneeded,
    /// It never had it.
    Missing,
}

impl Holding {
    /// Of a running engine that has the set `held` now, and had the set `given` at its start.
    #[must_use]
    pub const fn of(capability: Capability, held: u64, given: u64) -> Self {
        if capability.is_in(held) {
            Self::Held
        } else if capability.is_in(given) {
            Self::GivenUp
        } else if capability.is_lasting {
            Self::Missing
        } else {
            Self::Unneeded
        }
    }

    /// In a word or two.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::GivenUp => "given up",
            Self::Unneeded => "not needed",
            Self::Missing => "missing",
        }
    }

    /// What to say of a capability that is held like this.
    #[must_use]
    pub const fn meaning(self, capability: Capability) -> &'static str {
        match self {
            Self::Held | Self::GivenUp | Self::Unneeded => capability.purpose,
            Self::Missing => capability.if_missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_not_missing() {
        let of = |capability, held: &[Capability], given: &[Capability]| {
            let set = |all: &[Capability]| all.iter().fold(0, |set, capability| set | capability.mask());
            Holding::of(capability, set(held), set(given))
        };
        assert_eq!(of(SYS_PTRACE, &[SYS_PTRACE], &[SYS_PTRACE, BPF]), Holding::Held);
        assert_eq!(of(BPF, &[SYS_PTRACE], &[SYS_PTRACE, BPF]), Holding::GivenUp);
        assert_eq!(of(SYS_PTRACE, &[], &[BPF]), Holding::Missing);
        // CAP_SYS_ADMIN attached the hooks in its place.
        assert_eq!(of(BPF, &[SYS_ADMIN], &[SYS_ADMIN]), Holding::Unneeded);
        assert_eq!(Holding::Missing.meaning(SYS_PTRACE), SYS_PTRACE.if_missing);
    }
}
