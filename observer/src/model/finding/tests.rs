//! Each rule, with numbers made up for it.

use std::net::SocketAddr;

use super::{
    bound::{BoundClients, bind_before_connect},
    expensive::{Crowded, slow_connect},
    queues::{Queue, short_queue},
    range::{listeners_in_range, reserved_in_range},
    retries::{ExhaustedConnects, retry_loop},
    stuck::{Leak, LocalListener, Unanswered, close_wait_leak, no_answer},
    time_wait::{Closed, Reuse, time_wait_at_one_destination},
    *,
};
use crate::model::{
    device::Device,
    headroom::PortUse,
    reading::{NamespaceReading, ProcessFiles},
    units::{Pid, PortRange, Queues, SocketId},
};

const NETNS: NetnsId = NetnsId(7);
const SECOND: Duration = Duration::from_secs(1);
const RANGE: PortRange = PortRange { low: 40_000, high: 40_999 };

fn process() -> Process {
    Process { pid: Pid(12), comm: "worker".into() }
}

fn remote() -> SocketAddr {
    "10.0.0.9:5432".parse().unwrap()
}

fn ports(used: u32, time_wait: u32) -> PortUse {
    PortUse { range: 1_000, blocked: Some(0), used, time_wait, ..PortUse::default() }
}

#[test]
fn retries_are_a_loop_when_nobody_could_type_them() {
    let tried = |per_second| ExhaustedConnects {
        netns: NETNS,
        local: None,
        remote: remote(),
        process: process(),
        per_second,
        ports: Some(ports(990, 10)),
        own_range: None,
    };
    assert_eq!(retry_loop(&tried(9.0)), None);
    let found = retry_loop(&tried(250.4)).unwrap();
    assert_eq!(found.sentence, "worker (12) retries connect() to 10.0.0.9:5432 without a port left.");
    assert!(found.evidence.contains("250 calls") && found.evidence.contains("1000 of 1000"), "{found:?}");
}

#[test]
fn a_bound_port_here_and_there_is_nothing() {
    let clients = |ports| BoundClients {
        netns: NETNS,
        local_ip: [10, 0, 0, 5].into(),
        device: Device::NONE,
        processes: Vec::new(),
        ports,
        usable: 1_000,
    };
    assert_eq!(bind_before_connect(&clients(0)), None);
    assert_eq!(bind_before_connect(&clients(9)), None);
    let found = bind_before_connect(&clients(10)).unwrap();
    assert_eq!(found.sentence, "Sockets of a process were bound before connect() from 10.0.0.5.");
    assert!(found.remedy.contains("IP_BIND_ADDRESS_NO_PORT"));
    assert_eq!(bind_before_connect(&BoundClients { usable: 0, ..clients(0) }), None, "no ports, none in use");
}

#[test]
fn time_wait_counts_where_it_is_much_and_most_of_all() {
    let found = |time_wait, all| {
        time_wait_at_one_destination(&Closed {
            netns: NETNS,
            local_ip: [10, 0, 0, 5].into(),
            device: Device::NONE,
            remote: remote(),
            ports: ports(5, time_wait),
            time_wait_in_namespace: all,
            reuse: Reuse::WouldHelp(SECOND),
            range: Some(RANGE),
        })
    };
    assert_eq!(found(99, 99), None, "few");
    assert_eq!(found(100, 201), None, "others have more");
    assert!(found(100, 200).unwrap().evidence.starts_with("100 of 1000 ports are in TIME_WAIT, of 200"));
}

