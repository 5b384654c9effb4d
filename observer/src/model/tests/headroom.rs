//! Ports left, from events and scans.

use super::scenario::check;

#[test]
fn what_is_left_is_not_known_before_the_first_scan() {
    check(
        "range 40000-40009
         c 10.0.0.5:40000>10.0.0.9:81 closed>syn_sent by 7 app
         show ports
         scan
         c found established autobound
         end
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - ? blocked - 1 used - 0 time_wait = ? left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn explicit_binds_block_their_ports_for_everybody_while_they_last() {
    check(
        "range 40000-40009 reserved 40009-40009
         scan
         l 0.0.0.0:40001>0.0.0.0:0 found listen explicit
         s 10.0.0.5:40001>10.0.0.9:999 found established explicit
         c 10.0.0.5:40000>10.0.0.9:81 found established autobound
         b 10.0.0.6:40002>10.0.0.9:82 found established explicit locked
         t 10.0.0.6:40003>10.0.0.9:82 found tw:time_wait explicit
         r 10.0.0.6:40009>10.0.0.9:82 found established explicit
         end
         show ports
         l 0.0.0.0:40001>0.0.0.0:0 listen>closed
         s established>closed
         b 10.0.0.6:0>10.0.0.9:82 established>closed
         show ports",
        "10.0.0.6>10.0.0.9:82 10 range - 1 reserved - 3 blocked - 0 used - 0 time_wait = 6 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 1 reserved - 3 blocked - 1 used - 0 time_wait = 5 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 1 reserved - 1 blocked - 1 used - 0 time_wait = 7 left, 0 reused
         10.0.0.6>10.0.0.9:82 10 range - 1 reserved - 1 blocked - 0 used - 0 time_wait = 8 left, 0 reused",
    );
}

#[test]
fn a_port_that_a_client_has_counts_once_when_it_is_bound_elsewhere_too() {
    check(
        "range 40000-40009
         scan
         end
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         l 10.0.0.6:40000>0.0.0.0:0 closed>listen by 3 nginx explicit
         show ports
         l listen>closed
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

/// A client whose port is bound elsewhere too, until that binder is gone.
const BINDER_GONE: &str = "range 40000-40009
     scan
     l 10.0.0.6:40000>0.0.0.0:0 found listen explicit
     c 10.0.0.5:40000>10.0.0.9:81 found established explicit CHOSEN
     end
     show ports
     l listen>closed
     show ports";

#[test]
fn since_6_18_a_port_is_set_free_with_its_last_binder() {
    check(
        &BINDER_GONE.replace("CHOSEN", "chosen"),
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn before_6_18_a_port_stays_blocked_until_its_last_client_is_gone_or_a_scan_knows_better() {
    check(
        &format!("before 6.18\n{}", BINDER_GONE.replace("CHOSEN", "")),
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused",
    );
    // Here the binder came and went between two scans.
    check(
        "before 6.18
         range 40000-40009
         scan
         end
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         d 10.0.0.5:40001>10.0.0.9:81 syn_sent>established
         l 10.0.0.6:40000>0.0.0.0:0 closed>listen by 3 nginx explicit
         m 10.0.0.6:40001>0.0.0.0:0 closed>listen by 3 nginx explicit
         l listen>closed
         m listen>closed
         show ports
         c established>closed
         show ports
         scan
         d found established autobound
         end
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 2 blocked - 0 used - 0 time_wait = 8 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn a_client_that_was_bound_by_name_keeps_its_port_until_it_is_destroyed() {
    check(
        "range 40000-40009
         scan
         end
         o 10.0.0.5:40009>10.0.0.9:81 syn_sent>established
         c 10.0.0.5:40000>10.0.0.9:81 closed>syn_sent by 7 app explicit
         c syn_sent>established
         show ports
         c established>closed explicit
         show ports
         c destroyed
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 1 used - 0 time_wait = 8 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 1 used - 0 time_wait = 8 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn fd_scans_find_and_miss_bound_sockets() {
    check(
        "range 40000-40009
         scan
         c 10.0.0.5:40000>10.0.0.9:81 found established autobound
         end
         files
         b owned by 7 app bound 40005
         b owned by 8 child bound 40005
         d owned by 7 app bound 40006
         e owned by 7 app bound 40007
         files end
         show ports
         b 10.0.0.5:40005>10.0.0.9:82 closed>syn_sent by 7 app explicit
         d destroyed
         show ports
         files
         files end
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 3 blocked - 1 used - 0 time_wait = 6 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 2 blocked - 1 used - 0 time_wait = 7 left, 0 reused
         10.0.0.5>10.0.0.9:82 10 range - 0 reserved - 2 blocked - 0 used - 0 time_wait = 8 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 1 used - 0 time_wait = 8 left, 0 reused
         10.0.0.5>10.0.0.9:82 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn a_port_that_connect_has_chosen_unseen_is_counted() {
    check(
        "range 40000-40009
         scan
         end
         c 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 app
         show ports
         c 10.0.0.5:40004>10.0.0.9:81 syn_sent>established
         show ports
         d 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 app
         d syn_sent>closed
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

/// The first TIME_WAIT socket has no timestamps, the last one still waits for its peer.
const FOUR_WAITING: &str = "scan
     a 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait autobound
     b 10.0.0.5:40001>10.0.0.9:81 found tw:time_wait:1900 autobound
     c 10.0.0.5:40002>10.0.0.9:81 found tw:time_wait:3200 autobound
     d 10.0.0.5:40003>10.0.0.9:81 found tw:fin_wait_2:1900 autobound
     end";

#[test]
fn since_6_14_a_time_wait_socket_is_reused_when_it_is_older_than_the_delay() {
    check(
        &format!(
            "range 40000-40009
             reuse 1 1000
             wait 2900
             {FOUR_WAITING}
             show ports
             wait 1
             show ports
             wait 1299
             show ports
             wait 1
             show ports"
        ),
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 3 time_wait = 6 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 2 time_wait = 7 left, 1 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 2 time_wait = 7 left, 1 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 1 time_wait = 8 left, 2 reused",
    );
}

#[test]
fn before_6_14_a_time_wait_socket_is_reused_from_the_next_whole_second_on() {
    check(
        &format!(
            "range 40000-40009
             reuse 1
             wait 3300
             {FOUR_WAITING}
             show ports
             wait 699
             show ports
             wait 1
             show ports"
        ),
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 2 time_wait = 7 left, 1 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 2 time_wait = 7 left, 1 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 1 time_wait = 8 left, 2 reused",
    );
}

#[test]
fn reuse_2_is_for_loopback_and_a_change_of_the_rule_is_followed() {
    check(
        "range 40000-40009
         reuse 2 1000
         wait 9000
         scan
         a 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait:1000 autobound
         b 127.0.0.1:40000>127.0.0.1:81 found tw:time_wait:1000 autobound
         c [::1]:40000>[::1]:81 found tw:time_wait:1000 autobound
         end
         show ports
         reuse 0 1000
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused
         127.0.0.1>127.0.0.1:81 10 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 10 left, 1 reused
         ::1>[::1]:81 10 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 10 left, 1 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused
         127.0.0.1>127.0.0.1:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused
         ::1>[::1]:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn a_connection_takes_over_the_time_wait_socket_of_its_four_tuple_and_leaves_one() {
    check(
        "range 40000-40009
         reuse 1 1000
         scan
         a 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait:0 autobound
         end
         wait 2000
         show ports
         c 10.0.0.5:0>10.0.0.9:81 closed>syn_sent by 7 app
         c 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         show ports
         c fin_wait_2>closed timestamps
         show ports
         wait 1001
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 10 left, 1 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 10 left, 1 reused",
    );
}

#[test]
fn a_connect_from_a_bound_port_that_finds_its_four_tuple_in_use_leaves_the_time_wait_socket() {
    check(
        "range 40000-40009
         reuse 1 1000
         scan
         a 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait explicit
         end
         c 10.0.0.5:40000>10.0.0.9:81 closed>syn_sent by 7 app explicit
         c syn_sent>closed explicit
         c destroyed
         show ports
         d 10.0.0.5:40000>10.0.0.9:81 closed>syn_sent by 7 app explicit
         d syn_sent>established
         d established>closed
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 10 left, 0 reused",
    );
}

#[test]
fn a_wait_for_a_peer_of_this_host_ends_with_the_peer() {
    check(
        "range 40000-40009
         reuse 2 1000
         scan
         s 127.0.0.1:81>127.0.0.1:40000 found close_wait explicit
         c 127.0.0.1:40000>127.0.0.1:81 found fin_wait_1 autobound orphan
         end
         c fin_wait_1>fin_wait_2 orphan
         c fin_wait_2>closed timestamps
         show ports
         s close_wait>last_ack
         s last_ack>closed
         show ports
         wait 1001
         show ports",
        "127.0.0.1>127.0.0.1:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused
         127.0.0.1>127.0.0.1:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused
         127.0.0.1>127.0.0.1:81 10 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 10 left, 1 reused",
    );
}

#[test]
fn a_time_wait_socket_that_a_scan_does_not_find_any_more_is_gone() {
    check(
        "range 40000-40009
         scan
         a 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait autobound
         b 10.0.0.5:40001>10.0.0.9:81 found tw:time_wait autobound
         end
         scan
         b found tw:time_wait autobound
         abandon
         show ports
         scan
         b found tw:time_wait autobound
         c 10.0.0.5:40002>10.0.0.9:81 fin_wait_2>closed
         end
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 2 time_wait = 8 left, 0 reused
         10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 0 used - 1 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn a_scan_that_shows_what_was_there_before_a_connection_does_not_count_it_twice() {
    check(
        "range 40000-40009
         reuse 1 1000
         wait 5000
         scan
         end
         scan
         a 10.0.0.5:40000>10.0.0.9:81 syn_sent>established
         t 10.0.0.5:40000>10.0.0.9:81 found tw:time_wait:100 autobound
         end
         show ports",
        "10.0.0.5>10.0.0.9:81 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}

#[test]
fn a_port_that_connect_chose_is_no_bind_before_connect_whoever_else_is_on_it() {
    check(
        "range 40000-40009
         scan
         l 10.0.0.6:40000>0.0.0.0:0 found listen explicit
         c 10.0.0.5:40000>10.0.0.9:81 found established explicit chosen
         d 10.0.0.5:40001>10.0.0.9:81 found established explicit
         end
         show findings",
        "bind_before_connect: 1 of 10 ports are in use via bind(): connect() skips these for every destination",
    );
}
