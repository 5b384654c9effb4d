//! What network namespaces are called: a container before the name of `ip netns`, that before everything else.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use observer::{
    engine::{Engine, EngineOptions, Scans, Watched},
    model::{service::Runtime, units::NetnsId},
};

use crate::{
    runtimes::{Network, Runc, run, unique, wait_until},
    services::Unit,
};

fn netns(path: &str) -> NetnsId {
    NetnsId(u32::try_from(fs::metadata(path).unwrap().ino()).unwrap())
}

/// A namespace of `ip netns`, removed when dropped.
pub(crate) struct Mounted(pub(crate) String);

impl Mounted {
    pub(crate) fn add(what: &str) -> Self {
        let mounted = Self(unique(what));
        run(Command::new("ip").args(["netns", "add", &mounted.0]));
        mounted
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "del", &self.0]));
    }
}

#[test]
fn a_namespace_is_called_by_its_container_then_by_ip_netns() {
    let (blue, red) = (Mounted::add("blue"), Mounted::add("red"));
    let sleep = ["cat", "/dev/zero"];
    let own = Runc::start("own", Network::Own, &sleep);
    let inside = Runc::start("inside", Network::Mounted(&red.path()), &sleep);
    let options = EngineOptions { scans: Scans::OnlyAtStart, watched: Watched::All, ..EngineOptions::default() };
    let snapshot = Engine::start(options).expect("start the engine").snapshot(0);
    let name = |netns: NetnsId| {
        let row = snapshot.namespaces.iter().find(|row| row.netns == netns);
        row.and_then(|row| row.name.as_ref()).map(|name| String::from_utf8_lossy(name.name.as_bytes()).into_owned())
    };
    let of_process = |container: &Runc| netns(&format!("/proc/{}/ns/net", container.pid));
    assert_eq!(name(of_process(&own)), Some(own.id.clone()));
    assert_eq!(of_process(&inside), netns(&red.path()));
    assert_eq!(name(netns(&red.path())), Some(inside.id.clone()));
    assert_eq!(name(netns(&blue.path())), Some(blue.0.clone()));
}

#[test]
fn sockets_of_an_agent_in_a_containers_namespace_do_not_rename_it() {
    let own = Runc::start("own", Network::Own, &["cat", "/dev/zero"]);
    let (mut agent, namespace) = (Unit::machine("agent"), format!("--net=/proc/{}/ns/net", own.pid));
    let server = agent.start(&["nsenter", &namespace], "httpd -f -p 127.0.0.1:7000");
    let listens = || run(Command::new("nsenter").args([&namespace, "ss", "-Htln"])).contains("127.0.0.1:7000");
    wait_until("the agent listens", listens);
    let inside = netns(&format!("/proc/{}/ns/net", own.pid));
    assert_eq!(netns(&format!("/proc/{server}/ns/net")), inside);
    let options = EngineOptions { scans: Scans::OnlyAtStart, watched: Watched::All, ..EngineOptions::default() };
    let snapshot = Engine::start(options).expect("start the engine").snapshot(0);
    let row = snapshot.endpoints.iter().find(|row| row.key.netns == inside).expect("its listener");
    assert_eq!(row.service.as_ref().map(|it| it.label().to_string()), Some(agent.label()));
    let called = snapshot.namespaces.iter().find(|row| row.netns == inside).and_then(|row| row.name.clone());
    assert_eq!(called.map(|name| name.name.as_bytes().to_vec()), Some(own.id.clone().into_bytes()));
}

#[test]
fn a_namespace_is_of_the_container_of_its_sockets() {
    let (red, serve) = (Mounted::add("red"), ["httpd", "-f", "-p", "127.0.0.1:7001"]);
    let own = Runc::start("own", Network::Own, &serve);
    let inside = Runc::start("inside", Network::Mounted(&red.path()), &serve);
    let namespaces = [&own, &inside].map(|container| (format!("/proc/{}/ns/net", container.pid), &container.id));
    for (path, _) in &namespaces {
        let listeners = || run(Command::new("nsenter").arg(format!("--net={path}")).args(["ss", "-Hltn"]));
        wait_until("the listener of the container", || !listeners().is_empty());
    }
    let options = EngineOptions { scans: Scans::OnlyAtStart, watched: Watched::All, ..EngineOptions::default() };
    let snapshot = Engine::start(options).expect("start the engine").snapshot(0);
    for (path, id) in &namespaces {
        let row = snapshot.namespaces.iter().find(|row| row.netns == netns(path)).unwrap();
        let container = row.service.as_ref().and_then(|service| service.container.as_ref()).unwrap();
        assert_eq!((container.id.as_bytes(), container.runtime), (id.as_bytes(), Some(Runtime::Oci)));
    }
}
