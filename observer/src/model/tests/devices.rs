//! Sockets that are bound to a device, VRFs, and ranges of odd size.

use super::scenario::check;
use crate::model::units::PortRange;

#[test]
fn two_links_with_the_same_addresses_are_two_destinations() {
    check(
        "device 2 eth0
         range 40000-40009
         scan
         a [fe80::1]:40000>[fe80::2]:80 found established autobound on 2
         b [fe80::1]:40000>[fe80::2]:80 found established autobound on 3
         c [fe80::1]:40001>[fe80::2]:80 found established autobound on 3
         end
         show ports
         show",
        "fe80::1%3>[fe80::2]:80 10 range - 0 reserved - 0 blocked - 2 used - 0 time_wait = 8 left, 0 reused
         fe80::1%eth0>[fe80::2]:80 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused
         out fe80::1%3 sockets 2 (established 2) opened 0 closed 0 failed 0
           [fe80::2]:80 sockets 2 ports 2+0 of 10
         out fe80::1%eth0 sockets 1 (established 1) opened 0 closed 0 failed 0
           [fe80::2]:80 sockets 1 ports 1+0 of 10
         3 sockets 3 connections opened 0 closed 0 failed 0 drift 0+0-0",
    );
}

#[test]
fn a_device_shares_four_tuples_with_sockets_that_are_bound_to_none() {
    check(
        "device 2 eth0
         range 40000-40009
         reuse 1 1000
         scan
         a 10.0.0.5:40000>10.0.0.9:80 found established autobound
         b 10.0.0.5:40001>10.0.0.9:80 found tw:time_wait:0 autobound
         c 10.0.0.5:40000>10.0.0.9:80 found established autobound on 2
         d 10.0.0.5:40002>10.0.0.9:80 found established autobound on 2
         e 10.0.0.7:40003>0.0.0.0:0 found listen explicit locked on 2
         end
         show ports
         a established>closed
         wait 1500
         show ports",
        "10.0.0.5>10.0.0.9:80 10 range - 0 reserved - 1 blocked - 1 used - 1 time_wait = 7 left, 0 reused
         10.0.0.5%eth0>10.0.0.9:80 10 range - 0 reserved - 1 blocked - 2 used - 1 time_wait = 6 left, 0 reused
         10.0.0.5%eth0>10.0.0.9:80 10 range - 0 reserved - 1 blocked - 2 used - 0 time_wait = 7 left, 1 reused
         10.0.0.5>10.0.0.9:80 10 range - 0 reserved - 1 blocked - 0 used - 0 time_wait = 9 left, 1 reused",
    );
}

#[test]
fn a_vrf_has_its_ports_for_itself() {
    let sockets = "range 40000-40009
         scan
         a 10.0.0.5:40000>10.0.0.9:80 found established autobound
         b 10.0.0.5:40001>10.0.0.9:80 found established autobound on 9
         c 10.0.0.5:40002>10.0.0.9:80 found established autobound on 3
         d 10.0.0.5:40002>10.0.0.9:80 found established autobound on 9
         l 0.0.0.0:40007>0.0.0.0:0 found listen explicit locked on 9
         m 0.0.0.0:40008>0.0.0.0:0 found listen explicit locked
         n 0.0.0.0:40009>0.0.0.0:0 found listen explicit locked
         end
         show ports";
    check(
        &format!("device 3 eth1 of 9\n device 9 red of 9\n {sockets}"),
        "10.0.0.5%red>10.0.0.9:80 10 range - 0 reserved - 1 blocked - 2 used - 0 time_wait = 7 left, 0 reused
         10.0.0.5>10.0.0.9:80 10 range - 0 reserved - 2 blocked - 1 used - 0 time_wait = 7 left, 0 reused
         10.0.0.5%eth1>10.0.0.9:80 10 range - 0 reserved - 1 blocked - 2 used - 0 time_wait = 7 left, 0 reused",
    );
    check(
        &format!("device 3 eth1 of 9\n device 9 red of 9\n l3mdev_accept\n {sockets}"),
        "10.0.0.5%red>10.0.0.9:80 10 range - 0 reserved - 3 blocked - 3 used - 0 time_wait = 4 left, 0 reused
         10.0.0.5>10.0.0.9:80 10 range - 0 reserved - 3 blocked - 1 used - 0 time_wait = 6 left, 0 reused
         10.0.0.5%eth1>10.0.0.9:80 10 range - 0 reserved - 3 blocked - 3 used - 0 time_wait = 4 left, 0 reused",
    );
}

