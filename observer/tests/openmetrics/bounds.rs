//! Every bound holds, and says what it cut.

use std::collections::BTreeMap;

use observer::{
    export::{
        openmetrics::{self, Format},
        series::{Bounds, Kept},
    },
    frame::Frame,
};

use super::{
    exposition::Exposition,
    synthetic::{self, COMMS, DESTINATIONS, NAMESPACES},
};

const STATES: u32 = 9;
const OTHER: &str = "~other";

fn with_bound(series: usize) -> Exposition {
    let frame = synthetic::large_host();
    let text = openmetrics::render(&frame, Format::OpenMetrics, Bounds { series }, &mut Kept::default());
    Exposition::parse(&String::from_utf8(text).unwrap())
}

/// Series of `name`, without the sum of other namespaces, and those that are left out.
fn own_and_left_out(series: &Exposition, name: &str) -> (f64, f64) {
    let own = series.of(name).filter(|(labels, _)| labels.get("netns").is_none_or(|netns| netns != OTHER)).count();
    (f64::from(u32::try_from(own).unwrap()), series.left_out(name))
}

/// What a host of this size has of each metric.
const ALL: [(&str, u32); 20] = [
    ("observer_netns_info", NAMESPACES),
    ("observer_sockets", NAMESPACES * STATES),
    ("observer_connections_opened_total", NAMESPACES * 2),
    ("observer_connections_closed_total", NAMESPACES * 2),
    ("observer_connections_failed_total", NAMESPACES * 2),
    ("observer_local_ports", NAMESPACES),
    ("observer_local_ports_reserved", NAMESPACES),
    ("observer_local_ports_blocked", NAMESPACES),
    ("observer_destination_ports_left_min", NAMESPACES),
    ("observer_destination_ports_used_ratio_max", NAMESPACES),
    ("observer_failures_total", NAMESPACES * 2),
    ("observer_listen_drops_total", NAMESPACES),
    // From half of the ports on.
    ("observer_destination_ports_left", DESTINATIONS / 2),
    ("observer_destination_ports_used", DESTINATIONS / 2),
    ("observer_destination_ports_time_wait", DESTINATIONS / 2),
    ("observer_listener_accept_queue_length", 16),
    ("observer_listener_accept_queue_limit", 16),
    ("observer_listener_sockets", NAMESPACES),
    ("observer_process_open_files", COMMS),
    ("observer_process_open_files_limit", COMMS),
];

#[test]
fn what_is_left_out_and_what_is_there_add_up() {
    for bound in [5_000, 2_000, 1_000, Bounds::LEAST_SERIES] {
        let series = with_bound(bound);
        assert!(series.len() <= bound, "{} series, the bound is {bound}", series.len());
        for (name, all) in ALL {
            let (own, left_out) = own_and_left_out(&series, name);
            assert_eq!((own + left_out).to_bits(), f64::from(all).to_bits(), "{name} of {bound}: {own} and {left_out}");
        }
    }
}

#[test]
fn every_metric_with_a_bound_says_what_it_cut() {
    let reported = with_bound(5_000).values("observer_series_left_out", "metric");
    assert_eq!(reported, ALL.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn each_kind_of_row_has_its_own_bound() {
    let series = with_bound(5_000);
    for (name, own) in [
        ("observer_netns_info", 128.0),
        ("observer_listen_drops_total", 128.0),
        ("observer_destination_ports_left", 10.0),
        ("observer_listener_accept_queue_limit", 10.0),
        ("observer_listener_sockets", 50.0),
        ("observer_process_open_files", 200.0),
    ] {
        let (found, _) = own_and_left_out(&series, name);
        assert!((found - own).abs() < 0.1, "{name}: {found}");
    }
}

/// Of 300 namespaces one ends, one that has its own series and one that has not.
#[test]
fn counters_of_others_do_not_fall_when_namespaces_end() {
    let (mut frame, mut kept) = (synthetic::large_host(), Kept::default());
    let mut scrape = |frame: &Frame| {
        let text = openmetrics::render(frame, Format::OpenMetrics, Bounds::default(), &mut kept);
        let series = Exposition::parse(&String::from_utf8(text).unwrap()).series;
        let of_others = series.into_iter().filter(|((name, labels), _)| {
            name.ends_with("_total") && labels.get("netns").is_some_and(|netns| netns == OTHER)
        });
        of_others.collect::<BTreeMap<_, _>>()
    };
    let mut before = scrape(&frame);
    assert_eq!(before.len(), 3 * 2 + 2 + 1, "connections, failures and drops: {before:?}");
    for gone in [0, 299] {
        let gone = synthetic::netns(gone);
        frame.snapshot.namespaces.retain(|row| row.netns != gone);
        frame.snapshot.endpoints.retain(|row| row.key.netns != gone);
        frame.snapshot.flows.retain(|row| row.netns != gone);
        frame.snapshot.failure_counts.retain(|row| row.netns != gone);
        frame.snapshot.limits.retain(|limit| limit.scope.netns() != Some(gone));
        frame.snapshot.flows.iter_mut().for_each(|row| row.opened_total += 1);
        let after = scrape(&frame);
        for (key, number) in &before {
            assert!(after[key] >= *number, "{key:?} falls from {number} to {}", after[key]);
        }
        assert_ne!(after, before, "connections are counted on");
        before = after;
    }
}

#[test]
fn sums_over_namespaces_are_those_of_all_of_them() {
    let sockets = f64::from(NAMESPACES * 13 + (0..NAMESPACES).sum::<u32>());
    for bound in [5_000, 2_000, 1_000] {
        let series = with_bound(bound);
        for (name, sum) in [
            ("observer_sockets", sockets),
            ("observer_connections_opened_total", f64::from(NAMESPACES * 2 * 7)),
            ("observer_failures_total", f64::from(NAMESPACES * 2 * 11)),
            ("observer_local_ports", f64::from(NAMESPACES * 28_232)),
        ] {
            assert!((series.sum(name) - sum).abs() < 0.1, "{name} of {bound}: {}", series.sum(name));
        }
        // The fullest destination of all is in the last namespaces, which have no series of their own.
        let fullest = series.get("observer_destination_ports_used_ratio_max", &[("netns", OTHER)]).unwrap();
        assert!(fullest > 0.999, "{fullest}");
        let fewest = series.get("observer_destination_ports_left_min", &[("netns", OTHER)]).unwrap();
        assert!((fewest - 6.0).abs() < 0.1, "28,232 less 4,999 of 5,000 parts: {fewest}");
    }
}
