//! A fleet: three hosts, Prometheus and Alertmanager, as a person would set them up from `packaging/`; and the files for
//! Kubernetes. Hosts are network namespaces that veth pairs join; each observer sees its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod alerts;
mod daemonset;
mod dashboard;
#[path = "../program/http.rs"]
mod http;
mod kubernetes;
mod load;
mod network;
mod pod;
mod podman;
mod programs;
#[path = "../containers/runtimes.rs"]
#[expect(dead_code, reason = "it has more runtimes than are used here")]
mod runtimes;
mod system_calls;

use std::path::PathBuf;

/// A file of `packaging/`.
fn packaging(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}
