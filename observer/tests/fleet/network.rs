//! Three hosts and a hub, each a network namespace. The hub has a bridge that joins them.

use std::{
    fs,
    net::Ipv4Addr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const HOSTS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 99, 0, 11), Ipv4Addr::new(10, 99, 0, 12), Ipv4Addr::new(10, 99, 0, 13)];

/// Runs `ip` with these words.
#[track_caller]
fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().expect("ip is needed (iproute2)");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace of `ip netns`, removed when dropped.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn add(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = Self(format!("observer-{what}-{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        ip(&format!("netns add {}", namespace.0));
        ip(&format!("-n {} link set lo up", namespace.0));
        namespace
    }

    /// Its inode number.
    pub(crate) fn inode(&self) -> u64 {
        fs::metadata(format!("/run/netns/{}", self.0)).unwrap().ino()
    }

    /// Moves the calling thread, and what it starts, into the namespace.
    pub(crate) fn enter(&self) {
        let file = fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `work` on a thread in the namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let within = || {
            self.enter();
            work()
        };
        thread::scope(|scope| scope.spawn(within).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

/// The hosts and the hub.
pub(crate) struct Network {
    pub(crate) hub: Namespace,
    pub(crate) hosts: [Namespace; 3],
}

impl Network {
    pub(crate) fn new() -> Self {
        let hub = Namespace::add("hub");
        ip(&format!("-n {} link add br0 type bridge", hub.0));
        ip(&format!("-n {} addr add {HUB}/24 dev br0", hub.0));
        ip(&format!("-n {} link set br0 up", hub.0));
        let hosts = ["web1", "web2", "web3"].map(Namespace::add);
        for (port, (host, address)) in hosts.iter().zip(HOSTS).enumerate() {
            ip(&format!("link add veth{port} netns {} type veth peer name eth0 netns {}", hub.0, host.0));
            ip(&format!("-n {} link set veth{port} master br0 up", hub.0));
            ip(&format!("-n {} addr add {address}/24 dev eth0", host.0));
            ip(&format!("-n {} link set eth0 up", host.0));
        }
        Self { hub, hosts }
    }
}
