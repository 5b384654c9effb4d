//! The image of `cargo xtask dist`, run by podman 4.3 with the rights of the DaemonSet. podman's own default profile refuses
//! bpf().

use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    daemonset::{hooks, with_all_rights},
    http::get,
    network::Namespace,
    pod::{NODE, Pod},
    runtimes::{artefact, cgroup2, podman, run, unique, wait_until},
};

/// Where a service of the host's listens in the other namespace.
const SERVICE: &str = "127.0.0.1:7000";

/// Where podman keeps images and containers of this test alone.
struct Storage(TempDir);

impl Storage {
    fn podman(&self, arguments: &[&str]) -> String {
        let (root, run) = (self.0.path().join("root"), self.0.path().join("run"));
        // This driver needs nothing of the file system.
        let storage = ["--storage-driver=vfs", "--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap()];
        podman(&[&storage[..], arguments].concat())
    }
}

/// The container; it ends when dropped.
struct Container {
    name: String,
    storage: Storage,
}

impl Container {
    /// Starts it with the network of the calling thread.
    fn start(pod: &Pod) -> Self {
        const OPTIONS: &str = "--runtime runc run --detach --pull=never --network host --pid host --read-only \
            --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --pids-limit 0 \
            --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
        let (name, storage) = (unique("pod"), Storage(tempfile::tempdir().unwrap()));
        storage.podman(&["load", "--quiet", "--input", artefact("-oci.tar").to_str().unwrap()]);
        let mut words: Vec<String> = OPTIONS.split_whitespace().map(str::to_owned).collect();
        words.extend([format!("--name={name}"), format!("--user={}:{}", pod.user.0, pod.user.1)]);
        words.push(format!("--security-opt=seccomp={}", pod.profile.display()));
        words.extend(pod.capabilities.iter().map(|name| format!("--cap-add={name}")));
        words.extend(pod.mounts.iter().map(|(from, to)| format!("--volume={from}:{to}:ro")));
        let (program, args) = pod.args.split_first().unwrap();
        words.extend([format!("--entrypoint={program}"), pod.image.clone()]);
        words.extend(args.iter().cloned());
        storage.podman(&words.iter().map(String::as_str).collect::<Vec<_>>());
        Self { name, storage }
    }

    fn status(&self, key: &str) -> String {
        let pid = self.storage.podman(&["inspect", "--format", "{{.State.Pid}}", &self.name]);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
    }

    fn answer(&self, path: &str) -> String {
        let mut answer = None;
        wait_until(&format!("{path} of {}", self.name), || {
            answer = get(NODE, path);
            answer.is_some()
        });
        answer.unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        eprintln!("{}", self.storage.podman(&["logs", &self.name]));
        self.storage.podman(&["rm", "--force", "--time", "0", &self.name]);
    }
}

/// A service of the host's in a namespace; it ends when dropped.
struct Unit {
    name: String,
    cgroup: PathBuf,
    server: Child,
}

impl Unit {
    fn start(netns: &Namespace) -> Self {
        const ENTER: &str = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let name = format!("{}.service", unique("unit"));
        let cgroup = cgroup2().join("system.slice").join(&name);
        fs::create_dir_all(&cgroup).unwrap();
        let mut server = Command::new("sh");
        server.args(["-c", ENTER]).arg(&cgroup).args(["ip", "netns", "exec", &netns.0]);
        server.args(["busybox", "httpd", "-f", "-p", SERVICE]).stdin(Stdio::null());
        Self { name, cgroup, server: server.spawn().unwrap() }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        wait_until("the cgroup is empty", || fs::remove_dir(&self.cgroup).is_ok());
        // Other tests may have units there.
        let _ = fs::remove_dir(self.cgroup.parent().unwrap());
    }
}

/// A row of what observer shows: these are not bounded, as series are.
fn row(container: &Container, table: &str, is: impl Fn(&Value) -> bool) -> Option<Value> {
    let snapshot: Value = serde_json::from_str(&container.answer("/snapshot")).unwrap();
    snapshot[table].as_array().unwrap().iter().find(|row| is(row)).cloned()
}

#[test]
fn podman_runs_it_with_the_rights_of_the_daemonset() {
    let pod = Pod::of_the_daemonset();
    let (node, other) = (Namespace::add("podman-node"), Namespace::add("podman-pod"));
    let unit = Unit::start(&other);
    wait_until("the unit listens", || other.inside(|| TcpStream::connect(SERVICE).is_ok()));
    let connect = || other.inside(|| [(); 3].map(|()| TcpStream::connect(SERVICE).unwrap()));
    // A scan finds these, and events bring later ones.
    let earlier = connect();
    node.enter();
    let container = Container::start(&pod);
    let series = container.answer("/metrics");
    assert!(series.contains("observer_build_info{"), "{series}");
    let mut found = None;
    wait_until("the listener of the unit", || {
        let is_listener = |row: &Value| row["netns"] == other.inode() && row["local_port"] == 7000;
        found = row(&container, "endpoints", is_listener);
        found.as_ref().is_some_and(|row| row["service"]["unit"] == unit.name)
    });
    let found = found.unwrap();
    assert_eq!(found["listeners"][0]["pid"], unit.server.id(), "{found:#}");
    let ss = || run(Command::new("ip").args(["netns", "exec", &other.0, "ss", "-Htn", "state", "established"]));
    let same = |number: usize| {
        wait_until(&format!("{number} established sockets in ss"), || ss().lines().count() == number);
        wait_until(&format!("{number} established sockets"), || {
            let row = row(&container, "namespaces", |row| row["netns"] == other.inode());
            row.is_some_and(|row| row["established"] == number)
        });
    };
    same(2 * earlier.len());
    let later = connect();
    same(2 * (earlier.len() + later.len()));
    drop((earlier, later));
    // What /proc says of its rights is what the files say.
    let bits = |capability: &String| 1_u64 << BITS.iter().find(|(name, _)| name == capability).unwrap().1;
    let set = format!("{:016x}", pod.capabilities.iter().map(bits).sum::<u64>());
    assert_eq!((container.status("CapBnd:"), container.status("NoNewPrivs:")), (set, "1".to_owned()));
    assert_eq!(container.status("Seccomp:"), "2");
    assert_eq!(hooks(&series), hooks(&with_all_rights()));
}

/// Of include/uapi/linux/capability.h.
const BITS: [(&str, u32); 5] =
    [("DAC_READ_SEARCH", 2), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];
