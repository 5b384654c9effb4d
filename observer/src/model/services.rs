//! Which member each socket counts with, and the rows of services that members make.

use std::{cmp::Reverse, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    Model,
    address::{Direction, EndpointKey},
    endpoint::Destination,
    failure::FailureRow,
    limit::Scope,
    member::{Member, MemberCounts, MemberRow, NOBODY, is_init_scope},
    owner::Owner,
    service::{CgroupId, Service},
    snapshot::{NearestDestination, ServiceRow},
    socket::Socket,
    units::{Pid, Process, SocketId},
};

impl Model {
    /// Takes note of the service of a member; `None` if it names none.
    pub fn set_service(&mut self, member: Member, service: Option<Service>) {
        if let Some(mute) = self.ledger.set_service(member, service) {
            self.give_to_owners(mute);
        }
    }

    /// Cgroups and processes that nobody has said yet what service they are of.
    pub fn unnamed_members(&self) -> impl Iterator<Item = Member> + '_ {
        self.ledger.members().unnamed()
    }

    /// Members that somebody has looked up, with the service that they are of.
    pub fn named_members(&self) -> impl Iterator<Item = (Member, Option<&Service>)> + '_ {
        let named = self.ledger.members().iter().filter(|row| !row.is_unnamed());
        named.filter_map(|row| Some((row.member?, row.service.as_deref())))
    }

    /// Cgroups that nobody found, and members whose pod or container has no name yet: a runtime writes its files a moment
    /// after the start. A process that nobody found has ended.
    pub fn nameless_members(&self) -> impl Iterator<Item = (Member, Option<&Service>)> + '_ {
        self.ledger.members().iter().filter_map(|row| {
            let member = row.member?;
            let service = row.service.as_deref();
            let is_nameless = service.is_some_and(|service| {
                service.is_unnamed_cgroup()
                    || service.pod.as_ref().is_some_and(|pod| pod.name.is_none())
                    || service.container.as_ref().is_some_and(|container| container.name.is_none())
            });
            let is_unresolved = row.is_unresolved && matches!(member, Member::Cgroup(_));
            (is_unresolved || is_nameless).then_some((member, service))
        })
    }

    /// Cgroups that nothing names any more since the last tick, once.
    pub fn take_forgotten_cgroups(&mut self) -> Vec<CgroupId> {
        self.ledger.take_forgotten_cgroups()
    }

    /// The row that sockets of this cgroup count in; `None` if it names no service.
    pub(super) fn member_of_cgroup(&mut self, cgroup: Option<CgroupId>) -> Option<u32> {
        self.ledger.member(Member::Cgroup(cgroup?), self.now)
    }

    /// The row that the sockets of a process count in, as far as their cgroup says nothing.
    pub(super) fn member_of_process(&mut self, process: Option<Process>) -> u32 {
        let member = process.and_then(|process| self.ledger.member(Member::Process(process.pid), self.now));
        member.unwrap_or(NOBODY)
    }

    /// A record has shown the cgroup of a socket.
    pub(super) fn learn_cgroup(&mut self, index: u32, cgroup: Option<CgroupId>) {
        if cgroup.is_some()
            && !self.ledger.members().is_cgroup(self.sockets.get(index).member)
            && let Some(member) = self.member_of_cgroup(cgroup)
        {
            self.change_socket(index, |socket| socket.member = member);
        }
    }

    /// A scan has shown the cgroup of a listener.
    pub(super) fn learn_cgroup_of_listener(&mut self, id: SocketId, cgroup: Option<CgroupId>) {
        if cgroup.is_some()
            && self.listeners.get(id).is_some_and(|known| !self.ledger.members().is_cgroup(known.member))
            && let Some(member) = self.member_of_cgroup(cgroup)
        {
            self.set_member_of_listener(id, member);
        }
    }

    /// The process that a listener counts with: systemd keeps a descriptor of what it has made for a service.
    fn process_that_answers(&mut self, id: SocketId) -> Option<Process> {
        let listener = self.listeners.get(id)?;
        let first = listener.process?;
        let members = self.ledger.members();
        let is_init = |process: &Process| {
            let row = members.find(Member::Process(process.pid));
            row.and_then(|row| row.service.as_deref()).is_some_and(is_init_scope)
        };
        if !is_init(&first) {
            return Some(first);
        }
        let other = listener.fd_owners.iter().find(|process| process.pid != first.pid && !is_init(process)).copied();
        // Its own row may have no socket left, and has to be known as systemd's the next time.
        self.ledger.keep_member(Member::Process(first.pid), self.now);
        other.or(Some(first))
    }

    fn set_member_of_listener(&mut self, id: SocketId, member: u32) {
        let Some(listener) = self.listeners.get_mut(id).filter(|listener| listener.member != member) else { return };
        let before = listener.contribution(self.ledger.endpoints());
        listener.member = member;
        let after = listener.contribution(self.ledger.endpoints());
        self.ledger.apply(before, after, self.now);
    }

    /// A cgroup turns out to name no service.
    fn give_to_owners(&mut self, mute: u32) {
        // First the listeners: sockets that are not accepted yet follow them.
        self.settle_listener_members(|member| member == mute);
        let sockets = self.sockets.iter().filter(|socket| socket.member == mute);
        let sockets: Vec<_> = sockets.map(|socket| (socket.id, self.ledger.owners().process(socket.owner))).collect();
        for (id, owner) in sockets {
            let Some(index) = self.sockets.find(id) else { continue };
            let by_listener = if owner.is_none() { self.member_of_listener_of(self.sockets.get(index)) } else { None };
            let member = by_listener.unwrap_or_else(|| self.member_of_process(owner));
            self.change_socket(index, |socket| socket.member = member);
        }
        let bound = self.bound.iter().filter(|(_, bound)| bound.member == mute);
        let bound: Vec<_> = bound.map(|(id, bound)| (*id, bound.process)).collect();
        for (id, process) in bound {
            let member = self.member_of_process(process);
            self.set_member_of_bound(id, member);
        }
    }

    /// That of the listener of a socket that nobody has accepted yet.
    fn member_of_listener_of(&self, socket: &Socket) -> Option<u32> {
        let key = &self.ledger.endpoints().get(socket.endpoint).key;
        if socket.owner != Owner::UNKNOWN || key.direction != Direction::Inbound {
            return None;
        }
        Some(self.covering_address(key.netns, key.local_ip, socket.local_port, key.device)?.member)
    }

    /// Sockets that nobody has accepted yet, and whose cgroup says nothing, count with their listener. A scan may show them before
    /// it, and before anything shows its process.
    pub(super) fn settle_waiting_members(&mut self) {
        let without_cgroup = self.sockets.iter().filter(|socket| !self.ledger.members().is_cgroup(socket.member));
        let by_listener = without_cgroup.filter_map(|socket| {
            let member = self.member_of_listener_of(socket)?;
            (member != socket.member).then_some((socket.id, member))
        });
        for (id, member) in by_listener.collect::<Vec<_>>() {
            if let Some(index) = self.sockets.find(id) {
                self.change_socket(index, |socket| socket.member = member);
            }
        }
    }

    /// Listeners whose cgroup says nothing count with their process.
    pub(super) fn settle_listener_members(&mut self, is_mute: impl Fn(u32) -> bool) {
        let by_owner = self
            .listeners
            .iter()
            .filter(|(_, listener)| is_mute(listener.member) || !self.ledger.members().is_cgroup(listener.member));
        let by_owner: Vec<SocketId> = by_owner.map(|(id, _)| id).collect();
        for id in by_owner {
            let process = self.process_that_answers(id);
            let member = self.member_of_process(process);
            self.set_member_of_listener(id, member);
        }
    }

    /// The services of the processes that are listed for their descriptors.
    pub(super) fn ask_for_services_of_processes(&mut self) {
        for files in self.readings.host.processes.clone() {
            if self.ledger.members().find(Member::Process(files.process.pid)).is_none_or(|row| row.service.is_none()) {
                self.member_of_process(Some(files.process));
            } else {
                self.ledger.keep_member(Member::Process(files.process.pid), self.now);
            }
        }
    }

    /// The service of a process: as /proc has it, else that of one of its sockets.
    pub(super) fn service_of_process(&self, pid: Pid) -> Option<Arc<Service>> {
        self.member_of_pid(pid)?.service.clone()
    }

    /// The row that names the service of a process.
    fn member_of_pid(&self, pid: Pid) -> Option<&MemberRow> {
        let members = self.ledger.members();
        let by_itself = members.find(Member::Process(pid)).filter(|row| row.service.is_some());
        by_itself.or_else(|| members.get(self.ledger.owners().last_member(pid)?))
    }

    /// The service of the sockets of a row of members.
    pub(super) fn service_of(&self, member: u32) -> Option<Arc<Service>> {
        self.ledger.members().get(member)?.service.clone()
    }

    /// What the row of services that the sockets of a row of members count in is identified by.
    pub(super) fn row_key_of(&self, member: u32) -> Option<&Arc<Service>> {
        self.ledger.members().get(member)?.key.as_ref()
    }

    pub(super) fn service_of_endpoint(&self, key: &EndpointKey) -> Option<Arc<Service>> {
        let index = self.ledger.endpoints().find(key)?;
        self.ledger.members().most(&self.ledger.endpoints().get(index).members)?.0.service.clone()
    }

    /// The service of a limit's process, listener or destination.
    pub(super) fn service_of_scope(&self, scope: Scope) -> Option<Arc<Service>> {
        match scope {
            Scope::Host | Scope::Namespace(_) => None,
            Scope::Process(pid) => self.service_of_process(pid),
            Scope::Listener { id, .. } => self.service_of(self.listeners.get(id)?.member),
            Scope::Destination { netns, local_ip, device, remote } => {
                let endpoint = self.ledger.endpoints().find(&EndpointKey::outbound(netns, local_ip, device))?;
                let index = self.ledger.destinations().find(endpoint, remote)?;
                let row = self.ledger.destinations().get(index)?;
                self.ledger.members().most(&row.members)?.0.service.clone()
            }
        }
    }

    /// Of whoever called, else of the listener's sockets.
    pub(super) fn service_of_failure(&self, row: &FailureRow) -> Option<Arc<Service>> {
        let by_member = row.key.member.and_then(|member| self.ledger.members().find(member)?.service.clone());
        let by_process = || self.service_of_process(row.key.process?.pid);
        let by_listener = || {
            let local = row.key.local.filter(|_| row.key.call.is_none())?;
            self.service_of_endpoint(&EndpointKey::inbound(row.key.netns, local.ip, local.port, local.device))
        };
        by_member.or_else(by_process).or_else(by_listener)
    }

    /// One row a service, those with the most sockets first; what is nobody's comes last.
    pub(super) fn service_rows(&self) -> Vec<ServiceRow> {
        let mut rows = RowsOfServices::default();
        for member in self.ledger.members().iter() {
            let row = rows.row(member.key.as_ref());
            let MemberCounts { states, orphans, listeners, bound } = member.counts;
            row.states = row.states + states;
            row.orphans += orphans;
            row.listeners += listeners;
            row.bound += bound;
            row.opened_total += member.flow.opened;
            row.closed_total += member.flow.closed;
            row.failed_total += member.flow.failed;
            row.opened_per_second += member.flow.opened_per_second;
            row.closed_per_second += member.flow.closed_per_second;
            row.failures_total += member.failures;
        }
        for (key, past) in self.ledger.members().past() {
            let row = rows.row(Some(key));
            row.opened_total += past.opened;
            row.closed_total += past.closed;
            row.failed_total += past.failed;
            row.failures_total += past.failures;
        }
        self.add_nearest_destinations(&mut rows);
        self.add_fullest_processes(&mut rows);
        let mut rows = rows.rows;
        for row in &mut rows {
            row.sockets = row.states.sum();
        }
        rows.retain(|row| row.service.is_some() || !row.is_empty());
        rows.sort_by_cached_key(|row| {
            (row.service.is_none(), Reverse(row.sockets), row.service.as_ref().map(|it| it.label().as_bytes().to_vec()))
        });
        rows
    }

    /// The destination with the largest share of its ports in use, of each service.
    fn add_nearest_destinations(&self, rows: &mut RowsOfServices) {
        // All members of a service share their key.
        let mut nearest: FxHashMap<*const Service, (&Arc<Service>, u64, &Destination)> = FxHashMap::default();
        for row in self.ledger.destinations().iter() {
            let Some((ports, _)) = self.ledger.ports_at(row.endpoint) else { continue };
            let Some((member, _)) = self.ledger.members().most(&row.members) else {
                continue;
            };
            let Some(key) = &member.key else { continue };
            let share = u64::from(row.ports.in_use()) * u64::from(u32::MAX) / u64::from(ports.usable_count.max(1));
            let known = nearest.entry(Arc::as_ptr(key)).or_insert((key, share, row));
            if (share, Reverse(row.remote())) > (known.1, Reverse(known.2.remote())) {
                *known = (key, share, row);
            }
        }
        for (key, _, row) in nearest.into_values() {
            let at = &self.ledger.endpoints().get(row.endpoint).key;
            let Some(ports) = self.port_use(row, self.readings.namespaces.get(&at.netns)) else { continue };
            rows.row(Some(key)).nearest = Some(NearestDestination {
                netns: at.netns,
                netns_name: self.netns_name(at.netns),
                local_ip: at.local_ip,
                device: self.named(at.netns, at.device),
                remote: row.remote(),
                ports,
            });
        }
    }

    fn add_fullest_processes(&self, rows: &mut RowsOfServices) {
        let host = &self.readings.host;
        for files in &host.processes {
            let member = self.member_of_pid(files.process.pid);
            let Some(key) = member.and_then(|member| member.key.as_ref()) else { continue };
            let row = rows.row(Some(key));
            let used = |files| host.descriptor_ratio(files);
            if row.fullest.as_ref().is_none_or(|known| used(files) > used(known)) {
                row.fullest = Some(*files);
            }
        }
    }
}

/// Rows of services, each found by the address of its key: all members of a service share that.
#[derive(Default)]
struct RowsOfServices {
    rows: Vec<ServiceRow>,
    by_key: FxHashMap<Option<*const Service>, usize>,
}

impl RowsOfServices {
    /// The row of a service, made if need be; `None` stands for nobody.
    fn row(&mut self, key: Option<&Arc<Service>>) -> &mut ServiceRow {
        let rows = &mut self.rows;
        let at = *self.by_key.entry(key.map(Arc::as_ptr)).or_insert_with(|| {
            rows.push(ServiceRow::of(key.cloned()));
            rows.len() - 1
        });
        &mut self.rows[at]
    }
}
