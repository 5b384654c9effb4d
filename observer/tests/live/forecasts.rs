//! Forecasts of real connections that come and go.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use observer::{engine::Engine, model::limit::LimitKind};

use crate::{
    ss::sockets_in,
    support::{in_private_netns, listen, options, set_sysctl},
};

#[test]
fn a_steady_rate_of_closes_that_levels_off_has_no_forecast() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40999");
        set_sysctl("ipv4/tcp_tw_reuse", "0");
        let listener = listen("127.0.0.1:7000", 128);
        let mut engine = Engine::start(options()).unwrap();
        let (began, mut closed) = (Instant::now(), 0);
        let mut has_rate = false;
        // 12 a second: 720 in a minute.
        while began.elapsed() < Duration::from_secs(25) {
            engine.poll().unwrap();
            while closed < began.elapsed().as_millis() * 12 / 1_000 {
                let client = TcpStream::connect("127.0.0.1:7000").unwrap();
                let accepted = listener.accept().unwrap();
                drop(client);
                drop(accepted);
                closed += 1;
            }
            let snapshot = engine.snapshot(1);
            for limit in snapshot.limits.iter().filter(|limit| limit.kind == LimitKind::Ports) {
                assert_eq!(limit.time_to_full(), None, "{limit:?}");
                has_rate |= limit.turnover.is_some_and(|turnover| (10.0..14.0).contains(&turnover.entering));
            }
            std::thread::yield_now();
        }
        assert!(has_rate, "the rate of closes was not seen: {:?}", engine.snapshot(1).limits);
        // The kernel has them all, and so has the model.
        let in_kernel = sockets_in("time-wait") as u64;
        let limit = engine.snapshot(1).limits.into_iter().find(|limit| limit.kind == LimitKind::Ports).unwrap();
        assert!(limit.used.abs_diff(in_kernel) <= 24, "{in_kernel} TIME_WAITs, {limit:?}");
    });
}
