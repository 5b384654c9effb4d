//! System calls that fail: each counted once, by what it returned.

use super::scenario::check;

#[test]
fn a_connect_is_reported_with_what_it_did_not_get() {
    check(
        "calls
         c 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 app
         c 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 7 app unsent
         c refused connect by 7 app
         c 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 app
         c 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 7 app unsent
         c refused connect by 7 app
         d 10.0.0.9:4000>10.0.0.7:1 closed>syn_sent by 8 other
         d syn_sent>closed by 8 other unsent
         d refused connect by 8 other
         e 0.0.0.0:0>10.0.0.7:1 refused connect by 9 third
         show failures",
        "ports_exhausted app/7 2 10.0.0.9>10.0.0.7:1
         four_tuple_in_use other/8 1 10.0.0.9:4000>10.0.0.7:1
         no_source_address third/9 1 0.0.0.0>10.0.0.7:1",
    );
}

#[test]
fn what_ends_in_syn_sent_is_no_failed_connect_by_itself() {
    check(
        "calls
         d 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 deferred
         d 10.0.0.9:4002>10.0.0.7:1 syn_sent>closed by 7 deferred unsent
         d destroyed
         r 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 refused
         r 10.0.0.9:4001>10.0.0.7:1 syn_sent>closed
         b 10.0.0.9:4000>10.0.0.7:1 closed>syn_sent by 8 bound
         b syn_sent>closed by 8 bound unsent
         tick 2
         show failures",
        "",
    );
}

#[test]
fn a_connect_that_is_no_system_call_is_reported_once_it_is_certain() {
    check(
        "calls
         a 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 uring
         a 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 7 uring unsent
         show failures
         a destroyed
         show failures
         b 10.0.0.9:0>10.0.0.7:2 closed>syn_sent by 7 slow
         b 10.0.0.9:0>10.0.0.7:2 syn_sent>closed by 7 slow unsent
         tick 2
         b refused connect by 7 slow
         show failures",
        "ports_exhausted uring/7 1 10.0.0.9>10.0.0.7:1
         ports_exhausted slow/7 1 10.0.0.9>10.0.0.7:2
         ports_exhausted uring/7 1 10.0.0.9>10.0.0.7:1",
    );
}

#[test]
fn without_the_hook_of_calls_what_is_certain_is_reported_at_once() {
    check(
        "a 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 app
         a 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 7 app unsent
         b 10.0.0.9:4000>10.0.0.7:1 closed>syn_sent by 8 other
         b syn_sent>closed by 8 other unsent
         show failures",
        "ports_exhausted app/7 1 10.0.0.9>10.0.0.7:1",
    );
}

#[test]
fn a_failure_within_a_sockets_own_range_counts_that_range_and_not_the_socket() {
    check(
        "calls
         range 40000-40099
         scan
         end
         a 10.0.0.9:40010>10.0.0.7:1 closed>syn_sent by 7 app
         b 10.0.0.9:40011>10.0.0.7:1 closed>syn_sent by 7 app
         c 10.0.0.9:40050>10.0.0.7:1 closed>syn_sent by 7 app
         x 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 app
         x 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 7 app unsent own=40010-40012
         x refused connect by 7 app
         y 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 8 whole
         y 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 8 whole unsent
         y refused connect by 8 whole
         show failures",
        "ports_exhausted app/7 1 10.0.0.9>10.0.0.7:1: 2 of 3
         ports_exhausted whole/8 1 10.0.0.9>10.0.0.7:1: 3 of 100",
    );
}

#[test]
fn the_fd_owner_of_a_port_is_the_one_in_the_way() {
    check(
        "calls
         range 40000-40099
         scan
         end
         l 0.0.0.0:8080>0.0.0.0:0 closed>listen by 9 nginx
         s 10.0.0.9:8080>10.0.0.7:1 syn_received>established
         s accepted established by 10 worker
         n refused bind 10.0.0.9:8080 by 7 second
         show failures
         c 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 11 client
         c 10.0.0.9:40001>10.0.0.7:1 syn_sent>established
         o refused bind 10.0.0.9:40001 by 7 third
         p refused bind 10.0.0.8:40001 by 7 fourth
         tick
         show failures",
        "address_in_use second/7 1 10.0.0.9:8080: nginx (9) listens on it
         address_in_use fourth/7 1 10.0.0.8:40001: no socket on it was seen
         address_in_use second/7 1 10.0.0.9:8080: nginx (9) listens on it
         address_in_use third/7 1 10.0.0.9:40001: client (11) has a connection on it (ESTABLISHED)",
    );
}

