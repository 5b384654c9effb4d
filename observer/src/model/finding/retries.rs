//! Processes that retry connect() although no port is left.

use std::net::{IpAddr, SocketAddr};

use super::{Finding, FindingKind, name};
use crate::model::{
    Model,
    failure::{Failed, FailureKey},
    headroom::PortUse,
    units::{NetnsId, Process},
    wall::Subject,
};

/// connect() calls that find no port are a loop from here on: nobody types that fast.
const LOOP_PER_SECOND: f64 = 10.0;

/// connect() calls of a process that found no port left, within the last second.
pub(super) struct ExhaustedConnects {
    pub(super) netns: NetnsId,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) remote: SocketAddr,
    pub(super) process: Process,
    pub(super) per_second: f64,
    pub(super) ports: Option<PortUse>,
}

pub(super) fn retry_loop(tried: &ExhaustedConnects) -> Option<Finding> {
    let ExhaustedConnects { netns, local_ip, remote, process, per_second, ports } = *tried;
    (per_second >= LOOP_PER_SECOND).then(|| Finding {
        kind: FindingKind::RetryLoop,
        netns,
        subject: local_ip.map(|local_ip| Subject::Destination { netns, local_ip, remote }),
        sentence: format!("{} retries connect() to {remote} without a port left.", name(Some(process))),
        evidence: format!(
            "{per_second:.0} calls a second fail with EADDRNOTAVAIL{}; each has searched the whole range",
            ports.map_or_else(String::new, |ports| format!(
                ", {} of {} ports are taken",
                ports.taken(),
                ports.usable()
            ))
        ),
        remedy: "wait longer before each retry, and reuse connections".to_owned(),
    })
}

impl Model {
    pub(super) fn retry_loops(&self) -> impl Iterator<Item = Finding> {
        let tried = self.failures.exhausted().filter_map(|(row, per_second)| {
            let FailureKey { netns, process, local, remote, .. } = row.key;
            let ports = match row.failed {
                Failed::Ports(ports) => Some(ports),
                _ => None,
            };
            let local_ip = local.map(|local| local.ip);
            Some(ExhaustedConnects { netns, local_ip, remote: remote?, process: process?, per_second, ports })
        });
        tried.filter_map(|tried| retry_loop(&tried))
    }
}
