//! 5,000 connections from before the start, 5,000 more after it, and none at the end.

use std::{collections::BTreeMap, net::TcpStream};

use serde_json::Value;

use crate::support::{
    assert_equals_ss, events_reach_ss, eventually, in_private_netns, inbound, listen, observe, run, set_sysctl, truth,
    wait_for_sockets,
};

/// Counts by state of `observer snapshot --json` and of `ss`, both run here and now.
#[track_caller]
fn assert_snapshot_equals_ss() {
    let json: Value =
        serde_json::from_str(&run(env!("CARGO_BIN_EXE_observer"), &["snapshot", "--own-netns", "--json"])).unwrap();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for endpoint in json["endpoints"].as_array().unwrap() {
        for (state, count) in endpoint["states"].as_object().unwrap() {
            *counted.entry(state.clone()).or_default() += count.as_u64().unwrap();
        }
    }
    let mut shown: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, state), count) in truth() {
        *shown.entry(state.to_owned()).or_default() += u64::from(count);
    }
    shown.remove("listen");
    assert_eq!(counted, shown, "snapshot --json and ss differ");
}

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
        assert_snapshot_equals_ss();
        let after: Vec<_> = (0..5_000).map(connect).collect();
        // Events alone may miss some of a burst (the kernel's recursion guard). Counts must be exact after a scan.
        assert_equals_ss(&mut engine);
        row(&mut engine, 10_000);
        assert_snapshot_equals_ss();
        drop((before, after));
        drop(listener);
        // FIN_WAIT_1 passes: observer and ss would see different numbers.
        wait_for_sockets("fin-wait-1", 0);
        assert_equals_ss(&mut engine);
        events_reach_ss(&mut engine);
        row(&mut engine, 0);
        assert_snapshot_equals_ss();
    });
}
