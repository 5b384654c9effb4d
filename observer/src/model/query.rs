//! Single connections: asked for while a screen shows them, as many as it can hold.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    Model,
    address::{Direction, EndpointKey, TupleKey},
    device::Device,
    filter::{Filter, Filterable},
    index::NO_ROW,
    key_of,
    minisocks::Minisock,
    name::NetnsName,
    owner::Owner,
    service::{CgroupId, Service},
    socket::Socket,
    units::{FourTuple, NetnsId, Pid, Process, SocketId, TcpState},
};

/// Whose connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Of {
    /// Everybody's.
    #[default]
    All,
    /// Those of a row of endpoints.
    Endpoint(EndpointKey),
    /// Those from a local ip towards a destination.
    Destination {
        /// The network namespace.
        netns: NetnsId,
        /// The local ip.
        local_ip: IpAddr,
        /// The device that the sockets are bound to.
        device: Device,
        /// The destination.
        remote: SocketAddr,
    },
    /// Those that a process owns.
    Process(Pid),
    /// Those that the row of a service sums, by [`Service::row_key`]; `None`: those whose service is not known, and all
    /// in TIME_WAIT.
    Service(Option<Arc<Service>>),
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Whose connections.
    pub of: Of,
    /// Which of these.
    pub filter: Filter,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    /// The question.
    pub query: Query,
    /// The youngest, at most as many as were asked for; those from before the start come last.
    pub rows: Vec<ConnectionRow>,
    /// How many there are.
    pub matching: usize,
}

/// One end of a connection, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRow {
    /// Its network namespace.
    pub netns: NetnsId,
    /// The name of that.
    pub netns_name: Option<NetnsName>,
    /// Its addresses.
    pub tuple: FourTuple,
    /// The device that it is bound to.
    pub device: Device,
    /// Which end called connect().
    pub direction: Direction,
    /// Its state.
    pub state: TcpState,
    /// Its owner.
    pub owner: Option<Process>,
    /// Its other owners.
    pub co_fd_owners: Vec<Process>,
    /// The service of its cgroup, else of its owner.
    pub service: Option<Arc<Service>>,
    /// Its cgroup; `None` where that is not known, names no service, or there is no full socket.
    pub cgroup: Option<CgroupId>,
    /// Its last descriptor was closed.
    pub is_orphan: bool,
    /// Since its first event; `None` for sockets from before the start, and for those without a full socket.
    pub age: Option<Duration>,
}

/// A candidate, before its names are looked up.
struct Candidate {
    key: TupleKey,
    direction: Direction,
    state: TcpState,
    owner: Owner,
    /// Index of its row of members.
    member: u32,
    /// Of a full socket.
    id: Option<SocketId>,
    /// Seconds since start.
    began: Option<u32>,
}

/// Where a candidate stands: the youngest first, then by ports, and by namespace. All but the namespace is in the socket itself:
/// most of many are turned down without a look at anything else.
type Rank = (Age, NetnsId);
type Age = (Reverse<Option<u32>>, u16, u16);

impl Candidate {
    const fn rank(&self) -> Rank {
        (age(self.began, self.key.tuple.local_port, self.key.tuple.remote_port), self.key.netns)
    }
}

const fn age(began: Option<u32>, local_port: u16, remote_port: u16) -> Age {
    (Reverse(began), local_port, remote_port)
}

/// The youngest of many, in room for twice as many as are wanted.
struct Youngest {
    most: usize,
    found: Vec<Candidate>,
    /// Whoever ranks behind this one is not among them.
    worst: Option<Rank>,
}

impl Youngest {
    /// Whether one of this age may be among them.
    fn takes(&self, age: Age) -> bool {
        self.worst.is_none_or(|(worst, _)| age <= worst)
    }

    fn offer(&mut self, it: Candidate) {
        if self.worst.is_none_or(|worst| it.rank() < worst) {
            self.found.push(it);
            if self.found.len() >= 2 * self.most {
                self.prune();
            }
        }
    }

    fn prune(&mut self) {
        if self.found.len() > self.most && self.most > 0 {
            let (_, worst, _) = self.found.select_nth_unstable_by_key(self.most - 1, Candidate::rank);
            self.worst = Some(worst.rank());
        }
        self.found.truncate(self.most);
    }

    fn sorted(mut self) -> Vec<Candidate> {
        self.prune();
        self.found.sort_unstable_by_key(Candidate::rank);
        self.found
    }
}