#[test]
fn tcp_tw_reuse_is_proposed_only_where_it_would_help() {
    let reuse = |tcp_tw_reuse, tcp_timestamps, is_loopback, stamped| {
        let reading = NamespaceReading { tcp_tw_reuse, tcp_timestamps, ..NamespaceReading::default() };
        Reuse::of(&reading, is_loopback, stamped, 100)
    };
    assert_eq!(reuse(Some(0), Some(1), false, 100), Reuse::WouldHelp(SECOND));
    assert_eq!(reuse(Some(2), Some(1), false, 100), Reuse::WouldHelp(SECOND));
    assert_eq!(reuse(Some(2), Some(1), true, 100), Reuse::IsOn, "loopback under 2");
    assert_eq!(reuse(Some(1), Some(1), false, 100), Reuse::IsOn);
    assert_eq!(reuse(Some(0), Some(0), false, 0), Reuse::NoTimestamps);
    assert_eq!(reuse(Some(0), Some(1), false, 10), Reuse::NoTimestampsOfPeer);
    assert_eq!(reuse(None, Some(1), false, 100), Reuse::Unknown);
    assert_eq!(reuse(Some(1), Some(0), false, 0), Reuse::NoTimestamps, "on, and in vain");
    assert_eq!(reuse(Some(1), Some(1), false, 10), Reuse::NoTimestampsOfPeer, "on, and in vain");
    let delayed = |tcp_tw_reuse, seconds| {
        let delay = Some(Duration::from_secs(seconds));
        let (tcp_tw_reuse, tcp_timestamps) = (Some(tcp_tw_reuse), Some(1));
        let reading =
            NamespaceReading { tcp_tw_reuse, tcp_timestamps, tcp_tw_reuse_delay: delay, ..NamespaceReading::default() };
        Reuse::of(&reading, false, 100, 100)
    };
    assert_eq!(delayed(0, 5), Reuse::WouldHelp(Duration::from_secs(5)));
    for on in [0, 1] {
        assert_eq!(delayed(on, 59), Reuse::TooLate(Duration::from_secs(59)));
    }
    let remedy = |reuse, range| {
        let found = time_wait_at_one_destination(&Closed {
            netns: NETNS,
            local_ip: [10, 0, 0, 5].into(),
            device: Device::NONE,
            remote: remote(),
            ports: ports(0, 500),
            time_wait_in_namespace: 500,
            reuse,
            range: Some(range),
        });
        found.unwrap().remedy
    };
    assert!(remedy(Reuse::WouldHelp(SECOND), RANGE).contains("tcp_tw_reuse=1"));
    assert!(remedy(Reuse::WouldHelp(5 * SECOND), RANGE).contains("older than 5000 ms"));
    for reuse in
        [Reuse::IsOn, Reuse::TooLate(59 * SECOND), Reuse::NoTimestamps, Reuse::NoTimestampsOfPeer, Reuse::Unknown]
    {
        let words = remedy(reuse, RANGE);
        assert!(!words.contains("tcp_tw_reuse") && words.contains("wider"), "{words}");
    }
    let widest = PortRange { low: 1_024, high: 65_535 };
    assert!(!remedy(Reuse::IsOn, widest).contains("wider"), "it is as wide as can be");
}

#[test]
fn a_short_queue_is_found_where_it_matters_with_who_made_it_short() {
    let found = |accept, somaxconn, overflowed: Option<u64>| {
        let queues = Queues { accept, syn: 0, limit: 128, drops: 1_000 };
        let (local, overflowed) = ("0.0.0.0:80".parse().unwrap(), overflowed.map(Duration::from_secs));
        let queue = Queue {
            netns: NETNS,
            id: SocketId(1),
            local,
            device: Device::NONE,
            process: Some(process()),
            queues,
            somaxconn,
            overflows: 7,
            overflowed,
        };
        short_queue(&queue).map(|found| (found.kind, found.remedy))
    };
    assert_eq!(found(0, 128, None), None, "segments were discarded, but nobody waits");
    assert_eq!(found(0, 128, Some(61)), None, "that is over");
    let (capped, own) = (FindingKind::QueueAtSomaxconn, FindingKind::QueueAtBacklog);
    for (accept, overflowed) in [(64, None), (0, Some(60))] {
        let (kind, remedy) = found(accept, 128, overflowed).unwrap();
        assert!(kind == capped && remedy.contains("raise net.core.somaxconn"), "{remedy}");
    }
    assert_eq!(found(128, 64, None), None, "somaxconn was lowered: the backlog decided, and one more fits");
    let (kind, remedy) = found(129, 64, None).unwrap();
    assert!(kind == own && remedy.contains("above 128"), "{remedy}");
    assert_eq!(found(64, 4_096, None), None, "half of what the application chose");
    assert_eq!(found(128, 4_096, None), None, "one more fits");
    for (accept, overflowed) in [(129, None), (0, Some(60))] {
        let (kind, remedy) = found(accept, 4_096, overflowed).unwrap();
        assert!(kind == own && remedy.contains("listen(fd, N)") && !remedy.contains("somaxconn"), "{remedy}");
    }
}

