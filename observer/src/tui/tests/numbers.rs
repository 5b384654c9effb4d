//! Numbers, durations, addresses and names.

use std::{
    net::Ipv6Addr,
    time::{Duration, SystemTime},
};

use super::fixture::{arc, busy, destination, inbound, outbound, text, ui};
use crate::{
    frame::Frame,
    model::{
        Model,
        device::Device,
        history::History,
        snapshot::{Host, ProcessFiles},
        units::{Comm, Pid, Process},
    },
    present::{Cell, format, sparkline::sparkline},
    tui::{message::Message, screen_name::ScreenName, ui::update},
};

#[test]
fn counts_have_thousands_separators() {
    for (value, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (65_536, "65,536"), (1_234_567, "1,234,567")] {
        assert_eq!(format::count(value), expected);
    }
    assert_eq!(format::count(u64::MAX), "18,446,744,073,709,551,615");
}

#[test]
fn counts_are_exact_as_long_as_there_is_room() {
    assert_eq!(format::count_within(999_999, 7), "999,999");
    assert_eq!(format::count_within(1_234_567, 7), "1234567");
    assert_eq!(format::count_within(12_345_678, 7), "12.3M");
    assert_eq!(format::count_within(123_456, 5), "123k");
    assert_eq!(format::count_within(12_345, 5), "12345");
    assert_eq!(format::count_within(4_294_967_295, 5), "4.2G");
}

#[test]
fn rates_have_a_decimal_below_ten() {
    for (value, expected) in [(0.0, "0"), (0.5, "0.5"), (9.94, "9.9"), (9.96, "10"), (1_204.4, "1,204")] {
        assert_eq!(format::rate(value), expected);
    }
}

#[test]
fn durations_have_two_units_at_most() {
    for (millis, expected) in [
        (0, "0.0 s"),
        (450, "0.4 s"),
        (12_345, "12 s"),
        (61_000, "1 min 01 s"),
        (3_725_000, "1 h 02 min"),
        (90_000_000, "1 d 01 h"),
    ] {
        assert_eq!(format::duration(Duration::from_millis(millis)), expected);
    }
    assert_eq!(format::forecast(Duration::from_secs(124)), "2 min");
    assert_eq!(format::forecast(Duration::from_millis(450)), "0.4 s");
    assert_eq!(format::took(Duration::from_micros(300)), "<1 ms");
    assert_eq!(format::took(Duration::from_millis(17)), "17 ms");
    assert_eq!(format::took(Duration::from_millis(1_250)), "1.2 s");
}

#[test]
fn only_full_is_100_percent() {
    assert_eq!(format::percent(0.999), "99 %");
    assert_eq!(format::percent(1.0), "100 %");
    assert_eq!(format::percent(0.0), "0 %");
}

#[test]
fn addresses_and_ports_are_distinguished() {
    assert_eq!(format::address([10, 0, 0, 5].into(), Some(80), Device::NONE), "10.0.0.5:80");
    assert_eq!(format::address([10, 0, 0, 5].into(), None, Device::NONE), "10.0.0.5:*");
    assert_eq!(format::address(Ipv6Addr::LOCALHOST.into(), Some(80), Device::NONE), "[::1]:80");
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into();
    assert_eq!(format::address(link_local, Some(80), Device::new(7)), "[fe80::1%7]:80");
    let eth0 = Device::new(7).named("eth\u{200e}0".into());
    assert_eq!(format::address([10, 0, 0, 5].into(), None, eth0), "10.0.0.5%eth?0:*");
}

#[test]
fn a_long_address_keeps_its_port() {
    let long = "[2001:db8:1234:5678:9abc:def0:1:80]:443";
    assert_eq!(format::cut_middle(long, 20), "[2001:db8:123…0]:443");
    assert_eq!(format::cut_middle(long, 100), long);
    assert_eq!(format::cut_end("load-generator", 8), "load-ge…");
    assert_eq!(format::cut_end("日本語", 4), "日…");
    assert_eq!(format::cut_end("abc", 0), "");
}

