//! What is near its limit has series, stays for five minutes, and ends with its row.

use std::time::Duration;

use observer::{
    export::{
        openmetrics::{self, Format},
        series::{Bounds, Kept},
    },
    frame::Frame,
    model::snapshot::DestinationRow,
};

use super::{exposition::Exposition, synthetic};

const LEFT: &str = "observer_destination_ports_left";

fn destination(frame: &mut Frame) -> &mut DestinationRow {
    frame.snapshot.endpoints.iter_mut().find_map(|row| row.destinations.first_mut()).unwrap()
}

fn scrape(frame: &Frame, kept: &mut Kept) -> usize {
    let text = openmetrics::render(frame, Format::OpenMetrics, Bounds::default(), kept);
    Exposition::parse(&String::from_utf8(text).unwrap()).of(LEFT).count()
}

#[test]
fn a_destination_stays_for_five_minutes_after_it_was_near_its_limit() {
    let (mut frame, mut kept) = (synthetic::frame(), Kept::default());
    let start = frame.snapshot.uptime;
    assert_eq!(scrape(&frame, &mut kept), 1, "half of its ports are used");

    let row = destination(&mut frame);
    let ports = row.ports.as_mut().unwrap();
    (ports.used, ports.time_wait) = (1, 0);
    assert_eq!(scrape(&frame, &mut Kept::default()), 0, "a single scrape knows of no other");
    frame.snapshot.uptime = start + Duration::from_secs(299);
    assert_eq!(scrape(&frame, &mut kept), 1);
    frame.snapshot.uptime = start + Duration::from_mins(5);
    assert_eq!(scrape(&frame, &mut kept), 0);
}

#[test]
fn what_is_gone_has_no_series_however_near_it_was() {
    let (mut frame, mut kept) = (synthetic::frame(), Kept::default());
    assert_eq!(scrape(&frame, &mut kept), 1);
    for row in &mut frame.snapshot.endpoints {
        row.destinations.clear();
    }
    assert_eq!(scrape(&frame, &mut kept), 0);
}

#[test]
fn what_could_not_be_read_is_absent() {
    let mut frame = synthetic::frame();
    let before = super::exposition(&frame);
    for name in ["observer_local_ports", "observer_local_ports_blocked", "observer_listen_drops_total", LEFT] {
        assert_eq!(before.of(name).count(), 1, "{name}");
    }
    destination(&mut frame).ports.as_mut().unwrap().blocked = None;
    for row in &mut frame.snapshot.namespaces {
        (row.port_range, row.listen_drops) = (None, None);
    }
    frame.snapshot.quality.losses.missed = None;
    frame.snapshot.quality.last_scan = None;
    frame.snapshot.quality.coverage.oldest = None;
    frame.snapshot.uptime = Duration::from_secs(1);
    for row in &mut frame.snapshot.processes {
        row.files = None;
    }
    let series = super::exposition(&frame);
    for name in [
        "observer_local_ports",
        "observer_local_ports_reserved",
        "observer_local_ports_blocked",
        "observer_destination_ports_left_min",
        "observer_listen_drops_total",
        "observer_last_scan_timestamp_seconds",
        "observer_oldest_scan_timestamp_seconds",
        "observer_scan_duration_seconds",
        "observer_limit_time_to_full_seconds",
        "observer_process_open_files",
        LEFT,
    ] {
        assert_eq!(series.of(name).count(), 0, "{name}");
    }
    assert_eq!(series.get("observer_events_lost_total", &[("reason", "missed_run")]), None);
    assert_eq!(series.of("observer_destination_ports_used").count(), 1, "what is known of it stays");
}
