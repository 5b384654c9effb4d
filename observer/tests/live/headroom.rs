//! The number of ports left is the number of connect()s that get one: predicted, then counted until EADDRNOTAVAIL.
//! Each row of the rule (`__inet_hash_connect`) has its own test. Random scenarios follow, each with a seed.

mod batch;
mod odd_ranges;
mod scenario;
mod stage;

use std::{net::IpAddr, time::Duration};

use self::stage::{Route, Stage, ports, predict, route};
use crate::{
    sockets::{disconnect, local, start_connect},
    support::{eventually, in_private_netns, observe, set_sysctl},
};

const RANGE: (u16, u16) = (20_000, 20_099);
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// The route of most tests.
fn home() -> Route {
    route("127.0.0.1>127.0.0.1:7000")
}

/// Runs `test` on a stage with 100 ephemeral ports, one of them in use towards [`home`].
fn on_stage(test: impl FnOnce(&mut Stage) + Send + 'static) {
    in_private_netns(|| {
        let mut stage = Stage::new(RANGE);
        assert_eq!(stage.open(home(), 1), 1);
        test(&mut stage);
    });
}

/// TIME_WAIT sockets towards [`home`], and one connection.
pub(crate) struct TimeWaits(Stage);

impl TimeWaits {
    pub(crate) fn new(count: usize) -> Self {
        let mut stage = Stage::new(RANGE);
        assert_eq!(stage.open(home(), 1), 1);
        // None takes the port of another: they are all open before the first is closed.
        let clients: Vec<_> = (0..count).map(|_| Stage::connect(home()).unwrap()).collect();
        for client in clients {
            stage.close_into_time_wait(client);
        }
        Self(stage)
    }

    /// Waits until connect() may reuse the ports of all of them.
    pub(crate) fn wait_until_reusable(&self) {
        self.0.wait_until_reusable();
    }

    /// Connects until EADDRNOTAVAIL; returns how many there were.
    pub(crate) fn exhaust(&mut self) -> u32 {
        self.0.exhaust(home())
    }
}

/// Predicts, and connects until there is no port any more.
#[track_caller]
fn assert_left(stage: &mut Stage, route: Route, wanted: u32) {
    let mut engine = observe();
    let predicted = predict(&mut engine, route);
    let got = stage.exhaust(route);
    assert_eq!((predicted, got), (wanted, wanted), "predicted and got towards {route:?}");
    eventually(&mut engine, "none left by events alone", |snapshot| {
        (ports(snapshot, route)?.left() == Some(0)).then_some(())
    });
}

#[test]
fn each_destination_and_each_source_can_use_the_whole_range() {
    on_stage(|stage| {
        for other in
            ["127.0.0.1>127.0.0.1:7001", "127.0.0.2>127.0.0.1:7000", "::1>[::1]:7000", "fd00::1>[fd00::2]:7000"]
        {
            assert_eq!(stage.open(route(other), 1), 1, "{other}");
        }
        assert_left(stage, home(), 99);
        for other in
            ["127.0.0.1>127.0.0.1:7001", "127.0.0.2>127.0.0.1:7000", "::1>[::1]:7000", "fd00::1>[fd00::2]:7000"]
        {
            assert_left(stage, route(other), 99);
        }
    });
}

#[test]
fn ipv6_sockets_with_v4_mapped_addresses_take_the_ports_of_ipv4() {
    on_stage(|stage| {
        stage.open.extend((0..40).map(|_| Stage::connect_as_ipv6(home()).unwrap()));
        assert_left(stage, home(), 59);
    });
}

#[test]
fn clients_whose_port_is_not_seen_yet_are_counted() {
    on_stage(|stage| {
        let silent = route("127.0.0.1>127.0.0.1:7002");
        let mut engine = observe();
        assert_eq!(stage.open(silent, 30), 30);
        eventually(&mut engine, "30 used by events alone", |snapshot| {
            (ports(snapshot, silent)?.left() == Some(70)).then_some(())
        });
        assert_left(stage, silent, 70);
    });
}

#[test]
fn a_bind_without_a_port_number_takes_its_port_from_every_destination() {
    on_stage(|stage| {
        stage.open.extend((0..200).map_while(|_| Stage::bound("127.0.0.2".parse().unwrap(), 0, false, false).ok()));
        assert_left(stage, home(), 0);
    });
}

