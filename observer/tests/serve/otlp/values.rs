//! What a collector received is what `/snapshot` and `ss` say.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
};

use serde_json::Value;

use super::super::{
    eventually,
    rotel::{Point, Rotel},
    server::{Server, curl},
};

/// Connections to the test's listener.
const CONNECTIONS: u32 = 7;

fn text(point: &Point, attribute: &str) -> String {
    let value = point.attributes.get(attribute).map_or("", String::as_str);
    value.trim_start_matches("Str(").trim_start_matches("Int(").trim_end_matches(')').to_owned()
}

/// The newest points of a metric in the namespace of the test, by one or two attributes.
fn newest(points: &[Point], name: &str, netns: &str, attributes: &[&str]) -> BTreeMap<Vec<String>, f64> {
    let of = |point: &&Point| point.name == name && text(point, "observer.netns.name") == netns;
    let last = points.iter().filter(of).map(|point| point.time).max();
    let newest = points.iter().filter(of).filter(|point| Some(point.time) == last);
    newest.map(|point| (attributes.iter().map(|it| text(point, it)).collect(), point.value)).collect()
}

/// The same of `/snapshot`. Series have zeros that JSON leaves out.
struct Snapshot {
    states: BTreeMap<Vec<String>, f64>,
    flows: BTreeMap<Vec<String>, f64>,
    listeners: BTreeMap<Vec<String>, f64>,
    netns: String,
}

fn snapshot(socket: &Path, port: u16) -> Snapshot {
    let output = curl(&["-sSf", "--unix-socket", socket.to_str().unwrap(), "http://x/snapshot"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = |name: &str| json[name].as_array().unwrap().clone();
    let endpoint =
        rows("endpoints").into_iter().find(|row| row["local_port"] == port && row["listening"] == true).unwrap();
    let inode = endpoint["netns"].clone();
    let namespace = rows("namespaces").into_iter().find(|row| row["netns"] == inode).unwrap();
    let netns = namespace["netns_name"].as_str().map_or_else(|| inode.to_string(), str::to_owned);
    let (mut states, mut listeners) = (BTreeMap::new(), BTreeMap::new());
    for row in rows("endpoints").iter().filter(|row| row["netns"] == inode) {
        for (state, count) in row["states"].as_object().unwrap() {
            *states.entry(vec![state.clone()]).or_default() += count.as_f64().unwrap();
        }
        if row["listening"] == true {
            listeners.insert(vec![row["local_port"].to_string()], row["sockets"].as_f64().unwrap());
        }
    }
    let flows = rows("flows").into_iter().filter(|row| row["netns"] == inode);
    let flow =
        |row: Value| (vec![row["direction"].as_str().unwrap().to_owned()], row["opened_total"].as_f64().unwrap());
    Snapshot { states, flows: flows.map(flow).collect(), listeners, netns }
}

fn without_zeros(mut counts: BTreeMap<Vec<String>, f64>) -> BTreeMap<Vec<String>, f64> {
    counts.retain(|_, count| *count > 0.5);
    counts
}

/// Sockets by state, without listeners, as `ss` has them.
fn ss() -> BTreeMap<Vec<String>, f64> {
    let output = Command::new("ss").args(["-Htan"]).output().unwrap();
    let mut states = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let state = match line.split_whitespace().next().unwrap() {
            "LISTEN" => continue,
            "ESTAB" => "established".to_owned(),
            "SYN-RECV" => "syn_received".to_owned(),
            other => other.to_lowercase().replace('-', "_"),
        };
        *states.entry(vec![state]).or_default() += 1.0;
    }
    states
}

/// Runs `test` on a thread in a new network namespace with `lo` up, where nobody else is at work.
fn in_private_netns(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| {
        // SAFETY: only this thread's network namespace is split off; no file table is.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("these tests need root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_collector_has_the_numbers_of_the_snapshot_and_of_ss() {
    in_private_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("observer.sock");
        let rotel = Rotel::start();
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{}", rotel.address);
        let listen = format!("unix:{}", socket.display());
        let _server = Server::with(&["--listen", &listen, "--otlp", &url, "--otlp-interval", "1"]);
        let connect = || (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
        let connections: Vec<(TcpStream, TcpStream)> = (0..CONNECTIONS).map(|_| connect()).collect();

        // An export is up to a second older than the snapshot.
        eventually("the collector has what the snapshot and ss say", || {
            let (_, points) = rotel.received(1);
            let Snapshot { states, flows, listeners, netns } = snapshot(&socket, address.port());
            let of = |name, attribute| newest(&points, name, &netns, &[attribute]);
            let received = without_zeros(of("system.network.connection.count", "network.connection.state"));
            let is_equal = received == without_zeros(states)
                && received == ss()
                && of("observer.listener.sockets", "network.local.port") == listeners
                && without_zeros(of("observer.connections.opened", "observer.connection.direction"))
                    == without_zeros(flows);
            (is_equal && received[&vec!["established".to_owned()]] >= f64::from(2 * CONNECTIONS)).then_some(())
        });
        drop(connections);
    });
}

/// `service.instance.id` of an observer that listens on this Unix socket.
fn instance(socket: &Path) -> String {
    instance_on(&format!("unix:{}", socket.display()))
}

fn instance_on(listen: &str) -> String {
    let rotel = Rotel::start();
    let url = format!("http://{}", rotel.address);
    let _server = Server::with(&["--listen", listen, "--otlp", &url, "--otlp-interval", "1"]);
    rotel.received(1).0["service.instance.id"].clone()
}

#[test]
fn an_instance_keeps_its_id_over_restarts_and_shares_it_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = ["one.sock", "other.sock"].map(|name| dir.path().join(name));
    let first = instance(&one);
    let has_machine_id = fs::read_to_string("/etc/machine-id").is_ok_and(|id| id.trim().len() == 32);
    assert_eq!(instance(&one) == first, has_machine_id, "{first}");
    assert_ne!(instance(&other), first);
}

#[test]
fn observers_that_listen_on_one_address_of_two_namespaces_are_two_instances() {
    let (report, reported) = mpsc::channel();
    for _ in 0..2 {
        let report = report.clone();
        in_private_netns(move || {
            let listen = || instance_on("127.0.0.1:28232");
            // While it is open, no other namespace gets its number.
            let namespace = fs::File::open("/proc/thread-self/ns/net").unwrap();
            report.send((namespace, [listen(), listen()])).unwrap();
        });
    }
    let [(_kept, one), (_, other)] = [(); 2].map(|()| reported.recv().unwrap());
    let has_machine_id = fs::read_to_string("/etc/machine-id").is_ok_and(|id| id.trim().len() == 32);
    assert_eq!(one[0] == one[1], has_machine_id, "{one:?} after a restart");
    assert_eq!(other[0] == other[1], has_machine_id, "{other:?} after a restart");
    assert_ne!(one[0], other[0]);
}
