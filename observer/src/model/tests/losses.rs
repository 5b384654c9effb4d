//! What is known of sockets whose first event, end or peer was missed.

use std::time::{Duration, SystemTime};

use super::{change, scenario::check, socket};
use crate::model::{
    Model, Unlike,
    cost::{Cost, CpuShare},
    event::Event,
    namespace::NamespaceReading,
    quality::ScanSummary,
    units::{Comm, NetnsId, Pid, Process, SocketId, TcpState},
};

#[test]
fn before_the_first_scan_a_socket_whose_first_event_was_missed_is_left_to_the_scan() {
    check(
        "s 10.0.0.9:7061>10.0.0.5:40000 established>fin_wait_1
         show
         scan
         l 0.0.0.0:7061>0.0.0.0:0 found listen
         s 10.0.0.9:7061>10.0.0.5:40000 found fin_wait_1 explicit
         end
         show",
        "0 sockets 0 connections opened 0 closed 0 failed 0 drift 0+0-0
         in 10.0.0.9:7061 sockets 1 (fin_wait_1 1) opened 0 closed 0 failed 0
         in 0.0.0.0:7061 listening sockets 0 opened 0 closed 0 failed 0
         1 sockets 1 connections opened 0 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_guessed_direction_is_put_right_by_the_next_scan() {
    check(
        "range 32768-60999
         scan
         end
         s 10.0.0.9:7061>10.0.0.5:40000 established>fin_wait_1
         show
         scan
         s found fin_wait_1 explicit
         end
         tick
         show",
        "out 10.0.0.9 sockets 1 (fin_wait_1 1) opened 1 closed 0 failed 0
           10.0.0.5:40000 sockets 1 ports 0+0 of 28232
         1 sockets 1 connections opened 1 closed 0 failed 0 drift 0+0-0
         in 10.0.0.9:7061 sockets 1 (fin_wait_1 1) opened 0 closed 0 failed 0
         out 10.0.0.9 sockets 0 opened 1 closed 0 failed 0
         1 sockets 1 connections opened 1 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn another_connection_under_the_same_address_ends_the_one_whose_end_was_lost() {
    check(
        "scan
         end
         a 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         a 10.0.0.5:80>10.0.0.7:999 syn_received>established
         show",
        "in 10.0.0.5:80 sockets 1 (established 1) opened 1 closed 0 failed 0
         out 10.0.0.5 sockets 0 opened 1 closed 1 failed 0
           10.0.0.9:81 sockets 0
         1 sockets 1 connections opened 2 closed 1 failed 0 drift 0+0-0",
    );
}

#[test]
fn the_word_of_an_accepting_process_that_comes_after_the_end_brings_nothing_back() {
    check(
        "a 10.0.0.5:80>10.0.0.9:1 syn_received>established
         a established>closed
         a accepted established by 5 worker
         show",
        "in 10.0.0.5:80 sockets 0 opened 1 closed 1 failed 0
         0 sockets 0 connections opened 1 closed 1 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_simultaneous_open_whose_beginning_was_lost_is_put_right_by_the_next_scan() {
    check(
        "scan
         end
         a [::1]:34877>[::1]:40001 syn_received>established
         l [::1]:80>[::]:0 closed>listen by 1 server
         b [::1]:80>[::1]:40002 syn_received>established
         scan
         a found established autobound
         l found listen
         b found established explicit
         end
         show",
        "in [::1]:80 listening sockets 1 (established 1) opened 1 closed 0 failed 0 server/1
         out ::1 sockets 1 (established 1) opened 0 closed 0 failed 0
           [::1]:40001 sockets 1
         in [::1]:34877 sockets 0 opened 1 closed 0 failed 0
         2 sockets 2 connections opened 2 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn hooks_that_are_resumed_leave_counts_in_doubt_until_a_scan() {
    let mut model = Model::default();
    let second = Duration::from_secs;
    let scan = |model: &mut Model, at: u64| {
        model.begin_scan(NetnsId(1), second(at));
        model.end_scan(second(at));
        model.end_round(ScanSummary { finished_at: second(at), took: Duration::ZERO, found: 0 });
    };
    let is_unhealed = |model: &mut Model, at: u64| {
        let quality = model.snapshot(SystemTime::UNIX_EPOCH, second(at), 0).quality;
        (quality.is_unhealed(), quality.suspension().is_some())
    };
    let cost = Cost { at_most: CpuShare::from_ratio(0.05), ..Cost::default() };
    scan(&mut model, 1);
    model.set_cost(cost, second(2));
    assert_eq!(is_unhealed(&mut model, 2), (false, false));
    model.set_cost(Cost { is_suspended: true, ..cost }, second(3));
    assert_eq!(is_unhealed(&mut model, 3), (false, true));
    scan(&mut model, 4);
    model.set_cost(cost, second(5));
    assert_eq!(is_unhealed(&mut model, 5), (true, false), "hooks saw nothing since the last scan");
    scan(&mut model, 6);
    assert_eq!(is_unhealed(&mut model, 6), (false, false));
}

#[test]
fn a_namespace_that_counts_show_to_be_unchanged_has_no_more_time_wait_sockets() {
    check(
        "range 32768-60999
         scan
         l 0.0.0.0:80>0.0.0.0:0 found listen
         s 127.0.0.1:80>127.0.0.1:40000 found established explicit
         c 127.0.0.1:40000>127.0.0.1:80 found established
         t 127.0.0.1:40001>127.0.0.1:80 found tw:time_wait
         end
         files
         files end
         show
         unchanged
         tick
         show",
        "out 127.0.0.1 sockets 1 (established 1 time_wait 1) opened 0 closed 0 failed 0
           127.0.0.1:80 sockets 1 ports 1+1 of 28232
         in 127.0.0.1:80 sockets 1 (established 1) opened 0 closed 0 failed 0
         in 0.0.0.0:80 listening sockets 0 opened 0 closed 0 failed 0
         2 sockets 1 connections opened 0 closed 0 failed 0 drift 0+0-0
         in 127.0.0.1:80 sockets 1 (established 1) opened 0 closed 0 failed 0
         out 127.0.0.1 sockets 1 (established 1) opened 0 closed 0 failed 0
           127.0.0.1:80 sockets 1 ports 1+0 of 28232
         in 0.0.0.0:80 listening sockets 0 opened 0 closed 0 failed 0
         2 sockets 1 connections opened 0 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn the_last_scan_is_as_new_as_the_fd_scan_that_showed_nothing_new() {
    let (mut model, seconds) = (Model::default(), Duration::from_secs);
    for netns in [1, 2].map(NetnsId) {
        let established_or_close_wait = Some(0);
        model.set_namespace(netns, NamespaceReading { established_or_close_wait, ..NamespaceReading::default() });
    }
    model.begin_scan(NetnsId(1), seconds(1));
    model.apply(&change(socket(1, 7, None), seconds(1), TcpState::SynReceived, TcpState::Established), seconds(1));
    model.end_scan(seconds(2));
    model.begin_fd_scan(seconds(40));
    model.end_fd_scan(seconds(41));
    // One that was never scanned has nothing that could be unchanged.
    for netns in [1, 2].map(NetnsId) {
        model.end_scan_by_counts(netns, seconds(41));
    }
    let coverage = model.snapshot(SystemTime::UNIX_EPOCH, seconds(41), 0).quality.coverage;
    let oldest = coverage.oldest.unwrap();
    assert_eq!((coverage.namespaces, coverage.scanned), (2, 1));
    assert_eq!((oldest.netns, oldest.began_at, oldest.finished_at), (NetnsId(1), seconds(40), seconds(41)));
    assert_eq!((oldest.found, model.drift()), (1, 0));
}

/// What an fd scan shows of a socket of namespace 1.
fn held(n: u64, state: TcpState) -> Event {
    let by = Process { pid: Pid(9), comm: Comm::from("x") };
    let (id, netns, state) = (SocketId(n), NetnsId(1), Some(state));
    Event::Held { id, netns, by, fd: 3, state, bound: None, cgroup: None }
}

#[test]
fn an_fd_scan_shows_where_the_model_differs_unless_an_event_came_meanwhile() {
    use TcpState::{CloseWait, Closed, Established, Listen, SynReceived};
    let begin = |n| change(socket(1, n, None), Duration::ZERO, SynReceived, Established);
    let closes = |n| change(socket(1, n, None), Duration::ZERO, Established, CloseWait);
    // Of a model that knows 7 and 8, after two fd scans.
    let unlike = |scans: [&[Event]; 2]| {
        let mut model = Model::default();
        for n in [7, 8] {
            model.apply(&begin(n), Duration::ZERO);
        }
        for events in scans {
            model.begin_fd_scan(Duration::ZERO);
            for event in events {
                model.apply(event, Duration::ZERO);
            }
            model.end_fd_scan(Duration::ZERO);
        }
        let all = model.unlike_shown();
        assert!(all.keys().all(|netns| *netns == NetnsId(1)));
        all.get(&NetnsId(1)).copied().unwrap_or_default()
    };
    let none = Unlike::default();
    let (other, hidden) = (Unlike { is_other: true, ..none }, Unlike { hidden: 1, ..none });
    let (seven, eight) = (held(7, Established), held(8, Established));
    for (what, events, expected) in [
        ("both are shown", vec![seven, eight], none),
        ("twice", vec![seven, eight, seven], none),
        ("one is not", vec![seven], hidden),
        ("it changes meanwhile", vec![seven, closes(8)], none),
        ("an unknown one is shown", vec![seven, eight, held(9, Established)], other),
        ("another state", vec![seven, held(8, CloseWait)], Unlike { is_other: true, ..hidden }),
        ("it was looked at before the event", vec![seven, closes(8), eight], none),
        ("one begins meanwhile", vec![seven, eight, begin(9)], none),
        ("others are not compared", vec![seven, eight, held(9, Listen), held(9, Closed)], none),
    ] {
        assert_eq!(unlike([&[seven], &events]), expected, "{what}");
    }
    let missed = Unlike { is_missed: true, ..hidden };
    assert_eq!(unlike([&[seven, eight], &[seven]]), missed, "its process has it no more");
    assert_eq!(unlike([&[seven, eight], &[seven, closes(8)]]), none, "an event came meanwhile");
}