#[test]
fn sockets_that_stay_are_found_from_some_on() {
    let files = ProcessFiles { process: process(), open: 40, soft_limit: Some(1_024), hard_limit: None };
    let leak = |count| {
        let oldest = Duration::from_secs(75);
        close_wait_leak(&Leak { netns: NETNS, process: process(), count, oldest, files: Some(files) })
    };
    assert_eq!(leak(9), None);
    let evidence = leak(10).unwrap().evidence;
    assert_eq!(
        &*evidence,
        "10 sockets stay in CLOSE_WAIT, the oldest for 75 s or longer, 25 % of its 40 open descriptors (limit 1024)"
    );
}

fn unanswered(count: u32, listener: Option<LocalListener>) -> Option<Finding> {
    no_answer(&Unanswered {
        netns: NETNS,
        local_ip: [10, 0, 0, 5].into(),
        device: Device::NONE,
        remote: remote(),
        processes: vec![process()],
        count,
        oldest: Duration::from_secs(7),
        listener,
    })
}

#[test]
fn connections_without_an_answer_are_found_from_some_on() {
    assert_eq!(unanswered(7, None), None);
    assert_eq!(
        &*unanswered(8, None).unwrap().evidence,
        "8 connect() calls of worker (12) from 10.0.0.5 are in SYN_SENT, the oldest for 7 s or longer"
    );
}

#[test]
fn the_remedy_for_a_listener_of_this_host_applies_to_this_host() {
    let at = |accept| {
        let queues = Queues { accept, syn: 0, limit: 8, drops: 0 };
        unanswered(8, Some(LocalListener { process: Some(process()), queues: Some(queues) })).unwrap()
    };
    let full = at(9);
    assert!(full.sentence.ends_with("the accept queue of worker (12) on this host is full."), "{}", full.sentence);
    assert!(
        full.evidence.ends_with("; 9 connections fill the queue (backlog 8, and one more fits)"),
        "{}",
        full.evidence
    );
    assert!(full.remedy.contains("accept()") && !full.remedy.contains("firewall"), "{}", full.remedy);
    let open = at(8);
    assert!(open.sentence.contains("although worker (12) on this host listens"), "{}", open.sentence);
    assert!(open.remedy.contains("firewall rule on this host"), "{}", open.remedy);
    assert!(unanswered(8, None).unwrap().remedy.contains("on the other host"));
}

#[test]
fn connect_is_slow_from_half_of_a_large_range_on_where_it_searches_by_halves() {
    let found = |range, used, blocked, step_width| {
        let ports = PortUse { range, blocked: Some(blocked), used, ..ports(0, 0) };
        let crowded = Crowded {
            netns: NETNS,
            local_ip: [10, 0, 0, 5].into(),
            device: Device::NONE,
            remote: remote(),
            ports,
            step_width,
        };
        slow_connect(&crowded)
    };
    assert_eq!(found(28_232, 13_834, 0, None), None, "49 %");
    let evidence = found(28_232, 14_116, 0, None).unwrap().evidence;
    assert!(evidence.starts_with("14116 of 28232 ports are in use: each call walks some 14116"), "{evidence}");
    assert!(found(28_232, 14_116, 0, Some(0)).is_some(), "the step is off");
    assert_eq!(found(28_232, 14_116, 0, Some(7)), None, "no halves");
    assert_eq!(found(28_232, 0, 14_116, None), None, "bind() takes the other half");
    assert_eq!(found(1_000, 900, 0, None), None, "few ports are walked fast");
    assert_eq!(found(28_232, 28_232, 0, None), None, "it fails: that is another finding");
}

#[test]
fn reserved_ports_are_reported_once_for_a_namespace() {
    assert_eq!(listeners_in_range(NETNS, RANGE, &mut vec![]), None);
    let mut four = [40_003, 40_001, 40_001, 40_002, 40_009].map(|port| (port, None)).to_vec();
    let found = listeners_in_range(NETNS, RANGE, &mut four).unwrap();
    assert_eq!(
        &*found.evidence,
        "40001 a process, 40002 a process, 40003 a process and 1 more in 40000-40999, not reserved"
    );
    assert_eq!(reserved_in_range(NETNS, RANGE, 99), None);
    assert!(reserved_in_range(NETNS, RANGE, 100).is_some());
}
