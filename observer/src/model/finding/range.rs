//! What takes ports out of the ephemeral range by configuration.

use super::{Finding, FindingKind, evidence::InRange, is_part};
use crate::model::{
    Model,
    snapshot::NamespaceRow,
    units::{NetnsId, PortRange, Process},
};

/// Ports of the range in percent, from which on they make a finding.
const RESERVED_PERCENT: u32 = 10;

pub(super) fn listeners_in_range(
    netns: NetnsId,
    range: PortRange,
    found: &mut Vec<(u16, Option<Process>)>,
) -> Option<Finding> {
    found.sort_unstable_by_key(|(port, _)| *port);
    found.dedup_by_key(|(port, _)| *port);
    let evidence = InRange::new(range, found)?.into();
    Some(Finding {
        kind: FindingKind::ListenerInRange,
        netns,
        scope: None,
        service: None,
        sentence: "A service listens on a port of the ephemeral range: once it stops, a client can take that port."
            .into(),
        evidence,
        remedy: "add the ports to net.ipv4.ip_local_reserved_ports, or listen outside of the range".into(),
    })
}

pub(super) fn reserved_in_range(netns: NetnsId, range: PortRange, reserved: u32) -> Option<Finding> {
    is_part(reserved, RESERVED_PERCENT, range.size()).then(|| Finding {
        kind: FindingKind::ReservedInRange,
        netns,
        scope: None,
        service: None,
        sentence: "Much of the ephemeral range is reserved: fewer connections fit to each destination.".into(),
        evidence: format!(
            "net.ipv4.ip_local_reserved_ports takes {reserved} of the {} ports {}-{}",
            range.size(),
            range.low,
            range.high
        )
        .into(),
        remedy: "widen net.ipv4.ip_local_port_range, or reserve less".into(),
    })
}

impl Model {
    /// In the order of findings, because these rows are in that of their namespaces.
    pub(in crate::model) fn range_findings(&self, namespaces: &[NamespaceRow]) -> Vec<Finding> {
        let (mut of_listeners, mut of_reserved) = (Vec::new(), Vec::new());
        let mut listening = Vec::new();
        for row in namespaces {
            let Some((range, ports)) = row.port_range.zip(self.ledger.ports(row.netns)) else { continue };
            let listeners = self.listeners.of_namespace(row.netns).map(|(_, listener)| listener);
            let found = listeners.filter(|listener| listener.chose_port && ports.is_usable(listener.port));
            listening.clear();
            listening.extend(found.map(|listener| (listener.port, listener.process)));
            of_listeners.extend(listeners_in_range(row.netns, range, &mut listening));
            of_reserved.extend(reserved_in_range(row.netns, range, ports.reserved));
        }
        of_listeners.append(&mut of_reserved);
        of_listeners
    }
}
