//! Scenarios: events as text in, rows as text out.

mod calls;
mod devices;
mod findings;
mod flows;
mod forecast;
mod headroom;
mod listen_drops;
mod losses;
mod namespaces;
mod owners;
mod property;
mod restart;
mod scenario;
mod services;

use std::time::Duration;

use super::{
    device::Device,
    event::{Event, Identity},
    service::CgroupId,
    units::{FourTuple, NetnsId, SocketId, TcpState},
};
use scenario::check;

/// The socket `10.0.0.5:443` > `10.0.0.9:<n>`, whose id is `n` too.
fn socket(netns: u32, n: u64, cgroup: Option<CgroupId>) -> Identity {
    let tuple = FourTuple {
        local_ip: [10, 0, 0, 5].into(),
        local_port: 443,
        remote_ip: [10, 0, 0, 9].into(),
        remote_port: u16::try_from(n).unwrap(),
    };
    Identity { id: SocketId(n), netns: NetnsId(netns), tuple, device: Device::NONE, cgroup }
}

/// A change of its state.
fn change(socket: Identity, at: Duration, old: TcpState, new: TcpState) -> Event {
    Event::change(socket, at, old, new, None)
}

#[test]
fn a_connection_from_first_event_to_end_on_both_sides() {
    check(
        "range 32768-60999
         l 0.0.0.0:80>0.0.0.0:0 closed>listen by 9 nginx
         c 127.0.0.1:0>127.0.0.1:80 closed>syn_sent by 7 curl
         s 127.0.0.1:80>127.0.0.1:40000 syn_received>established
         c 127.0.0.1:40000>127.0.0.1:80 syn_sent>established
         show
         c established>fin_wait_1
         s established>close_wait
         c fin_wait_1>fin_wait_2
         c 127.0.0.1:0>127.0.0.1:80 fin_wait_2>closed
         s close_wait>last_ack
         s 127.0.0.1:0>127.0.0.1:40000 last_ack>closed
         c destroyed
         s destroyed
         show",
        "in 127.0.0.1:80 sockets 1 (established 1) opened 1 closed 0 failed 0 nginx/9
         out 127.0.0.1 sockets 1 (established 1) opened 1 closed 0 failed 0 curl/7
           127.0.0.1:80 sockets 1 ports 1+0 of 28232
         in 0.0.0.0:80 listening sockets 0 opened 0 closed 0 failed 0 nginx/9
         2 sockets 1 connections opened 2 closed 0 failed 0 drift 0+0-0
         out 127.0.0.1 sockets 0 (time_wait 1) opened 1 closed 1 failed 0 curl/7
           127.0.0.1:80 sockets 0 ports 0+1 of 28232
         in 0.0.0.0:80 listening sockets 0 opened 0 closed 0 failed 0 nginx/9
         in 127.0.0.1:80 sockets 0 opened 1 closed 1 failed 0 nginx/9
         0 sockets 0 connections opened 2 closed 2 failed 0 drift 0+0-0",
    );
}

