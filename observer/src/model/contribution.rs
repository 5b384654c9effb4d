//! What one socket adds to all totals.

use super::{
    endpoint::{Destination, Endpoint},
    index::NO_ROW,
    member::MemberCounts,
    owner::Owner,
    port_table::PortClass,
    units::{NetnsId, TcpState},
};

/// The row that a socket counts in, and with it the namespace and device whose ports it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// It counts nowhere: before it is known, and after its end.
    Nowhere,
    /// A local endpoint's row.
    Endpoint(u32),
    /// No row: a bound socket only keeps a port. The device is an index, 0 for none.
    Ports(NetnsId, u32),
}

/// What a socket counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// Bound, and neither connected nor listening.
    Bound,
    /// Listening.
    Listener,
    /// A full socket that is connected or connecting.
    Full(TcpState),
    /// Without a full `struct sock`. `stamped`: in TIME_WAIT, and its peer sends TCP timestamps.
    Minisock { state: TcpState, stamped: bool },
}

/// What one socket adds to all totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contribution {
    pub(super) at: At,
    pub(super) counts: Counts,
    /// Index of the destination's row; [`NO_ROW`] for all but the sockets of clients.
    pub(super) destination: u32,
    /// The local port of a client, and what it is towards the destination; `None` for others, and while the namespace's
    /// ports are not known.
    pub(super) client: Option<(u16, PortClass)>,
    /// The port that an explicit bind keeps from every connect().
    pub(super) binder: Option<u16>,
    pub(super) owner: Owner,
    /// Index of the row of its cgroup or process; [`NO_ROW`] for TIME_WAIT and request sockets, which have neither.
    pub(super) member: u32,
}

/// The ports that a contribution is on. With this alone as an argument, the rest of a contribution stays in registers.
#[derive(Clone, Copy)]
pub(super) struct OnPorts {
    pub(super) at: At,
    pub(super) client: Option<u16>,
    pub(super) binder: Option<u16>,
}

impl Contribution {
    /// What an unknown socket adds.
    pub(super) const NONE: Self = Self {
        at: At::Nowhere,
        counts: Counts::Bound,
        destination: NO_ROW,
        client: None,
        binder: None,
        owner: Owner::UNKNOWN,
        member: NO_ROW,
    };

    pub(super) fn is_orphan(&self) -> bool {
        self.owner == Owner::ORPHAN
    }

    pub(super) fn client_port(&self) -> Option<u16> {
        self.client.map(|(port, _)| port)
    }

    pub(super) fn on_ports(&self) -> OnPorts {
        OnPorts { at: self.at, client: self.client_port(), binder: self.binder }
    }

    pub(super) fn class(&self) -> PortClass {
        self.client.map_or(PortClass::Unavailable, |(_, class)| class)
    }

    /// Adds to, or with `sub` takes from, the sockets of its member.
    pub(super) fn count_with(&self, counts: &mut MemberCounts, op: fn(u32, u32) -> u32) {
        match self.counts {
            Counts::Bound => counts.bound = op(counts.bound, 1),
            Counts::Listener => counts.listeners = op(counts.listeners, 1),
            Counts::Full(state) => {
                let count = counts.states.get_mut(state);
                *count = op(*count, 1);
                counts.orphans = op(counts.orphans, u32::from(self.is_orphan()));
            }
            Counts::Minisock { .. } => {}
        }
    }

    /// Adds to, or with `sub` takes from, the destination.
    pub(super) fn count_towards(&self, row: &mut Destination, op: fn(u32, u32) -> u32) {
        match self.counts {
            Counts::Bound | Counts::Listener => {}
            Counts::Full(_) => row.sockets = op(row.sockets, 1),
            Counts::Minisock { state, stamped } => {
                row.minisocks = op(row.minisocks, 1);
                row.time_wait = op(row.time_wait, u32::from(state == TcpState::TimeWait));
                row.stamped = op(row.stamped, u32::from(stamped));
            }
        }
        if let Some(count) = row.ports.of_class(self.class()) {
            *count = op(*count, 1);
        }
    }
}

impl Counts {
    pub(super) fn of(self, row: &mut Endpoint) -> Option<&mut u32> {
        match self {
            Self::Bound => None,
            Self::Listener => Some(&mut row.listeners),
            Self::Full(state) => Some(row.states.get_mut(state)),
            Self::Minisock { state, .. } => Some(row.minisocks.get_mut(state)),
        }
    }

    /// Both count alike towards a destination.
    pub(super) fn is_alike(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Full(_), Self::Full(_)))
    }
}
