//! A network namespace, a device, a cgroup and a process whose names and addresses occur nowhere else, with connections among
//! them.

use std::{
    fs,
    io::Read as _,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{OBSERVER, decoded, succeeds};

const DEADLINE: Duration = Duration::from_mins(2);
/// A listener on each address, with as many connections from the same one.
pub(crate) const PORT: u16 = 7_771;
pub(crate) const CONNECTIONS: usize = 3;
const ADDRESSES: [&str; 4] = ["10.231.77.5", "203.0.113.77", "fd5e:c2e7:77::5", "2001:db8:c2e7::77"];

/// Takes its name from its argument, and keeps its sockets until its standard input ends.
const PROGRAM: &str = r#"
import socket, sys
name, device, port, connections, *addresses = sys.argv[1:]
open("/proc/self/comm", "w").write(name)
held = []
for at, address in enumerate(addresses):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if at == 0:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    listener.bind((address, int(port)))
    listener.listen()
    held.append(listener)
    for _ in range(int(connections) if at > 0 else 0):
        client = socket.socket(family, socket.SOCK_STREAM)
        client.bind((address, 0))
        client.connect((address, int(port)))
        held += [client, listener.accept()]
print("up", flush=True)
sys.stdin.read()
"#;

pub(crate) struct Stage {
    namespace: String,
    comm: String,
    unit: String,
    device: String,
    cgroup: PathBuf,
    child: Child,
}

impl Stage {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}x{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let namespace = format!("secretns{number}");
        let device = format!("sd{number}");
        let unit = format!("secretunit{number}.service");
        let comm = format!("sc{number}");
        let ip = |args: &str| {
            let status = Command::new("ip").args(args.split(' ')).status().unwrap();
            assert!(status.success(), "ip {args}");
        };
        ip(&format!("netns add {namespace}"));
        let inside = format!("-n {namespace}");
        ip(&format!("{inside} link set lo up"));
        ip(&format!("{inside} link add {device} type veth peer name {device}p"));
        ip(&format!("{inside} link set {device} up"));
        for address in ADDRESSES {
            let length = if address.contains(':') { "128 nodad" } else { "32" };
            ip(&format!("{inside} addr add {address}/{length} dev lo"));
        }
        let cgroup = cgroup2().join(&unit);
        fs::create_dir(&cgroup).unwrap();
        let procs = cgroup.join("cgroup.procs");
        let (port, connections) = (PORT.to_string(), CONNECTIONS.to_string());
        // Before `ip netns exec`, which has a /sys of its own.
        let mut child = Command::new("sh")
            .args(["-c", r#"echo 0 > "$0" && exec "$@""#, procs.to_str().unwrap()])
            .args(["ip", "netns", "exec", &namespace, "python3", "-c", PROGRAM, &comm])
            .args([&device, &port, &connections])
            .args(ADDRESSES)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        child.stdout.take().unwrap().read_exact(&mut up).unwrap();
        Self { namespace, comm, unit, device, cgroup, child }
    }

    /// Names that the stage gave.
    pub(crate) fn names(&self) -> Vec<String> {
        [vec![self.namespace.clone()], self.names_inside()].concat()
    }

    /// Those that are known within its namespace.
    pub(crate) fn names_inside(&self) -> Vec<String> {
        [&self.comm, &self.unit, &self.device].into_iter().cloned().collect()
    }

    pub(crate) fn addresses() -> Vec<IpAddr> {
        ADDRESSES.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// As the decoder prints them: 16 bytes, IPv4 v4-mapped.
    pub(crate) fn addresses_as_bytes() -> Vec<String> {
        Self::addresses().into_iter().map(hex).collect()
    }

    /// The inode number of its network namespace.
    pub(crate) fn netns(&self) -> u64 {
        fs::metadata(format!("/run/netns/{}", self.namespace)).unwrap().ino()
    }

    /// Records its network namespace alone, until the recording has the names in it.
    pub(crate) fn record_inside(&self, path: &str) {
        let inside =
            ["netns", "exec", &self.namespace, OBSERVER, "--own-netns", "record", path, "--for", "1", "--force"];
        until_named(
            || path.to_owned(),
            &self.names_inside(),
            || {
                let output = Command::new("ip").args(inside).output().unwrap();
                assert!(output.status.success(), "{output:?}");
            },
        );
    }

    /// Has recorders write its network namespace to this directory, until so many segments have the names in it.
    pub(crate) fn record_segments(&self, directory: &Path, count: usize) -> Vec<PathBuf> {
        let path = directory.to_str().unwrap();
        let inside = ["netns", "exec", &self.namespace, OBSERVER, "--own-netns", "record", path];
        let mut segments: Vec<PathBuf> = Vec::new();
        for _ in 0..count {
            let newest = || {
                let found = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
                found.filter(|path| path.is_file()).max().unwrap()
            };
            until_named(
                || newest().to_str().unwrap().to_owned(),
                &self.names_inside(),
                || {
                    let output =
                        Command::new("ip").args(inside).args(["--max-bytes", "8M", "--for", "1"]).output().unwrap();
                    assert!(output.status.success(), "{output:?}");
                },
            );
            segments.push(newest());
        }
        segments
    }

    /// Records this host, until the recording has all names.
    pub(crate) fn record_host(&self, path: &str) {
        until_named(|| path.to_owned(), &self.names(), || drop(succeeds(&["record", path, "--for", "1", "--force"])));
    }
}

/// Names of services and devices come after their sockets.
fn until_named(path: impl Fn() -> String, wanted: &[String], record: impl Fn()) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        record();
        let names = decoded(&path())["names"].clone();
        let is_missing = |name: &&String| !names.as_array().unwrap().iter().any(|it| it == *name);
        let missing: Vec<&String> = wanted.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{missing:?} not in {names}");
    }
}

/// As records have it.
fn hex(ip: IpAddr) -> String {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    format!("{bits:032x}")
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
        let deadline = Instant::now() + DEADLINE;
        while fs::remove_dir(&self.cgroup).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

/// The first mount of cgroup2.
fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    Path::new(found.expect("cgroup2 is mounted").split(' ').nth(4).unwrap()).to_owned()
}