#[test]
fn what_a_closing_socket_leaves_behind_is_modelled_until_the_next_scan_counts_it() {
    check(
        "range 32768-60999
         scan
         end
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         d 10.0.0.5:40001>10.0.0.9:81 syn_sent>established
         c established>fin_wait_1
         c fin_wait_1>fin_wait_2 orphan
         c fin_wait_2>closed
         d established>fin_wait_1
         d fin_wait_1>closing
         d closing>closed
         show
         scan
         t 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait autobound
         end
         show",
        "out 10.0.0.5 sockets 0 (fin_wait_2 1 time_wait 1) opened 2 closed 2 failed 0
           10.0.0.9:81 sockets 0 ports 1+1 of 28232
         0 sockets 0 connections opened 2 closed 2 failed 0 drift 0+0-0
         out 10.0.0.5 sockets 0 (time_wait 1) opened 2 closed 2 failed 0
           10.0.0.9:81 sockets 0 ports 0+1 of 28232
         0 sockets 0 connections opened 2 closed 2 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_refused_connection_fails_and_is_not_counted_as_closed() {
    check(
        "c 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 curl
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>closed
         show",
        "out 10.0.0.5 sockets 0 opened 0 closed 0 failed 1 curl/7
           10.0.0.9:81 sockets 0
         0 sockets 0 connections opened 0 closed 0 failed 1 drift 0+0-0",
    );
}

#[test]
fn one_socket_connects_again_after_a_failure() {
    check(
        "c 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 curl
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>closed
         c 10.0.0.5:0>10.0.0.9:82 closed>syn_sent by 7 curl
         c 10.0.0.5:40001>10.0.0.9:82 syn_sent>established
         tick
         show",
        "out 10.0.0.5 sockets 1 (established 1) opened 1 closed 0 failed 1 curl/7
           10.0.0.9:82 sockets 1
         1 sockets 1 connections opened 1 closed 0 failed 1 drift 0+0-0",
    );
}

#[test]
fn a_lost_close_is_made_good_by_the_next_connect_of_the_same_socket() {
    check(
        "c 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 curl
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         c 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 curl
         show",
        "out 10.0.0.5 sockets 1 (syn_sent 1) opened 1 closed 1 failed 0 curl/7
           10.0.0.9:81 sockets 1
         1 sockets 1 connections opened 1 closed 1 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_lost_close_is_made_good_by_the_end_of_the_socket() {
    check(
        "scan
         end
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         c destroyed
         show",
        "out 10.0.0.5 sockets 0 opened 1 closed 1 failed 0
           10.0.0.9:81 sockets 0
         0 sockets 0 connections opened 1 closed 1 failed 0 drift 0+0-0",
    );
}

#[test]
fn what_was_there_before_is_found_by_the_first_scan_and_is_no_drift() {
    check(
        "range 32768-60999
         scan
         l 10.0.0.9:443>0.0.0.0:0 found listen
         s 10.0.0.9:443>10.0.0.5:50000 found established explicit
         c 10.0.0.9:40000>10.0.0.7:5432 found established autobound
         b 10.0.0.9:50001>10.0.0.7:5432 found established explicit locked
         end
         files
         l owned by 3 nginx
         c owned by 4 app
         files end
         show",
        "out 10.0.0.9 sockets 2 (established 2) opened 0 closed 0 failed 0 app/4
           10.0.0.7:5432 sockets 2 ports 1+0 of 28232
         in 10.0.0.9:443 listening sockets 1 (established 1) opened 0 closed 0 failed 0 nginx/3
         3 sockets 3 connections opened 0 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_later_scan_adds_removes_and_corrects_and_calls_it_drift() {
    check(
        "scan
         end
         a 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         b 10.0.0.5:40001>10.0.0.9:81 syn_sent>established
         scan
         b 10.0.0.5:40001>10.0.0.9:81 found close_wait
         n 10.0.0.5:40002>10.0.0.9:81 found established autobound
         end
         show",
        "out 10.0.0.5 sockets 2 (established 1 close_wait 1) opened 3 closed 1 failed 0
           10.0.0.9:81 sockets 2
         2 sockets 2 connections opened 3 closed 1 failed 0 drift 1+1-1",
    );
}

#[test]
fn what_an_event_touched_since_the_scan_began_is_not_swept() {
    check(
        "scan
         end
         a 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         scan
         b 10.0.0.5:40001>10.0.0.9:81 syn_sent>established
         a established>close_wait
         end
         show",
        "out 10.0.0.5 sockets 2 (established 1 close_wait 1) opened 2 closed 0 failed 0
           10.0.0.9:81 sockets 2
         2 sockets 2 connections opened 2 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn an_unfinished_scan_sweeps_nothing() {
    check(
        "scan
         a 10.0.0.5:40000>10.0.0.9:81 found established autobound
         end
         scan
         abandon
         show",
        "out 10.0.0.5 sockets 1 (established 1) opened 0 closed 0 failed 0
           10.0.0.9:81 sockets 1
         1 sockets 1 connections opened 0 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn time_wait_and_requests_count_apart_and_keep_ports() {
    check(
        "range 32768-60999 reserved 40000-40009
         scan
         l 10.0.0.5:80>0.0.0.0:0 found listen
         t 10.0.0.5:50000>10.0.0.9:81 found tw:time_wait autobound
         u 10.0.0.5:50001>10.0.0.9:81 found tw:time_wait autobound
         f 10.0.0.5:50002>10.0.0.9:81 found tw:fin_wait_2 autobound
         o 10.0.0.5:1024>10.0.0.9:81 found tw:time_wait autobound
         r 10.0.0.5:80>10.0.0.7:999 found request
         end
         show
         scan
         l 10.0.0.5:80>0.0.0.0:0 found listen
         end
         show",
        "out 10.0.0.5 sockets 0 (fin_wait_2 1 time_wait 3) opened 0 closed 0 failed 0
           10.0.0.9:81 sockets 0 ports 1+2 of 28222
         in 10.0.0.5:80 listening sockets 0 (syn_received 1) opened 0 closed 0 failed 0
         0 sockets 0 connections opened 0 closed 0 failed 0 drift 0+0-0
         in 10.0.0.5:80 listening sockets 0 opened 0 closed 0 failed 0
         out 10.0.0.5 sockets 0 opened 0 closed 0 failed 0
           10.0.0.9:81 sockets 0 ports 0+0 of 28222
         0 sockets 0 connections opened 0 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_changed_port_range_is_counted_again() {
    check(
        "scan
         end
         range 32768-60999
         a 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         b 10.0.0.5:50000>10.0.0.9:81 syn_sent>established
         range 45000-45009 reserved 45000-45001
         show
         range 40000-50000
         a 10.0.0.5:0>10.0.0.9:81 established>closed
         show",
        "out 10.0.0.5 sockets 2 (established 2) opened 2 closed 0 failed 0
           10.0.0.9:81 sockets 2 ports 0+0 of 8
         2 sockets 2 connections opened 2 closed 0 failed 0 drift 0+0-0
         out 10.0.0.5 sockets 1 (established 1) opened 2 closed 1 failed 0
           10.0.0.9:81 sockets 1 ports 1+0 of 10001
         1 sockets 1 connections opened 2 closed 1 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_listener_covers_its_children_by_exact_address_before_wildcard() {
    check(
        "w [::]:80>[::]:0 closed>listen by 1 six
         v 0.0.0.0:80>0.0.0.0:0 closed>listen by 2 four
         x 10.0.0.5:80>0.0.0.0:0 closed>listen by 3 exact
         a 10.0.0.5:80>10.0.0.9:1 syn_received>established
         b 10.0.0.6:80>10.0.0.9:2 syn_received>established
         c [fd00::1]:80>[fd00::2]:3 syn_received>established
         v listen>closed
         show",
        "in 10.0.0.5:80 listening sockets 1 (established 1) opened 1 closed 0 failed 0 exact/3
         in 10.0.0.6:80 sockets 1 (established 1) opened 1 closed 0 failed 0 six/1
         in [fd00::1]:80 sockets 1 (established 1) opened 1 closed 0 failed 0 six/1
         in 0.0.0.0:80 sockets 0 opened 0 closed 0 failed 0 six/1
         in [::]:80 listening sockets 0 opened 0 closed 0 failed 0 six/1
         3 sockets 3 connections opened 3 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_socket_connected_to_itself_is_one_connection() {
    check(
        "a 127.0.0.1:0>127.0.0.1:40000 closed>syn_sent by 1 self
         a 127.0.0.1:40000>127.0.0.1:40000 syn_sent>syn_received
         a syn_received>established
         show",
        "out 127.0.0.1 sockets 1 (established 1) opened 1 closed 0 failed 0 self/1
           127.0.0.1:40000 sockets 1
         1 sockets 1 connections opened 1 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_late_word_of_the_accepting_process_does_not_turn_the_state_back() {
    check(
        "a 10.0.0.5:80>10.0.0.9:1 syn_received>established
         a established>close_wait
         a accepted established by 5 worker
         g 10.0.0.5:80>10.0.0.9:2 accepted closed by 5 worker
         show",
        "in 10.0.0.5:80 sockets 1 (close_wait 1) opened 1 closed 0 failed 0 worker/5
         1 sockets 1 connections opened 1 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn the_process_of_a_forgotten_row_and_the_row_itself_go_after_a_minute() {
    check(
        "scan
         end
         a 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         a 10.0.0.5:0>10.0.0.9:81 established>closed
         tick 59
         show
         tick 2
         show",
        "out 10.0.0.5 sockets 0 opened 1 closed 1 failed 0
         0 sockets 0 connections opened 1 closed 1 failed 0 drift 0+0-0
         0 sockets 0 connections opened 1 closed 1 failed 0 drift 0+0-0",
    );
}