#[test]
fn an_outbound_row_says_where_it_goes_if_there_is_room() {
    let mut row = outbound([10, 0, 0, 5], &[]);
    assert_eq!(Cell::Endpoint(&row).text(30), "10.0.0.5:*");
    row.destinations = vec![destination("10.0.0.9:5432", 1, 0)];
    row.destination_count = 1;
    assert_eq!(Cell::Endpoint(&row).text(30), "10.0.0.5 → 10.0.0.9:5432");
    row.destination_count = 1_200;
    assert_eq!(Cell::Endpoint(&row).text(30), "10.0.0.5 → 1,200 destinations");
    assert_eq!(Cell::Endpoint(&row).text(18), "10.0.0.5:*");
}

#[test]
fn a_listener_without_sockets_says_so() {
    assert_eq!(text(&ui(80, 24), &busy()).matches("LISTEN").count(), 1);
}

#[test]
fn a_minute_is_drawn_whole_and_against_its_own_top() {
    let ramp: History = (1..=60).collect();
    assert_eq!(sparkline(&ramp, 8), "▁▂▃▄▅▆▇█");
    assert_eq!(sparkline(&ramp, 60).chars().count(), 60);
    let quiet: History = [0, 0, 5].into_iter().collect();
    assert_eq!(sparkline(&quiet, 60), "  █");
    assert_eq!(sparkline(&History::new(), 8), "");
    assert_eq!(sparkline(&[u32::MAX; 60].into_iter().collect(), 4), "████");
}

#[test]
fn names_from_outside_cannot_speak_to_the_terminal() {
    assert_eq!(format::printable("\u{1b}[2J\nabc\u{202e}\u{200b}"), "?[2J?abc??");
    let mut data = busy();
    data.snapshot.host.kernel = "6.1\u{1b}]0;title\u{7}".to_owned();
    data.snapshot.quality.hooks[0].method = None;
    data.snapshot.quality.hooks[0].failed = vec![crate::model::quality::FailedMethod {
        method: crate::model::quality::AttachMethod::RawTracepoint,
        because: "no\r\u{1b}[31m".to_owned(),
    }];
    let mut row = inbound([1, 2, 3, 4], 5, &[]);
    let comm = Comm::new(*b"a\x1b[31m\n\x07\xff\xe2\x80\xaez\0\0\0");
    row.process = Some(crate::model::units::Process { comm, pid: crate::model::units::Pid(1) });
    data.snapshot.host.processes[0].process.comm = comm;
    data.snapshot.endpoints.push(row);
    for (width, height) in [(60, 18), (80, 24), (160, 50)] {
        let text = text(&ui(width, height), &data);
        assert!(text.contains("a?[31m?"), "{text}");
        assert!(!text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text}");
    }
}

#[test]
fn a_process_is_as_full_in_every_panel() {
    let process = Process { pid: Pid(812), comm: "server".into() };
    let of = |open| {
        // What it was allowed is more than the kernel allows by now.
        let files = ProcessFiles { process, open, soft_limit: Some(1 << 20), hard_limit: Some(1 << 20) };
        let mut model = Model::default();
        model.set_host(Host { nr_open: Some(1_000), processes: vec![files], ..Host::default() });
        Frame::from(model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 1))
    };
    let rows = |data: &Frame, screen: ScreenName| {
        let mut ui = ui(160, 50);
        update(&mut ui, &arc(data.clone()), Message::Show(screen));
        text(&ui, data)
    };
    for (open, percent, word) in
        [(600, "60 %", None), (850, "85 %", Some("warning")), (1_000, "100 %", Some("exhausted"))]
    {
        let data = of(open);
        let main = rows(&data, ScreenName::Endpoints);
        // The gauge of the headroom, and the line of the limits.
        assert_eq!(main.matches(percent).count(), 2, "{main}");
        assert_eq!(word.map(|word| main.matches(word).count()), word.map(|_| 2), "{main}");
        assert!(!main.contains("notice") && main.contains("1,000 open files"), "{main}");
        let [processes, limits] = [ScreenName::Processes, ScreenName::Limits].map(|screen| rows(&data, screen));
        assert!(processes.contains(percent) && limits.contains(percent), "{processes}\n{limits}");
    }
}
