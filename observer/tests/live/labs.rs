//! The labs of `observer lab` that are small enough for every kernel. A lab compares theory, observer and kernel
//! itself. A refuted claim fails here. tests/labs.rs has the labs with a heavy load, and checks that labs leave nothing
//! behind.

use std::process::Command;

use serde_json::Value;

use crate::{processes::output, support::scaled};

/// Runs a lab to its verdict.
#[track_caller]
pub(crate) fn confirmed(name: &str, scale: Option<u32>) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(["lab", name, "--json"]);
    command.args(scale.into_iter().flat_map(|scale| ["--scale".to_owned(), scale.to_string()]));
    let output = output(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((report["verdict"].as_str(), report["observed"].as_bool()), (Some("confirmed"), Some(true)), "{text}");
    report
}

/// The kernel's value of a check of a lab.
#[track_caller]
fn kernel<'a>(report: &'a Value, what: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["what"] == what);
    &check.unwrap_or_else(|| panic!("no {what:?} in {report:#}"))["kernel"]
}

#[test]
fn one_number_of_four_makes_another_connection() {
    let report = confirmed("four-tuple", None);
    assert_eq!(kernel(&report, "connections at the same time"), 5);
    assert_eq!(kernel(&report, "the same four numbers again"), "EADDRNOTAVAIL");
}

#[test]
fn accept_takes_no_port() {
    let ports = scaled(1_000);
    assert_eq!(kernel(&confirmed("accept", Some(ports)), "different local ports in use"), ports + 1);
}

#[test]
fn a_client_ends_at_its_range_for_each_destination() {
    let ports = scaled(2_000);
    let report = confirmed("client-ceiling", Some(ports));
    for what in [
        "connections to the first destination",
        "connections to a second destination",
        "connections from a second address",
    ] {
        assert_eq!(kernel(&report, what), ports, "{what}");
    }
}

#[test]
fn a_port_is_used_for_several_destinations_unless_bind_took_it() {
    let ports = scaled(1_000);
    let report = confirmed("port-reuse", Some(ports));
    assert_eq!(kernel(&report, "connections to three destinations"), 3 * ports);
    assert_eq!(kernel(&report, "local ports that they use"), ports);
}

#[test]
fn time_wait_keeps_ports_from_its_own_destination() {
    let ports = scaled(1_000);
    let report = confirmed("time-wait", Some(ports));
    assert_eq!(kernel(&report, "tcp_tw_reuse=0, same destination"), ports / 2);
    assert_eq!(kernel(&report, "tcp_tw_reuse=0, another destination"), ports);
}

#[test]
fn a_process_ends_at_its_limit_of_descriptors() {
    assert_eq!(kernel(&confirmed("fd-limit", None), "its next socket()"), "EMFILE");
}

#[test]
fn a_full_accept_queue_refuses_nobody() {
    assert_eq!(kernel(&confirmed("backlog", None), "clients in ESTABLISHED"), 5);
}