#[test]
fn a_socket_that_is_bound_to_a_device_late_goes_to_its_row_and_is_no_new_connection() {
    check(
        "device 2 eth0
         range 40000-40009
         scan
         end
         c 10.0.0.5:0>10.0.0.9:80 closed>syn_sent by 7 app
         c 10.0.0.5:40000>10.0.0.9:80 syn_sent>established
         s 10.0.0.9:80>10.0.0.5:40000 syn_received>established on 2
         c 10.0.0.5:40000>10.0.0.9:80 established>close_wait on 2
         show",
        "in 10.0.0.9%eth0:80 sockets 1 (established 1) opened 1 closed 0 failed 0
         out 10.0.0.5%eth0 sockets 1 (close_wait 1) opened 0 closed 0 failed 0 app/7
           10.0.0.9:80 sockets 1 ports 1+0 of 10
         out 10.0.0.5 sockets 0 opened 1 closed 0 failed 0 app/7
           10.0.0.9:80 sockets 0 ports 0+0 of 10
         2 sockets 1 connections opened 2 closed 0 failed 0 drift 0+0-0",
    );
}

/// `__inet_hash_connect` looks at an even number of ports.
#[test]
fn in_a_range_of_odd_size_the_last_port_is_left_by_chance() {
    let take = |ports: &[u16]| {
        let found =
            ports.iter().map(|port| format!("s{port} 10.0.0.5:{port}>10.0.0.9:81 found established autobound\n"));
        found.collect::<String>()
    };
    let check = |range: &str, ports: &[u16], expected: &str| {
        check(
            &format!("range {range}\nscan\n{}end\nshow ports", take(ports)),
            &format!("10.0.0.5>10.0.0.9:81 {expected}"),
        );
    };
    let range = "40000-40004";
    check(range, &[40_002], "5 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 3-4 left, 0 reused");
    check(range, &[40_000], "5 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 3-4 left, 0 reused");
    check(range, &[40_000, 40_004], "5 range - 0 reserved - 0 blocked - 2 used - 0 time_wait = 3 left, 0 reused");
    let reserved = "40000-40004 reserved 40004-40004";
    check(reserved, &[40_000], "5 range - 1 reserved - 0 blocked - 1 used - 0 time_wait = 3 left, 0 reused");
    check(
        "40000-40002",
        &[40_000],
        "3 range - 0 reserved - 1 passed over - 0 blocked - 1 used - 0 time_wait = 1 left, 0 reused",
    );
    check(
        "40000-40002 reserved 40001-40002",
        &[40_000],
        "3 range - 2 reserved - 0 blocked - 1 used - 0 time_wait = 0 left, 0 reused",
    );
    check("40000-40000", &[40_001], "1 range - 0 reserved - 0 blocked - 0 used - 0 time_wait = 1 left, 0 reused");
    check("40000-40003", &[40_001], "4 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 3 left, 0 reused");
}

#[test]
fn of_an_odd_number_of_ports_all_but_one_are_certain() {
    let found = |size: u16| PortRange { low: 40_000, high: 40_000 + size - 1 }.found();
    assert_eq!([1, 2, 3, 4, 5, 101].map(found), [(1, 1), (2, 2), (2, 2), (4, 4), (4, 5), (100, 101)]);
}

#[test]
fn what_others_have_chosen_unseen_may_be_shared() {
    check(
        "device 2 eth0
         range 40000-40009
         scan
         end
         a 10.0.0.5:0>10.0.0.9:80 closed>syn_sent by 7 app
         b 10.0.0.5:40000>10.0.0.9:80 found syn_sent autobound on 2
         c 10.0.0.5:0>10.0.0.9:80 closed>syn_sent by 7 app on 2
         show ports",
        "10.0.0.5%eth0>10.0.0.9:80 10 range - 0 reserved - 0 blocked - 2 used - 0 time_wait = 7-8 left, 0 reused
         10.0.0.5>10.0.0.9:80 10 range - 0 reserved - 0 blocked - 1 used - 0 time_wait = 9 left, 0 reused",
    );
}
