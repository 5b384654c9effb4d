//! Clients that call bind() before connect(), and take ports from every destination.

use std::{cmp::Reverse, net::IpAddr};

use rustc_hash::FxHashMap;

use super::{Finding, FindingKind, is_part, names};
use crate::model::{
    Model,
    device::Device,
    units::{NetnsId, Process, SocketId},
};

/// Ports of the range in percent, from which on they make a finding.
const BOUND_PERCENT: u32 = 1;

/// Clients of a local ip whose ports were chosen by bind().
pub(super) struct BoundClients {
    pub(super) netns: NetnsId,
    pub(super) local_ip: IpAddr,
    pub(super) device: Device,
    /// Their owners, the one with the most first.
    pub(super) processes: Vec<Process>,
    pub(super) ports: u32,
    pub(super) usable: u32,
}

pub(super) fn bind_before_connect(clients: &BoundClients) -> Option<Finding> {
    let BoundClients { netns, local_ip, device, ref processes, ports, usable } = *clients;
    is_part(ports, BOUND_PERCENT, usable).then(|| Finding {
        kind: FindingKind::BindBeforeConnect,
        netns,
        scope: None,
        service: None,
        // Who called bind() is not known: the socket may have come from another process, by fork() or SCM_RIGHTS.
        sentence: format!(
            "Sockets of {} were bound before connect() from {}.",
            names(processes),
            device.scoped(local_ip)
        )
        .into(),
        evidence: format!(
            "{ports} of {usable} ports are in use via bind(): connect() skips these for every destination"
        )
        .into(),
        remedy:
            "set IP_BIND_ADDRESS_NO_PORT (Linux 4.2) on the socket before bind(), so that connect() chooses the port"
                .into(),
    })
}

impl Model {
    pub(in crate::model) fn clients_bound_first(&self) -> impl Iterator<Item = Finding> {
        let clients = self.diagnosis.bind_before_connect.iter().filter_map(|(key, sockets)| {
            let usable = self.ledger.ports(key.netns)?.usable_count;
            let ports = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
            // Their owners are looked up only for those that matter.
            let processes = if is_part(ports, BOUND_PERCENT, usable) { self.owners_of(sockets) } else { Vec::new() };
            let device = self.named(key.netns, key.device);
            Some(BoundClients { netns: key.netns, local_ip: key.local_ip, device, processes, ports, usable })
        });
        clients.filter_map(|clients| bind_before_connect(&clients))
    }

    /// The processes that own these sockets, the one with the most first; TIME_WAIT sockets have none.
    fn owners_of(&self, sockets: &[SocketId]) -> Vec<Process> {
        let mut counts: FxHashMap<Process, u32> = FxHashMap::default();
        for socket in sockets.iter().filter_map(|id| self.sockets.find(*id)) {
            if let Some(process) = self.ledger.owners().process(self.sockets.get(socket).owner) {
                *counts.entry(process).or_default() += 1;
            }
        }
        let mut processes: Vec<(Process, u32)> = counts.into_iter().collect();
        processes.sort_unstable_by_key(|(process, count)| (Reverse(*count), process.pid));
        processes.into_iter().map(|(process, _)| process).collect()
    }
}
