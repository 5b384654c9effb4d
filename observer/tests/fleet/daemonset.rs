//! The DaemonSet's container, run by runc as containerd would: its user, capabilities, mounts and seccomp profile are
//! enough. kubelet and the API server are not run.

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    http::get,
    network::Namespace,
    pod::{self, NODE, OBSERVER, Pod},
};

const PATIENCE: Duration = Duration::from_mins(2);

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The container; it ends when dropped.
struct Container {
    id: String,
    bundle: TempDir,
}

impl Container {
    /// Starts it with the network of the calling thread, as `hostNetwork` says.
    fn start(pod: &Pod) -> Self {
        let (bundle, id) = (tempfile::tempdir().unwrap(), format!("observer-daemonset-{}", std::process::id()));
        pod::image(&bundle.path().join("rootfs"));
        run(Command::new("runc").arg("spec").current_dir(bundle.path()));
        let config = bundle.path().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        configure(&mut spec, pod);
        fs::write(&config, spec.to_string()).unwrap();
        let log = fs::File::create(bundle.path().join("log")).unwrap();
        let mut runc = Command::new("runc");
        runc.args(["run", "--detach", "--bundle"]).arg(bundle.path()).arg(&id);
        let container = Self { id, bundle };
        let status = runc.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).status();
        assert!(status.unwrap().success(), "{}", container.log());
        container
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bundle.path().join("log")).unwrap()
    }

    /// Waits until it answers.
    fn answer(&self, path: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = get(NODE, path) {
                return answer;
            }
            let state = || Command::new("runc").args(["state", &self.id]).output();
            assert!(Instant::now() < deadline, "no answer to {path}: {} {:?}", self.log(), state());
            std::thread::yield_now();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        run(Command::new("runc").args(["delete", "--force", &self.id]));
        // The next one wants its port.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(NODE).is_ok() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

/// What containerd makes of the pod.
fn configure(spec: &mut Value, pod: &Pod) {
    spec["process"]["args"] = pod.args.clone().into();
    spec["process"]["terminal"] = false.into();
    spec["process"]["rlimits"] = json!([]);
    spec["process"]["user"] = json!({"uid": pod.user.0, "gid": pod.user.1});
    spec["process"]["noNewPrivileges"] = true.into();
    let capabilities: Vec<String> = pod.capabilities.iter().map(|name| format!("CAP_{name}")).collect();
    spec["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    spec["root"]["readonly"] = true.into();
    let profile = fs::read(&pod.profile).unwrap();
    spec["linux"]["seccomp"] = serde_json::from_slice(&profile).unwrap();
    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| !["pid", "network"].contains(&namespace["type"].as_str().unwrap()));
    for (source, destination) in &pod.mounts {
        let mount = json!({"destination": destination, "source": source, "type": "bind",
            "options": ["rbind", "rprivate", "ro"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    }
}

/// Hooks with their attach methods.
pub(crate) fn hooks(series: &str) -> BTreeSet<&str> {
    series.lines().filter(|line| line.starts_with("observer_hook_info{")).collect()
}

/// The series of one that nothing is taken from.
pub(crate) fn with_all_rights() -> String {
    String::from_utf8(run(Command::new(OBSERVER).args(["snapshot", "--openmetrics"])).stdout).unwrap()
}

#[test]
fn the_daemonset_has_the_rights_that_observer_needs() {
    let mut pod = Pod::of_the_daemonset();
    let (node, other) = (Namespace::add("node"), Namespace::add("pod"));
    // A process, as a pod has one, and connections.
    let mut process = Command::new("ip");
    process.args(["netns", "exec", &other.0, "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut process = process.spawn().unwrap();
    let pairs = other.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        [(); 3].map(|()| (TcpStream::connect(address).unwrap(), listener.accept().unwrap()))
    });
    node.enter();
    let container = Container::start(&pod);
    container.answer("/-/healthy");
    container.answer("/-/ready");
    let series = container.answer("/metrics");

    assert!(hooks(&series).len() > 3, "{series}");
    assert_eq!(hooks(&series), hooks(&with_all_rights()));
    let inode = format!("inode=\"{}\"", other.inode());
    let info = series.lines().find(|line| line.starts_with("observer_netns_info{") && line.contains(&inode));
    let info = info.unwrap_or_else(|| panic!("no namespace {inode}: {series}"));
    let netns = info.split("netns=\"").nth(1).unwrap().split('"').next().unwrap();
    let established = format!("observer_sockets{{netns=\"{netns}\",state=\"established\"}} {}", 2 * pairs.len());
    assert!(series.lines().any(|line| line == established), "not there: {established}: {series}");
    drop(container);

    // A right that is missing is missed: the container is confined.
    pod.capabilities.retain(|name| name != "SYS_ADMIN");
    let container = Container::start(&pod);
    container.answer("/-/ready");
    let series = container.answer("/metrics");
    assert!(
        !series.lines().any(|line| line == established),
        "without SYS_ADMIN no other namespace is entered: {series}"
    );
    drop((pairs, process.stdin.take()));
    process.wait().unwrap();
}
