//! Every series has the number that `snapshot --json` has for the same frame.

use std::collections::{BTreeMap, BTreeSet};

use observer::model::limit::SLOPE_NEEDS;
use serde_json::Value;

use super::{
    exposition::{Exposition, Key, key},
    programs::printed,
    recordings,
};

const STATES: [&str; 9] = [
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "close_wait",
    "last_ack",
    "closing",
];

/// Series of processes: JSON has those that the list of limits names.
const PROCESSES: [&str; 2] = ["observer_process_open_files", "observer_process_open_files_limit"];

/// The series that JSON asks for.
struct Expected<'a> {
    json: &'a Value,
    series: BTreeMap<Key, f64>,
}

fn rows<'a>(json: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    json[name].as_array().unwrap().iter()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

impl Expected<'_> {
    fn set(&mut self, name: &str, labels: &[(&str, &str)], number: f64) {
        self.series.insert(key(name, labels), number);
    }

    fn add(&mut self, name: &str, labels: &[(&str, &str)], number: f64) {
        *self.series.entry(key(name, labels)).or_default() += number;
    }

    fn keep(&mut self, name: &str, labels: &[(&str, &str)], number: f64, choose: fn(f64, f64) -> f64) {
        let known = self.series.entry(key(name, labels)).or_insert(number);
        *known = choose(*known, number);
    }

    fn netns(&self, netns: &Value) -> String {
        let row = rows(self.json, "namespaces").find(|row| row["netns"] == *netns);
        row.and_then(|row| row["netns_name"].as_str()).map_or_else(|| netns.to_string(), str::to_owned)
    }

    fn quality(&mut self) {
        let quality = &self.json["quality"];
        for hook in quality["hooks"].as_array().unwrap() {
            let method = hook["method"].as_str().unwrap_or("none");
            self.set("observer_hook_info", &[("hook", hook["hook"].as_str().unwrap()), ("method", method)], 1.0);
        }
        for row in quality["capabilities"].as_array().unwrap() {
            let held = f64::from(u8::from(row["holding"] == "held"));
            self.set("observer_capability_held", &[("capability", row["capability"].as_str().unwrap())], held);
        }
        self.set("observer_events_total", &[], number(&quality["events_total"]));
        let lost = quality["lost"].as_object().unwrap();
        let sum: f64 = lost.values().map(number).sum();
        assert!((sum - number(&quality["lost_total"])).abs() < 0.1, "{quality}");
        for (reason, count) in lost {
            self.set("observer_events_lost_total", &[("reason", reason)], number(count));
        }
        if let Some(missed) = quality["missed_total"].as_f64() {
            self.set("observer_events_lost_total", &[("reason", "missed_run")], missed);
        }
        self.set("observer_scans_total", &[], number(&quality["scans_total"]));
        self.set("observer_drift_sockets_total", &[], number(&quality["drift_total"]));
        let cost = &quality["cost"];
        if cost.is_object() {
            self.set("observer_cost_ratio", &[], number(&cost["ratio"]));
            self.set("observer_hooks_suspended", &[], f64::from(u8::from(cost["is_suspended"] == true)));
            self.set("observer_hook_suspensions_total", &[], number(&cost["suspensions_total"]));
            self.set("observer_events_skipped_total", &[], number(&cost["skipped_events_total"]));
        }
        for (name, field) in [
            ("observer_last_scan_timestamp_seconds", "last_scan_at"),
            ("observer_oldest_scan_timestamp_seconds", "oldest_scan_at"),
        ] {
            let ended: jiff::Timestamp = quality[field].as_str().unwrap().parse().unwrap();
            self.set(name, &[], ended.as_duration().as_secs_f64());
        }
        self.set("observer_scan_duration_seconds", &[], number(&quality["last_scan_seconds"]));
    }

    fn limits(&mut self) {
        for limit in rows(self.json, "limits").filter(|limit| limit["ratio"].is_f64()) {
            let label = [("limit", limit["kind"].as_str().unwrap())];
            self.keep("observer_limit_used_ratio", &label, number(&limit["ratio"]), f64::max);
            // Over less no slope is known.
            if number(&self.json["uptime_seconds"]) >= SLOPE_NEEDS.as_secs_f64() {
                let time = limit["seconds_to_full"].as_f64().unwrap_or(f64::INFINITY);
                self.keep("observer_limit_time_to_full_seconds", &label, time, f64::min);
            }
        }
        let queues = rows(self.json, "limits").filter(|limit| limit["kind"] == "accept_queue");
        for limit in queues.filter(|limit| limit["ratio"].as_f64().is_some_and(|ratio| ratio >= 0.8)) {
            let (netns, port) = (self.netns(&limit["netns"]), limit["local_port"].to_string());
            let address = limit["local_ip"].as_str().unwrap();
            let labels = [("netns", &*netns), ("local_address", address), ("local_port", &port)];
            self.set("observer_listener_accept_queue_length", &labels, number(&limit["used"]));
            self.set("observer_listener_accept_queue_limit", &labels, number(&limit["maximum"]));
        }
    }

    fn namespaces(&mut self) {
        for row in rows(self.json, "namespaces") {
            let netns = self.netns(&row["netns"]);
            let own = [("netns", &*netns)];
            let labels = info(&netns, row);
            let labels: Vec<_> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
            self.set("observer_netns_info", &labels, 1.0);
            for state in STATES {
                self.add("observer_sockets", &[own[0], ("state", state)], 0.0);
            }
            for direction in ["inbound", "outbound"] {
                for event in ["opened", "closed", "failed"] {
                    let name = format!("observer_connections_{event}_total");
                    self.add(&name, &[own[0], ("direction", direction)], 0.0);
                }
            }
            // The failures hook of each recording is attached.
            let exhausted = [own[0], ("failure", "ports_exhausted"), ("errno", "EADDRNOTAVAIL")];
            self.add("observer_failures_total", &exhausted, 0.0);
            if let Some(range) = row["port_range"].as_array() {
                self.set("observer_local_ports", &own, number(&range[1]) - number(&range[0]) + 1.0);
                self.set("observer_local_ports_reserved", &own, number(&row["reserved_ports"]));
                if let Some(blocked) = row["blocked_ports"].as_f64() {
                    self.set("observer_local_ports_blocked", &own, blocked);
                }
            }
            if let Some(drops) = row["listen_drops_total"].as_f64() {
                self.set("observer_listen_drops_total", &own, drops);
            }
        }
        for row in rows(self.json, "flows") {
            let netns = self.netns(&row["netns"]);
            let labels = [("netns", &*netns), ("direction", row["direction"].as_str().unwrap())];
            for (event, field) in [("opened", "opened_total"), ("closed", "closed_total"), ("failed", "unopened_total")]
            {
                self.set(&format!("observer_connections_{event}_total"), &labels, number(&row[field]));
            }
        }
        for row in rows(self.json, "failure_counts") {
            let (netns, kind) = (self.netns(&row["netns"]), row["kind"].as_str().unwrap());
            let mut labels = vec![("netns", &*netns), ("failure", kind)];
            labels.extend(row["errno"].as_str().map(|errno| ("errno", errno)));
            self.set("observer_failures_total", &labels, number(&row["count"]));
        }
    }

    fn endpoints(&mut self) {
        for row in rows(self.json, "endpoints") {
            let netns = self.netns(&row["netns"]);
            let address = row["local_ip"].as_str().unwrap();
            for (state, count) in row["states"].as_object().unwrap() {
                self.add("observer_sockets", &[("netns", &netns), ("state", state)], number(count));
            }
            if row["listening"] == true {
                let port = row["local_port"].to_string();
                let labels = [("netns", &*netns), ("local_address", address), ("local_port", &port)];
                self.set("observer_listener_sockets", &labels, number(&row["sockets"]));
            }
            for destination in row["destinations"].as_array().into_iter().flatten() {
                self.destination(&netns, address, destination);
            }
        }
    }

    fn destination(&mut self, netns: &str, address: &str, row: &Value) {
        let ports = &row["ports"];
        if !ports.is_object() {
            return;
        }
        let usable = number(&ports["range"]) - number(&ports["reserved"]) - number(&ports["passed_over"]);
        let ratio = (usable - number(&ports["left_at_most"])) / usable;
        let own = [("netns", netns)];
        self.keep("observer_destination_ports_used_ratio_max", &own, ratio, f64::max);
        if let Some(left) = ports["left"].as_f64() {
            self.keep("observer_destination_ports_left_min", &own, left, f64::min);
        }
        if ports["level"] == "ok" {
            return;
        }
        let (peer, port) = (row["remote_ip"].as_str().unwrap(), row["remote_port"].to_string());
        let labels =
            [("netns", netns), ("local_address", address), ("peer_address", peer), ("peer_port", port.as_str())];
        for part in ["left", "used", "time_wait"] {
            if let Some(count) = ports[part].as_f64() {
                self.set(&format!("observer_destination_ports_{part}"), &labels, count);
            }
        }
    }
}

