//! The DaemonSet's pod, as the files of packaging/ describe it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{kubernetes, packaging, runtimes::run};

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
/// Where it serves.
pub(crate) const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 28_232);

/// What kubelet makes of the pod: with the host's pids and network, all capabilities dropped but these, a read-only root and
/// no new privileges.
pub(crate) struct Pod {
    pub(crate) image: String,
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    pub(crate) user: (u64, u64),
    pub(crate) capabilities: Vec<String>,
    /// The file of the seccomp profile.
    pub(crate) profile: PathBuf,
    /// From the host to the container, read-only.
    pub(crate) mounts: Vec<(String, String)>,
}

impl Pod {
    pub(crate) fn of_the_daemonset() -> Self {
        let files = kubernetes::rendered();
        let pod = &files["daemonset.yaml"][1]["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        let words = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(true)));
        assert_eq!(words(&security["capabilities"]["drop"]), ["ALL"]);
        let confined = ["readOnlyRootFilesystem", "allowPrivilegeEscalation", "privileged"].map(|name| &security[name]);
        assert_eq!(confined, [&json!(true), &json!(false), &json!(false)]);
        assert_eq!(security["seccompProfile"], json!({"type": "Localhost", "localhostProfile": "observer.json"}));
        let node = NODE.ip().to_string();
        let args = [words(&container["command"]), words(&container["args"])].concat();
        let id = |name: &str| security[name].as_u64().unwrap();
        Self {
            image: container["image"].as_str().unwrap().to_owned(),
            args: args.iter().map(|word| word.replace("$(NODE_IP)", &node)).collect(),
            user: (id("runAsUser"), id("runAsGroup")),
            capabilities: words(&security["capabilities"]["add"]),
            profile: packaging(kubernetes::PROFILE),
            mounts: container["volumeMounts"].as_array().unwrap().iter().map(|mount| source(pod, mount)).collect(),
        }
    }
}

fn source(pod: &Value, mount: &Value) -> (String, String) {
    let volume = pod["volumes"].as_array().unwrap().iter().find(|it| it["name"] == mount["name"]).unwrap();
    let source = volume["hostPath"]["path"].as_str().unwrap();
    if volume["hostPath"]["type"] == "DirectoryOrCreate" {
        fs::create_dir_all(source).unwrap();
    }
    assert_eq!(mount["readOnly"], true, "{mount}");
    (source.to_owned(), mount["mountPath"].as_str().unwrap().to_owned())
}

/// The program, with the libraries that it is linked to, and nothing else.
pub(crate) fn image(root: &Path) {
    let copy = |from: &str, to: PathBuf| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // By another process: see ETXTBSY in tests/containers.
        run(Command::new("cp").args(["--dereference", from]).arg(to));
    };
    copy(OBSERVER, root.join("usr/bin/observer"));
    let libraries = run(Command::new("ldd").arg(OBSERVER));
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(library, root.join(library.trim_start_matches('/')));
    }
}
