//! The DaemonSet's container, run by runc as containerd would: its user, capabilities, mounts and seccomp profile are
//! enough. kubelet and the API server are not run.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{kubernetes, network::Namespace, packaging, programs::get};

const PATIENCE: Duration = Duration::from_mins(2);
const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
const NODE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 28_232);

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
    fn start(pod: &Value) -> Self {
        let (bundle, id) = (tempfile::tempdir().unwrap(), format!("observer-daemonset-{}", std::process::id()));
        image(&bundle.path().join("rootfs"));
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

/// The program, with the libraries that it is linked to.
fn image(root: &Path) {
    let copy = |from: &str, to: PathBuf| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // By another process: see ETXTBSY in tests/containers.
        run(Command::new("cp").args(["--dereference", from]).arg(to));
    };
    copy(OBSERVER, root.join("usr/bin/observer"));
    let libraries = run(Command::new("ldd").arg(OBSERVER)).stdout;
    let libraries = String::from_utf8(libraries).unwrap();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(library, root.join(library.trim_start_matches('/')));
    }
}

/// What kubelet and containerd make of the pod.
fn configure(spec: &mut Value, pod: &Value) {
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let args = [words(&container["command"]), words(&container["args"])].concat();
    let node = NODE.ip().to_string();
    spec["process"]["args"] = args.iter().map(|word| word.replace("$(NODE_IP)", &node)).collect();
    spec["process"]["terminal"] = false.into();
    spec["process"]["rlimits"] = json!([]);
    spec["process"]["user"] = json!({"uid": security["runAsUser"], "gid": security["runAsGroup"]});
    spec["process"]["noNewPrivileges"] = (security["allowPrivilegeEscalation"] == false).into();
    assert_eq!(words(&security["capabilities"]["drop"]), ["ALL"]);
    let capabilities: Vec<String> =
        words(&security["capabilities"]["add"]).iter().map(|name| format!("CAP_{name}")).collect();
    spec["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    spec["root"]["readonly"] = security["readOnlyRootFilesystem"].clone();
    assert_eq!(security["seccompProfile"]["type"], "Localhost");
    let profile = fs::read(packaging("helm/observer/files/seccomp.json")).unwrap();
    spec["linux"]["seccomp"] = serde_json::from_slice(&profile).unwrap();
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(true)));
    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| !["pid", "network"].contains(&namespace["type"].as_str().unwrap()));
    for mount in container["volumeMounts"].as_array().unwrap() {
        let volume = pod["volumes"].as_array().unwrap().iter().find(|it| it["name"] == mount["name"]).unwrap();
        let source = volume["hostPath"]["path"].as_str().unwrap();
        if volume["hostPath"]["type"] == "DirectoryOrCreate" {
            fs::create_dir_all(source).unwrap();
        }
        assert_eq!(mount["readOnly"], true, "{mount}");
        let mount = json!({"destination": mount["mountPath"], "source": source, "type": "bind",
            "options": ["rbind", "rprivate", "ro"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    }
}

/// Hooks with their attach methods.
fn hooks(series: &str) -> BTreeSet<&str> {
    series.lines().filter(|line| line.starts_with("observer_hook_info{")).collect()
}

#[test]
fn the_daemonset_has_the_rights_that_observer_needs() {
    let files = kubernetes::rendered();
    let mut pod = files["daemonset.yaml"][1]["spec"]["template"]["spec"].clone();
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

    let with_all_rights = run(Command::new(OBSERVER).args(["snapshot", "--openmetrics"])).stdout;
    let with_all_rights = String::from_utf8(with_all_rights).unwrap();
    assert!(hooks(&series).len() > 3, "{series}");
    assert_eq!(hooks(&series), hooks(&with_all_rights));
    let inode = format!("inode=\"{}\"", other.inode());
    let info = series.lines().find(|line| line.starts_with("observer_netns_info{") && line.contains(&inode));
    let info = info.unwrap_or_else(|| panic!("no namespace {inode}: {series}"));
    let netns = info.split("netns=\"").nth(1).unwrap().split('"').next().unwrap();
    let established = format!("observer_sockets{{netns=\"{netns}\",state=\"established\"}} {}", 2 * pairs.len());
    assert!(series.lines().any(|line| line == established), "not there: {established}: {series}");
    drop(container);

    // A right that is missing is missed: the container is confined.
    let added = pod["containers"][0]["securityContext"]["capabilities"]["add"].as_array_mut().unwrap();
    added.retain(|name| name != "SYS_ADMIN");
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