/// The labels of a namespace's info.
fn info(netns: &str, row: &Value) -> Vec<(&'static str, String)> {
    let service = &row["service"];
    let parts = match service["kind"].as_str() {
        None => vec![],
        Some("unit") => vec![("unit", &service["unit"])],
        Some("pod") => {
            let runtime = ("runtime", &service["container"]["runtime"]);
            vec![("pod_namespace", &service["pod"]["namespace"]), ("pod", &service["pod"]["name"]), runtime]
        }
        Some("container") => vec![("container", &service["label"]), ("runtime", &service["container"]["runtime"])],
        Some("machine") => vec![("container", &service["machine"])],
        Some(other) => panic!("{other} names no namespace"),
    };
    let parts = parts.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
    [("netns", netns.to_owned()), ("inode", row["netns"].to_string())].into_iter().chain(parts).collect()
}

fn expected(json: &Value, found: &Exposition) -> BTreeMap<Key, f64> {
    let mut expected = Expected { json, series: BTreeMap::new() };
    expected.set("observer_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    expected.quality();
    expected.limits();
    expected.namespaces();
    expected.endpoints();
    for kind in found.values("observer_findings", "finding") {
        expected.set("observer_findings", &[("finding", &kind)], 0.0);
    }
    for finding in rows(json, "findings") {
        expected.add("observer_findings", &[("finding", finding["kind"].as_str().unwrap())], 1.0);
    }
    for metric in found.values("observer_series_left_out", "metric") {
        expected.set("observer_series_left_out", &[("metric", &metric)], 0.0);
    }
    expected.series
}

/// Each process of the list of limits is as near to its limit as the series of its name, or less near.
fn assert_processes(json: &Value, series: &Exposition) -> usize {
    let mut exact = 0;
    for limit in rows(json, "limits").filter(|limit| limit["kind"] == "process_files") {
        let comm = limit["process"]["comm"].as_str().unwrap();
        let of_comm = |name| -> Vec<f64> {
            series.of(name).filter(|(labels, _)| labels["comm"] == comm).map(|(_, number)| number).collect()
        };
        let (open, most) = (of_comm(PROCESSES[0]), of_comm(PROCESSES[1]));
        assert_eq!(open.len(), most.len(), "{comm}");
        let fullest = open.iter().zip(&most).map(|(open, most)| open / most).fold(0.0, f64::max);
        assert!(number(&limit["ratio"]) <= fullest, "{comm}: {limit}");
        exact += usize::from(open.contains(&number(&limit["used"])) && most.contains(&number(&limit["maximum"])));
    }
    exact
}

fn compare(args: &[&str]) -> BTreeSet<String> {
    let json: Value = serde_json::from_str(&printed([args, &["--json"]].concat())).unwrap();
    let found = Exposition::parse(&printed([args, &["--openmetrics"]].concat()));
    assert!(assert_processes(&json, &found) > 0, "{args:?}: no process is in both");
    let expected = expected(&json, &found);
    let without_processes = || found.series.iter().filter(|((name, _), _)| !PROCESSES.contains(&name.as_str()));
    for (key, number) in without_processes() {
        let expected = expected.get(key).unwrap_or_else(|| panic!("{args:?}: JSON does not have {key:?}"));
        // serde_json reads the last digit of some numbers wrong.
        let is_equal = expected.to_bits() == number.to_bits() || (expected - number).abs() <= expected.abs() * 1e-12;
        assert!(is_equal, "{args:?}: {key:?} is {number}, JSON has {expected}");
    }
    let missing: Vec<&Key> = expected.keys().filter(|key| !found.series.contains_key(*key)).collect();
    assert!(missing.is_empty(), "{args:?}: no series for {missing:?}");
    found.series.into_keys().map(|(name, _)| name).collect()
}

#[test]
fn every_number_is_that_of_json() {
    let mut names = BTreeSet::new();
    for file in recordings() {
        names.extend(compare(&["snapshot", "--recording", file.to_str().unwrap()]));
    }
    for name in ["observer_destination_ports_left", "observer_listener_accept_queue_length", "observer_failures_total"]
    {
        assert!(names.contains(name), "no recording has {name}: this proves little");
    }
}