#[test]
fn bound_sockets_of_any_kind_and_address_block_their_ports() {
    on_stage(|stage| {
        let used = local(&stage.open[0]).port();
        let free = (RANGE.0..=RANGE.1).filter(|port| *port != used).step_by(2).take(40);
        let addresses = ["127.0.0.3", "0.0.0.0", "::", "10.1.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for (n, port) in free.enumerate() {
            let socket = Stage::bound(addresses[n % addresses.len()], port, n % 3 == 1, n % 3 == 2).unwrap();
            match n % 4 {
                0 => socket.listen(1).unwrap(),
                1 if n % addresses.len() == 0 => start_connect(&socket, home().to).unwrap(),
                _ => {}
            }
            stage.open.push(socket);
        }
        assert_left(stage, home(), 59);
    });
}

#[test]
fn a_port_bound_by_number_stays_blocked_after_its_connection() {
    on_stage(|stage| {
        let used = local(&stage.open[0]).port();
        let mut engine = observe();
        for port in (RANGE.0..=RANGE.1).filter(|port| *port != used).take(12) {
            let socket = Stage::bound(LOCALHOST, port, false, false).unwrap();
            match port % 3 {
                // Nobody listens there.
                0 => drop(socket.connect(&"127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap().into())),
                1 => {
                    start_connect(&socket, home().to).unwrap();
                    disconnect(&socket).unwrap();
                }
                _ => {
                    socket.listen(1).unwrap();
                    socket.shutdown(std::net::Shutdown::Read).unwrap();
                }
            }
            stage.open.push(socket);
        }
        eventually(&mut engine, "12 blocked by events alone", |snapshot| {
            (ports(snapshot, home())?.blocked == Some(12)).then_some(())
        });
        assert_left(stage, home(), 87);
    });
}

#[test]
fn an_accepted_connection_of_a_closed_listener_keeps_the_port() {
    on_stage(|stage| {
        let used = local(&stage.open[0]).port();
        let port = (RANGE.0..=RANGE.1).find(|port| *port != used).unwrap();
        let listener = Stage::bound(LOCALHOST, port, false, false).unwrap();
        listener.listen(1).unwrap();
        stage.open.push(Stage::connect(route(&format!("127.0.0.1>127.0.0.1:{port}"))).unwrap());
        stage.open.push(listener.accept().unwrap().0);
        drop(listener);
        assert_left(stage, home(), 98);
    });
}

/// Up to 6.17 a bind bucket that ever was explicit stays so until its last socket is gone; since 6.18 it is set free
/// with its last explicit one. connect() shows which of the two this kernel does, and the prediction must agree.
#[test]
fn a_closed_binder_on_a_port_in_use_counts_as_in_the_kernel() {
    on_stage(|stage| {
        let other = route("127.0.0.1>127.0.0.1:7001");
        stage.open(other, 50);
        let shared: Vec<u16> = stage.open[1..].iter().map(|socket| local(socket).port()).collect();
        let binders: Vec<_> = shared
            .iter()
            .filter_map(|port| Stage::bound("127.0.0.3".parse().unwrap(), *port, true, false).ok())
            .collect();
        assert_eq!(binders.len(), 50);
        drop(binders);
        let predicted = predict(&mut observe(), home());
        assert_eq!(stage.exhaust(home()), predicted);
        let shared_with_home = shared.contains(&local(&stage.open[0]).port());
        assert!([99, 49 + u32::from(shared_with_home)].contains(&predicted), "{predicted} left");
    });
}

#[test]
fn reserved_ports_do_not_count_whether_bound_or_not() {
    on_stage(|stage| {
        set_sysctl("ipv4/ip_local_reserved_ports", "20010-20039,21000");
        let used = local(&stage.open[0]).port();
        stage.open.push(Stage::bound(LOCALHOST, if used == 20_010 { 20_011 } else { 20_010 }, false, false).unwrap());
        assert_left(stage, home(), 70 - u32::from(!(20_010..=20_039).contains(&used)));
    });
}

#[test]
fn ranges_of_any_size_are_counted_to_the_last_port() {
    // The kernel never tries the highest of three ports. It tries the last of 101 by chance, or if it is the only one.
    for (size, least, most, edges) in [(1, 1, 1, 0), (2, 2, 2, 0), (3, 2, 2, 1), (20, 20, 20, 0), (101, 100, 101, 0)] {
        in_private_netns(move || {
            let mut stage = Stage::new((20_000, 20_099));
            stage.open(home(), 1);
            stage.set_range((30_000, 30_000 + size - 1));
            let mut engine = observe();
            let left = predict(&mut engine, home());
            let at_most = ports(&engine.snapshot(usize::MAX), home()).unwrap().left_at_most();
            assert_eq!((left, at_most), (least, most), "of {size}");
            let got = stage.exhaust(home());
            assert!((least..=most).contains(&got), "{got} of {size}");
            assert_eq!(got + stage.exhaust_edges(home()), most + edges, "of {size}");
        });
    }
}

#[test]
fn a_sockets_own_range_takes_ports_like_any_other() {
    on_stage(|stage| {
        let within = |_| Stage::connect_within(home(), 20_050, 20_069)?.ok();
        let own: Vec<_> = (0..30).map_while(within).collect();
        let taken = own.len();
        stage.open.extend(own);
        assert_left(stage, home(), 99 - u32::try_from(taken).unwrap());
    });
}

/// `count` TIME_WAIT sockets towards `route`.
fn time_waits(stage: &mut Stage, route: Route, count: usize) {
    let clients: Vec<_> = (0..count).map(|_| Stage::connect(route).unwrap()).collect();
    for client in clients {
        stage.close_into_time_wait(client);
    }
}

#[test]
fn old_time_wait_sockets_are_reused_as_tcp_tw_reuse_allows() {
    // How many of 40 are not to be had: on 127.0.0.1, and between other addresses.
    for (tw_reuse, on_loopback, elsewhere) in [("0", 40, 40), ("1", 0, 0), ("2", 0, 40)] {
        on_stage(move |stage| {
            set_sysctl("ipv4/tcp_tw_reuse", tw_reuse);
            let far = route("10.1.0.1>10.1.0.2:7000");
            time_waits(stage, home(), 40);
            time_waits(stage, far, 40);
            stage.wait_until_reusable();
            assert_left(stage, home(), 99 - on_loopback);
            assert_left(stage, far, 100 - elsewhere);
        });
    }
}

#[test]
fn young_time_wait_sockets_are_not_reused_and_become_reusable_without_a_scan() {
    on_stage(|stage| {
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        // Before 6.14 the kernel counts ages in whole seconds: the test must start at one.
        let mut engine = observe();
        Stage::start_with_a_second();
        time_waits(stage, home(), 40);
        engine.scan().unwrap();
        let young = ports(&engine.snapshot(usize::MAX), home()).unwrap();
        // A machine that is busy enough has some of them a second old by now.
        let reusable = young.time_wait_reusable;
        assert_eq!((young.time_wait, young.left()), (40 - reusable, Some(59 + reusable)));
        assert!(young.time_wait > 0, "none is younger than a second: {young:?}");
        let reusable_at = eventually(&mut engine, "40 reusable", |snapshot| {
            let ports = ports(snapshot, home())?;
            ((ports.time_wait, ports.time_wait_reusable, ports.left()) == (0, 40, Some(99))).then_some(snapshot.uptime)
        });
        // The clock of an emulated kernel lags by some ticks: on 7.3 it refused 24 of them right then.
        eventually(&mut engine, "a tenth of a second later", |snapshot| {
            (snapshot.uptime > reusable_at + Duration::from_millis(100)).then_some(())
        });
        assert_eq!(stage.exhaust(home()), 99);
        eventually(&mut engine, "all reused", |snapshot| {
            let ports = ports(snapshot, home())?;
            ((ports.used, ports.time_wait_reusable, ports.left()) == (100, 0, Some(0))).then_some(())
        });
    });
}

#[test]
fn without_timestamps_no_time_wait_socket_is_reused() {
    on_stage(|stage| {
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        set_sysctl("ipv4/tcp_timestamps", "0");
        time_waits(stage, home(), 40);
        stage.wait_until_reusable();
        assert_left(stage, home(), 59);
    });
}

#[test]
fn fin_wait_2_is_not_reused() {
    on_stage(|stage| {
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        for _ in 0..40 {
            let client = Stage::connect(home()).unwrap();
            stage.close_into_fin_wait_2(client);
        }
        assert_left(stage, home(), 59);
    });
}

#[test]
fn time_wait_blocks_its_destination_alone_unless_the_port_was_bound_by_number() {
    on_stage(|stage| {
        let other = route("127.0.0.1>127.0.0.1:7001");
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        time_waits(stage, other, 20);
        assert_left(stage, home(), 99);
        stage.reset_last(99);
        let used = local(&stage.open[0]).port();
        let mut bound = 0;
        for port in RANGE.0..=RANGE.1 {
            if port != used
                && let Ok(client) = Stage::bound(LOCALHOST, port, false, false)
            {
                start_connect(&client, other.to).unwrap();
                stage.close_into_time_wait(client);
                bound += 1;
            }
            if bound == 30 {
                break;
            }
        }
        assert_eq!(bound, 30);
        assert_left(stage, home(), 69);
    });
}

#[test]
fn random_scenarios_are_predicted_exactly() {
    batch::run_all();
}
