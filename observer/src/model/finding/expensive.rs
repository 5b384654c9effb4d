//! Destinations towards which connect() has become slow.

use std::net::{IpAddr, SocketAddr};

use super::{Finding, FindingKind, is_part};
use crate::model::{Model, device::Device, headroom::PortUse, limit::Scope, units::NetnsId};

/// connect() looks at some 30 ports in a microsecond, and takes some 20 microseconds without that: with fewer ports than
/// these, half of them are looked at too fast to matter.
const PORTS_THAT_MATTER: u32 = 8_192;

/// A destination, and how connect() searches its namespace's range.
pub(super) struct Crowded {
    pub(super) netns: NetnsId,
    pub(super) local_ip: IpAddr,
    pub(super) device: Device,
    pub(super) remote: SocketAddr,
    pub(super) ports: PortUse,
    /// `net.ipv4.ip_local_port_step_width`
    pub(super) step_width: Option<u32>,
}

/// connect() tries all ports of the parity of the range's first port before it tries the others
/// (`__inet_hash_connect`): once half is in use, each call walks that half in vain. Ports that bind() uses do not count:
/// bind() takes the other parity first. With a random step there are no halves.
pub(super) fn slow_connect(crowded: &Crowded) -> Option<Finding> {
    let Crowded { netns, local_ip, device, remote, ports, step_width } = *crowded;
    let in_use = ports.used + ports.time_wait;
    let has_halves = step_width.unwrap_or(0) == 0;
    let is_slow = has_halves && ports.usable() >= PORTS_THAT_MATTER && is_part(in_use, 50, ports.usable());
    (is_slow && ports.left_at_most() > 0).then(|| Finding {
        kind: FindingKind::SlowConnect,
        netns,
        scope: Some(Scope::Destination { netns, local_ip, device, remote }),
        service: None,
        sentence: format!(
            "connect() from {} to {remote} takes about ten times as long as it should.",
            device.scoped(local_ip)
        )
        .into(),
        evidence: format!(
            "{in_use} of {} ports are in use: each call walks some {} of them before it comes to a free one",
            ports.usable(),
            ports.usable() / 2
        )
        .into(),
        remedy: "stay below half of the range: more source or destination addresses, a wider \
                 net.ipv4.ip_local_port_range, or fewer connections that are kept longer"
            .into(),
    })
}

impl Model {
    pub(in crate::model) fn slow_connects(&self) -> impl Iterator<Item = Finding> {
        // A cheap look first: there may be very many.
        let many = self.ledger.destinations().iter().filter(|row| row.ports.in_use() >= PORTS_THAT_MATTER / 2);
        let crowded = many.filter_map(|row| {
            let key = &self.ledger.endpoints().get(row.endpoint).key;
            let namespace = self.readings.namespaces.get(&key.netns)?;
            Some(Crowded {
                netns: key.netns,
                local_ip: key.local_ip,
                device: self.named(key.netns, key.device),
                remote: row.remote(),
                ports: self.port_use(row, Some(namespace))?,
                step_width: namespace.reading.port_step_width,
            })
        });
        crowded.filter_map(|crowded| slow_connect(&crowded))
    }
}
