//! The demonstration of the README: 5,000 connections from before the start, 5,000 after it, and none.

use std::net::TcpStream;

use crate::support::{
    assert_equals_ss, events_reach_ss, eventually, in_private_netns, inbound, listen, observe, set_sysctl,
};

#[test]
fn five_thousand_before_and_five_thousand_after_make_ten_thousand() {
    in_private_netns(|| {
        // Connections that wait in the accept queue need no descriptor of the server: one process can hold them all.
        set_sysctl("core/somaxconn", "20000");
        let listener = listen("127.0.0.1:7000", 20_000);
        let connect = |_| TcpStream::connect("127.0.0.1:7000").unwrap();
        let before: Vec<_> = (0..5_000).map(connect).collect();
        let mut engine = observe();
        let row = |engine: &mut observer::engine::Engine, sockets: u32| {
            eventually(engine, &format!("{sockets} on the listener"), |snapshot| {
                inbound(snapshot, "127.0.0.1:7000").filter(|row| row.sockets == sockets).map(drop)
            });
        };
        row(&mut engine, 5_000);
        let after: Vec<_> = (0..5_000).map(connect).collect();
        // Events alone may miss a burst (the kernel's recursion guard): exactness is asked of the scan.
        assert_equals_ss(&mut engine);
        row(&mut engine, 10_000);
        drop((before, after));
        drop(listener);
        assert_equals_ss(&mut engine);
        events_reach_ss(&mut engine);
        row(&mut engine, 0);
    });
}
