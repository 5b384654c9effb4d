//! What takes ports out of the ephemeral range by configuration.

use std::fmt;

use super::{Finding, FindingKind, is_part, name};
use crate::model::{
    Model,
    units::{NetnsId, PortRange, Process},
};

/// Ports of the range in percent, from which on they make a finding.
const RESERVED_PERCENT: u32 = 10;

pub(super) fn listeners_in_range(
    netns: NetnsId,
    range: PortRange,
    mut found: Vec<(u16, Option<Process>)>,
) -> Option<Finding> {
    found.sort_unstable_by_key(|(port, _)| *port);
    found.dedup_by_key(|(port, _)| *port);
    let (first, more) = found.split_at(found.len().min(3));
    // Written at once: hundreds of namespaces may have such listeners.
    let ports = fmt::from_fn(|f| {
        for (place, (port, process)) in first.iter().enumerate() {
            write!(f, "{}{port} {}", if place > 0 { ", " } else { "" }, name(*process))?;
        }
        if more.is_empty() { Ok(()) } else { write!(f, " and {} more", more.len()) }
    });
    (!found.is_empty()).then(|| Finding {
        kind: FindingKind::ListenerInRange,
        netns,
        scope: None,
        service: None,
        sentence: "A service listens on a port of the ephemeral range: once it stops, a client can take that port."
            .to_owned(),
        evidence: format!("{ports} in {}-{}, not reserved", range.low, range.high),
        remedy: "add the ports to net.ipv4.ip_local_reserved_ports, or listen outside of the range".to_owned(),
    })
}

pub(super) fn reserved_in_range(netns: NetnsId, range: PortRange, reserved: u32) -> Option<Finding> {
    is_part(reserved, RESERVED_PERCENT, range.size()).then(|| Finding {
        kind: FindingKind::ReservedInRange,
        netns,
        scope: None,
        service: None,
        sentence: "Much of the ephemeral range is reserved: fewer connections fit to each destination.".to_owned(),
        evidence: format!(
            "net.ipv4.ip_local_reserved_ports takes {reserved} of the {} ports {}-{}",
            range.size(),
            range.low,
            range.high
        ),
        remedy: "widen net.ipv4.ip_local_port_range, or reserve less".to_owned(),
    })
}

impl Model {
    pub(in crate::model) fn range_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (netns, namespace) in &self.readings.namespaces {
            let Some(range) = namespace.reading.port_range else { continue };
            let Some(ports) = self.ledger.ports(*netns) else { continue };
            let listeners = self.listeners.of_namespace(*netns).map(|(_, listener)| listener);
            let listening = listeners.filter(|listener| listener.chose_port && ports.is_usable(listener.port));
            let listening = listening.map(|listener| (listener.port, listener.process)).collect();
            findings.extend(listeners_in_range(*netns, range, listening));
            findings.extend(reserved_in_range(*netns, range, ports.reserved));
        }
        findings
    }
}
