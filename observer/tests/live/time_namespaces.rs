//! The program in a time namespace: the kernel's stamps are on the clock outside, and so is the age of TIME_WAIT
//! sockets.

use std::process::Command;

use serde_json::Value;

use crate::{
    headroom::TimeWaits,
    processes::output,
    support::{in_private_netns, set_sysctl},
};

/// What the program says of the one destination, with these arguments of unshare(1) before it.
fn ports(unshare: &[&str]) -> Value {
    let program = [env!("CARGO_BIN_EXE_observer"), "snapshot", "--own-netns", "--json"];
    let words: Vec<&str> = unshare.iter().chain(&program).copied().collect();
    let output = output(Command::new(words[0]).args(&words[1..])).unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outbound = json["endpoints"].as_array().unwrap().iter().find(|row| row["direction"] == "outbound");
    outbound.unwrap_or_else(|| panic!("no outbound row in {json:#}"))["destinations"][0]["ports"].clone()
}

/// Without a time namespace, and in ones ahead and behind; of the last, the program itself is still outside.
const PLACES: [&[&str]; 4] = [
    &[],
    &["unshare", "--time", "--monotonic", "100000", "--fork"],
    &["unshare", "--time", "--monotonic", "-2", "--fork"],
    &["unshare", "--time", "--monotonic", "100000"],
];

#[test]
fn young_and_reusable_time_waits_are_the_same_in_every_time_namespace() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        let mut stage = TimeWaits::new(40);
        stage.wait_until_reusable();
        for place in PLACES {
            let ports = ports(place);
            assert_eq!(
                (&ports["time_wait"], &ports["time_wait_reusable"]),
                (&0.into(), &40.into()),
                "{place:?}: {ports}"
            );
            assert_eq!((&ports["left"], &ports["left_at_most"]), (&99.into(), &99.into()), "{place:?}: {ports}");
        }
        assert_eq!(stage.exhaust(), 99);
    });
}

/// Since 6.14 how old they have to be can be set.
#[test]
fn a_young_time_wait_is_young_in_every_time_namespace() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        let has_delay = std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse_delay", "55000").is_ok();
        if !has_delay {
            // They grow too old within a second, whatever is done: mode 0 is what is left to compare.
            set_sysctl("ipv4/tcp_tw_reuse", "0");
        }
        let mut stage = TimeWaits::new(40);
        for place in PLACES {
            let ports = ports(place);
            assert_eq!(
                (&ports["time_wait"], &ports["time_wait_reusable"]),
                (&40.into(), &0.into()),
                "{place:?}: {ports}"
            );
            assert_eq!((&ports["left"], &ports["left_at_most"]), (&59.into(), &59.into()), "{place:?}: {ports}");
        }
        assert_eq!(stage.exhaust(), 59);
    });
}
