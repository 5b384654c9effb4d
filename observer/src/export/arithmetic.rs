//! How many four-tuples there are, in theory and on the observed host.

use std::ops::Not;

use serde::Serialize;

use crate::{
    frame::{Frame, LocalReadings},
    model::{
        limit::practical,
        snapshot::{FileUse, Snapshot},
    },
};

/// The numbers. What is not known is absent. Those of a namespace are the frame's own namespace's; addresses and
/// `own_*` are the running host's, and absent in a recording.
#[derive(Default, Serialize)]
pub(super) struct Arithmetic {
    /// 2^96: a string, because most readers of JSON would round the number.
    pub(super) connections_over_ipv4: String,
    /// 2^64, a string too.
    pub(super) connections_of_a_local_ip: String,
    /// 2^48
    pub(super) connections_of_a_local_endpoint: u64,
    /// 2^16
    pub(super) connections_of_a_local_endpoint_with_a_remote_ip: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port_range: Option<[u16; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reserved_ports: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usable_ports: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) local_ipv4_addresses: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) local_ipv6_addresses: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections_to_an_ipv4_destination: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_soft_nofile: Option<u64>,
    /// RLIM_INFINITY.
    #[serde(skip_serializing_if = "Not::not")]
    own_soft_nofile_unlimited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_hard_nofile: Option<u64>,
    #[serde(skip_serializing_if = "Not::not")]
    own_hard_nofile_unlimited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nr_open: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_max: Option<u64>,
    /// There is no practical limit.
    #[serde(skip_serializing_if = "Not::not")]
    file_max_unlimited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle_socket_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) available_memory_bytes: Option<u64>,
}

impl Arithmetic {
    pub(super) fn new(frame: &Frame) -> Self {
        let Frame { snapshot, own, local, .. } = frame;
        let namespace = snapshot.namespaces.iter().find(|row| Some(row.netns) == *own);
        let range = namespace.and_then(|row| row.port_range);
        let usable_ports = range.zip(namespace).map(|(range, row)| range.size() - row.reserved_ports);
        let count =
            |local: &LocalReadings, is_v4: bool| local.addresses.iter().filter(|ip| ip.is_ipv4() == is_v4).count();
        let local_ipv4_addresses = local.as_ref().map(|local| count(local, true));
        let to_a_destination = usable_ports.zip(local_ipv4_addresses);
        Self {
            connections_over_ipv4: (1_u128 << 96).to_string(),
            connections_of_a_local_ip: (1_u128 << 64).to_string(),
            connections_of_a_local_endpoint: 1 << 48,
            connections_of_a_local_endpoint_with_a_remote_ip: 1 << 16,
            netns: own.map(|netns| netns.0),
            netns_name: namespace.and_then(|row| row.name.as_deref()).map(str::to_owned),
            port_range: range.map(|range| [range.low, range.high]),
            reserved_ports: namespace.map(|row| row.reserved_ports),
            usable_ports,
            local_ipv4_addresses,
            local_ipv6_addresses: local.as_ref().map(|local| count(local, false)),
            connections_to_an_ipv4_destination: to_a_destination.map(|(ports, ips)| ips as u64 * u64::from(ports)),
            ..Self::of_files(snapshot, local.as_ref())
        }
    }

    /// Descriptors and memory; the rest is empty.
    fn of_files(snapshot: &Snapshot, local: Option<&LocalReadings>) -> Self {
        let files = local.and_then(|local| local.files);
        let soft = files.and_then(|files| files.soft_limit).and_then(practical);
        let hard = files.and_then(|files| files.hard_limit).and_then(practical);
        let file_max = snapshot.host.files.and_then(FileUse::practical_max);
        Self {
            own_soft_nofile: soft,
            own_soft_nofile_unlimited: files.is_some() && soft.is_none(),
            own_hard_nofile: hard,
            own_hard_nofile_unlimited: files.is_some() && hard.is_none(),
            nr_open: snapshot.host.nr_open,
            file_max,
            file_max_unlimited: snapshot.host.files.is_some() && file_max.is_none(),
            idle_socket_bytes: snapshot.host.memory.map(|memory| memory.per_socket),
            available_memory_bytes: snapshot.host.memory.map(|memory| memory.available),
            ..Self::default()
        }
    }

    /// Whether readings of the running host are among the numbers.
    pub(super) const fn is_local(&self) -> bool {
        self.local_ipv4_addresses.is_some()
    }

    /// What the numbers belong to.
    pub(super) fn place(&self) -> String {
        if self.is_local() {
            return "On this host, in this network namespace:".to_owned();
        }
        match (&self.netns_name, self.netns) {
            (Some(name), _) => format!("On the recorded host, in its network namespace {name}:"),
            (None, Some(number)) => format!("On the recorded host, in its network namespace {number}:"),
            (None, None) => "On the recorded host:".to_owned(),
        }
    }
}