impl Model {
    /// The youngest `most` of the connections that are asked for.
    #[must_use]
    pub fn connections(&self, query: &Query, now: Duration, most: usize) -> Connections {
        let mut youngest = Youngest { most, found: Vec::with_capacity(2 * most), worst: None };
        let is_all = query.of == Of::All && query.filter.is_empty();
        let mut matching = 0;
        let mut offer = |age: Age, candidate: &dyn Fn() -> Candidate| {
            if is_all {
                matching += 1;
                if youngest.takes(age) {
                    youngest.offer(candidate());
                }
                return;
            }
            let it = candidate();
            if self.belongs_to(&it, &query.of) && self.passes(&it, &query.filter) {
                matching += 1;
                youngest.offer(it);
            }
        };
        for socket in self.sockets.iter() {
            let began = socket.began.map(|began| began.get() - 1);
            offer(age(began, socket.local_port, socket.remote_port), &|| self.candidate(socket));
        }
        for (_, minisock) in self.minisocks.iter() {
            offer(age(None, minisock.local_port, minisock.remote_port), &|| self.minisock_candidate(minisock));
        }
        let rows = youngest.sorted().into_iter().map(|it| self.connection_row(&it, now)).collect();
        Connections { query: query.clone(), rows, matching }
    }

    fn candidate(&self, socket: &Socket) -> Candidate {
        Candidate {
            key: key_of(self.ledger.endpoints(), socket),
            direction: self.ledger.endpoints().get(socket.endpoint).key.direction,
            state: socket.state,
            owner: socket.owner,
            member: socket.member,
            id: Some(socket.id),
            began: socket.began.map(|began| began.get() - 1),
        }
    }

    fn minisock_candidate(&self, minisock: &Minisock) -> Candidate {
        Candidate {
            key: minisock.key(self.ledger.endpoints()),
            direction: self.ledger.endpoints().get(minisock.endpoint).key.direction,
            state: minisock.state,
            owner: Owner::UNKNOWN,
            member: NO_ROW,
            id: None,
            began: None,
        }
    }

    fn belongs_to(&self, it: &Candidate, of: &Of) -> bool {
        let TupleKey { netns, device, tuple } = it.key;
        match of {
            Of::All => true,
            Of::Endpoint(key) => {
                (key.netns, key.direction, key.local_ip, key.device.index())
                    == (netns, it.direction, tuple.local_ip, device)
                    && key.local_port.is_none_or(|port| port == tuple.local_port)
            }
            Of::Destination { netns: wanted, local_ip, device: bound_to, remote } => {
                let same = (*wanted, *local_ip, bound_to.index()) == (netns, tuple.local_ip, device);
                same && (remote.ip(), remote.port()) == (tuple.remote_ip, tuple.remote_port)
            }
            Of::Process(pid) => self.fd_owners_of(it).iter().any(|fd_owner| fd_owner.pid == *pid),
            Of::Service(key) => self.row_key_of(it.member) == key.as_ref(),
        }
    }

    /// The owner first.
    fn fd_owners_of(&self, it: &Candidate) -> Vec<Process> {
        let co_fd_owners = it.id.into_iter().flat_map(|id| self.co_fd_owners(id, it.owner));
        self.ledger.owners().process(it.owner).into_iter().chain(co_fd_owners).collect()
    }

    fn passes(&self, it: &Candidate, filter: &Filter) -> bool {
        if filter.is_empty() {
            return true;
        }
        let TupleKey { netns, device, tuple } = it.key;
        let name = self.netns_name(netns);
        let service = self.service_of(it.member);
        filter.lets_through(&Filterable {
            addresses: &[(tuple.local_ip, Some(tuple.local_port)), (tuple.remote_ip, Some(tuple.remote_port))],
            processes: &self.fd_owners_of(it),
            netns: Some(netns),
            netns_name: name.as_deref(),
            service: service.as_deref(),
            direction: Some(it.direction),
            has_state: &|state| state == it.state,
            device: self.named(netns, Device::new(device)),
            text: "",
        })
    }

    fn connection_row(&self, it: &Candidate, now: Duration) -> ConnectionRow {
        let TupleKey { netns, device, tuple } = it.key;
        ConnectionRow {
            netns,
            netns_name: self.netns_name(netns),
            tuple,
            device: self.named(netns, Device::new(device)),
            direction: it.direction,
            state: it.state,
            owner: self.ledger.owners().process(it.owner),
            co_fd_owners: it.id.into_iter().flat_map(|id| self.co_fd_owners(id, it.owner)).collect(),
            service: self.service_of(it.member),
            cgroup: self.ledger.members().cgroup(it.member),
            is_orphan: it.owner == Owner::ORPHAN,
            age: it.began.map(|began| now.saturating_sub(Duration::from_secs(began.into()))),
        }
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
