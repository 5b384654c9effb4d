//! Processes that retry connect() although no port is left.

use std::net::SocketAddr;

use super::{Finding, FindingKind, name};
use crate::model::{
    Model,
    address::Local,
    failure::{Failed, FailureKey, LOOP_PER_SECOND},
    headroom::PortUse,
    limit::Scope,
    units::{NetnsId, PortRange, Process},
};

/// connect() calls of a process that found no port left, within the last second.
pub(super) struct ExhaustedConnects {
    pub(super) netns: NetnsId,
    pub(super) local: Option<Local>,
    pub(super) remote: SocketAddr,
    pub(super) process: Process,
    pub(super) per_second: f64,
    pub(super) ports: Option<PortUse>,
    /// The socket's own range, where it has one.
    pub(super) own_range: Option<PortRange>,
}

pub(super) fn retry_loop(tried: &ExhaustedConnects) -> Option<Finding> {
    let ExhaustedConnects { netns, local, remote, process, per_second, ports, own_range } = *tried;
    let searched = own_range
        .map_or_else(|| "the whole range".to_owned(), |own| format!("the socket's own range {}-{}", own.low, own.high));
    (per_second >= LOOP_PER_SECOND).then(|| Finding {
        kind: FindingKind::RetryLoop,
        netns,
        scope: local.map(|Local { ip, device, .. }| Scope::Destination { netns, local_ip: ip, device, remote }),
        service: None,
        sentence: format!("{} retries connect() to {remote} without a port left.", name(Some(process))).into(),
        evidence: format!(
            "{per_second:.0} calls a second fail with EADDRNOTAVAIL{}; each has searched {searched}",
            ports.map_or_else(String::new, |ports| format!(
                ", {} of {} ports are in use",
                ports.in_use(),
                ports.usable()
            ))
        )
        .into(),
        remedy: "wait longer before each retry, and reuse connections".into(),
    })
}

impl Model {
    pub(in crate::model) fn retry_loops(&self) -> impl Iterator<Item = Finding> {
        let tried = self.diagnosis.failures.exhausted().filter_map(|(row, per_second)| {
            let FailureKey { netns, process, local, remote, own_range, .. } = row.key;
            let ports = match row.failed {
                Failed::Ports(ports) => Some(ports),
                _ => None,
            };
            let local = local.map(|local| Local { device: self.named(netns, local.device), ..local });
            Some(ExhaustedConnects { netns, local, remote: remote?, process: process?, per_second, ports, own_range })
        });
        tried.filter_map(|tried| retry_loop(&tried))
    }
}