#[test]
fn the_next_fd_scan_finds_a_bound_socket() {
    check(
        "calls
         range 40000-40099
         scan
         end
         n refused bind 127.0.0.1:9000 by 7 second
         show failures
         b 127.0.0.1:9000>0.0.0.0:0 refused bind 127.0.0.1:9000 by 7 second
         files
         b owned by 12 owner bound 9000
         files end
         scan
         end
         show failures",
        "address_in_use second/7 1 127.0.0.1:9000: no socket on it was seen
         address_in_use second/7 2 127.0.0.1:9000: owner (12) has bound a socket to it",
    );
}

#[test]
fn a_time_wait_keeps_its_port_until_its_minute_is_over() {
    check(
        "calls
         range 40000-40099
         scan
         end
         tick 10
         c 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 11 client
         c 10.0.0.9:40001>10.0.0.7:1 syn_sent>established
         c established>fin_wait_1
         c fin_wait_1>fin_wait_2
         c fin_wait_2>closed
         c destroyed
         tick 20
         o refused bind 0.0.0.0:40001 by 7 third
         show failures
         tick 50
         show failures",
        "address_in_use third/7 1 0.0.0.0:40001: a connection in TIME_WAIT for 40 s more
         address_in_use third/7 1 0.0.0.0:40001: a connection in TIME_WAIT, over by now",
    );
}

#[test]
fn of_several_that_wait_on_a_port_the_last_one_to_end_is_the_answer() {
    check(
        "calls
         range 40000-40099
         scan
         end
         tick 10
         a 10.0.0.9:40001>10.0.0.7:1 closed>syn_sent by 11 client
         a syn_sent>established
         a established>fin_wait_1
         a fin_wait_1>fin_wait_2
         a fin_wait_2>closed
         a destroyed
         tick 10
         c 10.0.0.9:40001>10.0.0.7:2 closed>syn_sent by 11 client
         c syn_sent>established
         c established>fin_wait_1
         c fin_wait_1>fin_wait_2
         c fin_wait_2>closed
         c destroyed
         tick 3
         o refused bind 10.0.0.9:40001 by 7 third
         tick
         show failures",
        "address_in_use third/7 1 10.0.0.9:40001: a connection in TIME_WAIT for 56 s more",
    );
}

#[test]
fn a_socket_on_another_device_does_not_own_the_port() {
    check(
        "calls
         device 2 veth0
         device 3 veth1
         range 40000-40099
         scan
         end
         l 0.0.0.0:8080>0.0.0.0:0 closed>listen by 9 nginx on 2
         n refused bind 0.0.0.0:8080 by 7 second on 3
         tick
         o refused bind 0.0.0.0:8080 by 7 second on 2
         tick
         p refused bind 0.0.0.0:8080 by 7 second
         show failures",
        "address_in_use second/7 1 0.0.0.0:8080: nginx (9) listens on it
         address_in_use second/7 1 0.0.0.0%veth0:8080: nginx (9) listens on it
         address_in_use second/7 1 0.0.0.0%veth1:8080: no socket on it was seen",
    );
}

#[test]
fn an_orphan_that_owns_a_port_is_called_one() {
    check(
        "calls
         range 40000-40099
         scan
         end
         c 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 11 client
         c 10.0.0.9:40001>10.0.0.7:1 syn_sent>established
         c established>fin_wait_1 orphan
         o refused bind 10.0.0.9:40001 by 7 third
         tick
         show failures",
        "address_in_use third/7 1 10.0.0.9:40001: an orphaned connection in FIN_WAIT_1, finished by the kernel",
    );
}

#[test]
fn ports_of_bound_sockets_count_once_a_scan_has_shown_them() {
    check(
        "calls
         range 40000-40001
         scan
         end
         x 10.0.0.9:0>10.0.0.7:1 closed>syn_sent by 7 app
         x 10.0.0.9:0>10.0.0.7:1 syn_sent>closed by 7 app unsent
         x refused connect by 7 app
         show failures
         files
         a owned by 12 owner bound 40000
         b owned by 12 owner bound 40001
         files end
         scan
         end
         tick
         show failures",
        "ports_exhausted app/7 1 10.0.0.9>10.0.0.7:1: 0 of 2
         ports_exhausted app/7 1 10.0.0.9>10.0.0.7:1: 2 of 2",
    );
}
