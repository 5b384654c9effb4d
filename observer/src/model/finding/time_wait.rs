//! Destinations whose ports wait in TIME_WAIT, and what helps there.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Finding, FindingKind, is_part};
use crate::model::{
    Model,
    device::Device,
    headroom::PortUse,
    limit::Scope,
    reading::NamespaceReading,
    snapshot::NamespaceRow,
    units::{NetnsId, PortRange},
};

/// Ports of the range in percent, from which on they make a finding.
const TIME_WAIT_PERCENT: u32 = 10;
/// A TIME_WAIT lasts 60 s: a delay of more than half of that frees a port hardly sooner.
const DELAY_THAT_HELPS: Duration = Duration::from_secs(30);
/// A range with fewer unused numbers around it cannot be widened much.
const ROOM_TO_WIDEN: u32 = 8_192;

/// A destination, and all TIME_WAIT sockets of its namespace.
pub(super) struct Closed {
    pub(super) netns: NetnsId,
    pub(super) local_ip: IpAddr,
    pub(super) device: Device,
    pub(super) remote: SocketAddr,
    pub(super) ports: PortUse,
    pub(super) time_wait_in_namespace: u32,
    pub(super) reuse: Reuse,
    pub(super) range: Option<PortRange>,
}

/// Whether `net.ipv4.tcp_tw_reuse=1` would let connect() take these ports over (`tcp_twsk_unique`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// It would, from this age of a TIME_WAIT on (`net.ipv4.tcp_tw_reuse_delay`; a second before 6.14).
    WouldHelp(Duration),
    /// It is set, or this is loopback under 2, and connect() takes over what it may.
    IsOn,
    /// `net.ipv4.tcp_timestamps` is 0 here.
    NoTimestamps,
    /// The peer sends no timestamps.
    NoTimestampsOfPeer,
    /// `net.ipv4.tcp_tw_reuse_delay` is about as long as TIME_WAIT itself.
    TooLate(Duration),
    /// The sysctls could not be read.
    Unknown,
}

impl Reuse {
    /// `stamped` of `time_wait` sockets have a peer that sends timestamps.
    pub(super) fn of(reading: &NamespaceReading, is_loopback: bool, stamped: u32, time_wait: u32) -> Self {
        let delay = reading.tcp_tw_reuse_delay.unwrap_or(Duration::from_secs(1));
        match (reading.tcp_tw_reuse, reading.tcp_timestamps) {
            (None, _) | (_, None) => Self::Unknown,
            (_, Some(0)) => Self::NoTimestamps,
            _ if u64::from(stamped) * 2 < u64::from(time_wait) => Self::NoTimestampsOfPeer,
            _ if delay > DELAY_THAT_HELPS => Self::TooLate(delay),
            (Some(1), _) => Self::IsOn,
            (Some(2), _) if is_loopback => Self::IsOn,
            _ => Self::WouldHelp(delay),
        }
    }
}

pub(super) fn time_wait_at_one_destination(closed: &Closed) -> Option<Finding> {
    let Closed { netns, local_ip, device, remote, ports, time_wait_in_namespace, reuse, range } = *closed;
    let many = is_part(ports.time_wait, TIME_WAIT_PERCENT, ports.usable());
    let most = is_part(ports.time_wait, 50, time_wait_in_namespace);
    (many && most).then(|| Finding {
        kind: FindingKind::TimeWaitAtOneDestination,
        netns,
        scope: Some(Scope::Destination { netns, local_ip, device, remote }),
        service: None,
        sentence: format!(
            "Connections from {} to {remote} are closed faster than their ports are free again.",
            device.scoped(local_ip)
        )
        .into(),
        evidence: format!(
            "{} of {} ports are in TIME_WAIT, of {time_wait_in_namespace} such sockets in the namespace{}",
            ports.time_wait,
            ports.usable(),
            match reuse {
                Reuse::WouldHelp(_) | Reuse::Unknown => String::new(),
                Reuse::IsOn => "; connect() reuses those that it may (net.ipv4.tcp_tw_reuse) already".to_owned(),
                Reuse::NoTimestamps => "; net.ipv4.tcp_timestamps is 0, so none can be reused".to_owned(),
                Reuse::NoTimestampsOfPeer => "; the peer sends no TCP timestamps, so none can be reused".to_owned(),
                Reuse::TooLate(delay) => format!(
                    "; net.ipv4.tcp_tw_reuse_delay is {} ms, so reuse comes too late to help",
                    delay.as_millis()
                ),
            }
        )
        .into(),
        remedy: remedy(reuse, range).into(),
    })
}

fn remedy(reuse: Reuse, range: Option<PortRange>) -> String {
    let also = match reuse {
        Reuse::WouldHelp(delay) => &format!(
            "net.ipv4.tcp_tw_reuse=1 lets connect() take ports whose TIME_WAIT is older than {}",
            if delay.as_secs() == 1 && delay.subsec_millis() == 0 {
                "a second".to_owned()
            } else {
                format!("{} ms (net.ipv4.tcp_tw_reuse_delay)", delay.as_millis())
            }
        ),
        _ if range.is_some_and(|range| range.size() + ROOM_TO_WIDEN < u32::from(u16::MAX)) => {
            "more source addresses or a wider net.ipv4.ip_local_port_range give more ports"
        }
        _ => "more source addresses give more ports",
    };
    format!("keep connections open, or let the other side close first; {also}")
}

impl Model {
    pub(in crate::model) fn time_wait_destinations(
        &self,
        namespaces: &[NamespaceRow],
    ) -> impl Iterator<Item = Finding> {
        let closed = self.ledger.destinations().iter().filter(|row| row.ports.time_wait > 0).filter_map(|row| {
            let key = &self.ledger.endpoints().get(row.endpoint).key;
            let namespace = self.readings.namespaces.get(&key.netns)?;
            let ports = self.port_use(row, Some(namespace))?;
            if !is_part(ports.time_wait, TIME_WAIT_PERCENT, ports.usable()) {
                return None;
            }
            let counted = namespaces.iter().find(|counted| counted.netns == key.netns)?;
            let is_loopback = key.local_ip.is_loopback() || row.remote_ip.is_loopback();
            Some(Closed {
                netns: key.netns,
                local_ip: key.local_ip,
                device: self.named(key.netns, key.device),
                remote: row.remote(),
                ports,
                time_wait_in_namespace: counted.time_wait,
                reuse: Reuse::of(&namespace.reading, is_loopback, row.stamped, row.time_wait),
                range: namespace.reading.port_range,
            })
        });
        closed.filter_map(|closed| time_wait_at_one_destination(&closed))
    }
}
