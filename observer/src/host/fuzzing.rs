//! What fuzz targets give to the readers of the host's files. They return what was read, for what must hold of it.

use std::path::Path;

use super::{
    cgroup, clock, conntrack, devices, files, listening, memory, mib, mounts, namespaces, netns, open_sockets,
    pid_namespace, processes, rights,
};
use crate::model::{namespace::ConntrackCounters, service::Service};

/// A path, lines of /proc/PID/cgroup, or a file or its name that names containers.
pub(crate) fn cgroup(bytes: &[u8]) -> Vec<Service> {
    cgroup::all_in(bytes)
}

/// /proc/self/mountinfo: how many mounts of namespaces and of cgroup2 there are.
pub(crate) fn mountinfo(bytes: &[u8]) -> [usize; 2] {
    let namespaces = mounts::parse(bytes);
    let names = namespaces.iter().filter_map(mounts::Mount::netns_name).count();
    assert!(names <= namespaces.len());
    [namespaces.len(), mounts::parse_cgroup2(bytes).len()]
}

/// Any file of /proc, or an answer of rtnetlink.
pub(crate) fn proc(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let _ = clock::monotonic_offset(text);
    let _ = clock::now_at(text);
    let _ = conntrack::parse(text).map(ConntrackCounters::dropped_when_full);
    let _ = files::parse_file_nr(text);
    let _ = listening::listeners(text, 443);
    let _ = listening::unix_listeners(text, Path::new("/run/x"));
    let _ = memory::parse_available(text);
    let _ = memory::parse_per_socket(text);
    let _ = memory::parse_resident(text);
    let _ = mib::counter(text, "TcpExt", "ListenOverflows");
    let _ = mib::sockstat(text, "TCP", "tw");
    let _ = namespaces::parse_start(text);
    if let Some(range) = netns::parse_range(text) {
        assert!(range.low <= range.high, "{range:?}");
    }
    let _ = netns::parse_ranges(text);
    let _ = open_sockets::socket(bytes);
    let _ = pid_namespace::has_one_number_in(text);
    let _ = processes::parse_limit(text);
    let _ = rights::parse_lockdown(text);
    let _ = devices::parse(bytes);
}
