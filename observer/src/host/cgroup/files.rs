//! Files in which runtimes keep what they know of their containers, as JSON. Of each only the named parts are read.

use std::{collections::BTreeMap, path::Path};

use rustc_hash::FxHashMap;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{host::text, model::service::Runtime};

/// The longest file of one container.
pub(super) const LONGEST: usize = 1 << 20;
/// The longest file of all containers.
const LONGEST_LIST: usize = 16 << 20;
/// Labels and annotations by which kubelet's runtimes name what they run: containerd's, CRI-O's and Docker's.
const CONTAINER: [&str; 2] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"];
const POD: [&str; 2] = ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
const NAMESPACE: [&str; 2] = ["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"];
const UID: [&str; 2] = ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];
/// nerdctl's.
const NERDCTL: [&str; 1] = ["nerdctl/name"];
/// The container that keeps the namespaces of a pod.
const SANDBOX: &str = "POD";

/// What one file says of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) container: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) runtime: Option<Runtime>,
}

type Labels = BTreeMap<String, String>;

pub(super) fn read<T: DeserializeOwned>(path: impl AsRef<Path>, longest: usize) -> Option<T> {
    parse(&text::bounded(path, longest).ok()?)
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// What the readers below make of the bytes of a file, whichever file it is.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn found_in(bytes: &[u8]) -> Vec<Found> {
    let labels = parse(bytes).map(|Config { annotations }| by_labels(&annotations, None));
    let listed = parse::<Vec<Stored>>(bytes).into_iter().flatten().filter_map(by_stored).map(|(_, found)| found);
    labels.into_iter().chain(listed).chain(parse(bytes).and_then(by_docker)).collect()
}

/// `config.json` of the OCI runtime specification.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Labels,
}

fn by_labels(labels: &Labels, runtime: Option<Runtime>) -> Found {
    let get = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).filter(|value| *value != SANDBOX).cloned();
    Found {
        container: get(&CONTAINER).or_else(|| get(&NERDCTL)),
        pod: get(&POD),
        namespace: get(&NAMESPACE),
        uid: get(&UID),
        runtime,
    }
}

/// What containerd gave to the runtime of a container. Docker's containers are in its namespace `moby`, without names.
pub(super) fn containerd(base: &Path, id: &str) -> Option<Found> {
    const TASKS: [&str; 2] =
        ["run/containerd/io.containerd.runtime.v2.task", "run/k3s/containerd/io.containerd.runtime.v2.task"];
    const NAMESPACES: [(&str, Runtime); 3] =
        [("k8s.io", Runtime::Containerd), ("default", Runtime::Containerd), ("moby", Runtime::Docker)];
    let mut places = TASKS.iter().flat_map(|tasks| NAMESPACES.map(|(namespace, runtime)| (tasks, namespace, runtime)));
    places.find_map(|(tasks, namespace, runtime)| {
        let config: Config = read(base.join(tasks).join(namespace).join(id).join("config.json"), LONGEST)?;
        Some(by_labels(&config.annotations, Some(runtime)))
    })
}

/// What CRI-O gave to the runtime of a container. Podman's are at the same place, without these annotations.
pub(super) fn cri_o(base: &Path, id: &str) -> Option<Found> {
    let container = base.join("run/containers/storage/overlay-containers").join(id);
    let config: Config = read(container.join("userdata/config.json"), LONGEST)?;
    let found = by_labels(&config.annotations, Some(Runtime::CriO));
    found.pod.is_some().then_some(found)
}

/// An entry of `containers.json` of containers/storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
}

/// The containers of podman and CRI-O, by id.
pub(super) fn containers_storage(base: &Path) -> FxHashMap<String, Found> {
    const STORES: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];
    const DRIVERS: [&str; 2] = ["overlay-containers", "vfs-containers"];
    const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];
    let mut found = FxHashMap::default();
    for store in STORES {
        for driver in DRIVERS {
            for list in LISTS {
                let list: Option<Vec<Stored>> = read(base.join(store).join(driver).join(list), LONGEST_LIST);
                found.extend(list.into_iter().flatten().filter_map(by_stored));
            }
        }
    }
    found
}

fn by_stored(Stored { id, names }: Stored) -> Option<(String, Found)> {
    let name = names?.into_iter().next()?;
    Some((id, by_name(&name, Runtime::Podman, Runtime::CriO)))
}

/// Docker's `config.v2.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    name: Option<String>,
    config: Option<DockerInner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerInner {
    labels: Option<Labels>,
}

/// What Docker knows of a container.
pub(super) fn docker(base: &Path, id: &str) -> Option<Found> {
    let file = base.join("var/lib/docker/containers").join(id).join("config.v2.json");
    by_docker(read(file, LONGEST)?)
}

fn by_docker(DockerConfig { name, config }: DockerConfig) -> Option<Found> {
    let labels = config.and_then(|config| config.labels).unwrap_or_default();
    let found = by_labels(&labels, Some(Runtime::Docker));
    if found.pod.is_some() {
        return Some(found);
    }
    Some(by_name(&name?, Runtime::Docker, Runtime::Docker))
}

/// A name as the runtime keeps it: Docker puts a slash before it. One that kubelet made through a shim has the pod in it:
/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`.
fn by_name(name: &str, own: Runtime, of_kubelet: Runtime) -> Found {
    let name = name.trim_start_matches('/');
    if let ["k8s", container, pod, namespace, uid, _] = name.split('_').collect::<Vec<_>>()[..] {
        return Found {
            container: (container != SANDBOX).then(|| container.to_owned()),
            pod: Some(pod.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: Some(uid.to_owned()),
            runtime: Some(of_kubelet),
        };
    }
    Found { container: Some(name.to_owned()), runtime: Some(own), ..Found::default() }
}
