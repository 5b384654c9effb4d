//! Names of pods and containers, from files that kubelet and the runtimes leave on the host. No runtime is asked, and no
//! socket is opened. Each file may be missing, unreadable, too large, or written by somebody who means harm: then it gives
//! no name.
//!
//! Directories and files that name all containers of the host are read at most once a second, whatever the number of
//! containers that need a name.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    files::{self, Found},
    path,
    states::States,
};
use crate::model::{
    name::Name,
    service::{Container, Pod, Runtime, Service, user_manager},
};

/// How long what was read of all containers is used.
const FRESH: Duration = Duration::from_secs(1);
/// Entries that are looked at in one directory.
const MOST_ENTRIES: usize = 16_384;
/// The longest name that is kept. Kubernetes allows 253 bytes.
const LONGEST: usize = 255;

/// What was read of all containers at once.
#[derive(Debug)]
struct Index<T> {
    at: Option<Instant>,
    entries: T,
}

impl<T: Default> Default for Index<T> {
    fn default() -> Self {
        Self { at: None, entries: T::default() }
    }
}

impl<T> Index<T> {
    fn get(&mut self, now: Instant, read: impl FnOnce() -> T) -> &T {
        if self.at.is_none_or(|at| now.saturating_duration_since(at) >= FRESH) {
            self.entries = read();
            self.at = Some(now);
        }
        &self.entries
    }
}

/// Names of the containers of this host.
#[derive(Debug)]
pub(super) struct Names {
    /// The directory that stands for the root of the host's files.
    base: PathBuf,
    pods: Index<FxHashMap<String, Found>>,
    logs: Index<FxHashMap<String, Found>>,
    stored: Index<FxHashMap<String, Found>>,
    states: States,
}

impl Default for Names {
    fn default() -> Self {
        Self::new("/".into())
    }
}

impl Names {
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            pods: Index::default(),
            logs: Index::default(),
            stored: Index::default(),
            states: States::default(),
        }
    }

    /// Adds the names that files have. Returns whether a file may still come that has more.
    pub(super) fn complete(&mut self, service: &mut Service, now: Instant) -> bool {
        // Files of this host name what this host runs. A user may give its ids to other cgroups.
        if service.path.as_ref().is_some_and(|path| user_manager(path.as_bytes()).is_some()) {
            return false;
        }
        let Service { pod, container, machine, .. } = &*service;
        if pod.is_none() && container.is_none() && machine.is_none() {
            self.find_container(service, now);
            // runc writes its state a moment after it has made the cgroup.
            return service.is_unnamed_cgroup();
        }
        let id = service.container.as_ref().and_then(|container| file_name(&container.id));
        if let Some(id) = id.map(str::to_owned) {
            self.name_container(service, &id, now);
        }
        if let Some(pod) = service.pod.as_mut().filter(|pod| pod.name.is_none()) {
            self.name_pod(pod, now);
        }
        let is_unnamed = |container: &Container| container.name.is_none() && container.runtime != Some(Runtime::Oci);
        service.pod.as_ref().is_some_and(|pod| pod.name.is_none()) || service.container.as_ref().is_some_and(is_unnamed)
    }

    fn name_container(&mut self, service: &mut Service, id: &str, now: Instant) {
        let Self { base, logs, stored, .. } = self;
        let has_all = |service: &Service| {
            service.container.as_ref().is_some_and(|container| container.name.is_some())
                && service.pod.as_ref().is_none_or(|pod| pod.name.is_some())
        };
        if let Some(found) = logs.get(now, || container_logs(base)).get(id) {
            merge(service, found);
        }
        if !has_all(service) {
            let found = files::containerd(base, id).or_else(|| files::cri_o(base, id));
            found.inspect(|found| merge(service, found));
        }
        if !has_all(service)
            && let Some(found) = stored.get(now, || files::containers_storage(base)).get(id)
        {
            merge(service, found);
        }
        if !has_all(service) {
            files::docker(base, id).inspect(|found| merge(service, found));
        }
    }

    /// `/var/log/pods/<namespace>_<pod>_<uid>`.
    fn name_pod(&mut self, pod: &mut Pod, now: Instant) {
        let base = &self.base;
        let found =
            std::str::from_utf8(pod.uid.as_bytes()).ok().and_then(|uid| self.pods.get(now, || pod_logs(base)).get(uid));
        if let Some(found) = found {
            pod.name = found.pod.as_deref().and_then(name);
            pod.namespace = found.namespace.as_deref().and_then(name);
        }
    }

    /// A container of runc or crun without an engine: its cgroup has any name, and the runtime's state says which.
    fn find_container(&mut self, service: &mut Service, now: Instant) {
        let Some(path) = service.path.clone().filter(|_| !service.is_root()) else { return };
        if let Some((id, rest)) = self.states.find(&self.base, path.as_bytes(), now) {
            service.unit = path::service(rest).unit;
            service.container = name(&id).map(|id| Container { id, name: None, runtime: Some(Runtime::Oci) });
        }
    }
}

/// Adds what is missing.
pub(super) fn merge(service: &mut Service, found: &Found) {
    let take = |to: &mut Option<Name>, from: &Option<String>| {
        if to.is_none() {
            *to = from.as_deref().and_then(name);
        }
    };
    if let Some(container) = &mut service.container {
        take(&mut container.name, &found.container);
        container.runtime = container.runtime.or(found.runtime);
    }
    if service.pod.is_none() {
        let uid = found.uid.as_deref().and_then(name);
        service.pod = uid.map(|uid| Pod { uid, namespace: None, name: None });
    }
    // What is in a container of a pod is not of another pod, whatever a file says.
    if let Some(pod) = &mut service.pod
        && found.uid.as_ref().is_none_or(|uid| uid.as_bytes() == pod.uid.as_bytes())
    {
        take(&mut pod.name, &found.pod);
        take(&mut pod.namespace, &found.namespace);
    }
}

/// A name of bounded length, if there is any.
fn name(text: &str) -> Option<Name> {
    let bytes = text.as_bytes();
    (!bytes.is_empty()).then(|| Name::new(bytes.get(..LONGEST).unwrap_or(bytes)))
}

/// The id, if it can be the name of a directory and nothing else.
fn file_name(id: &Name) -> Option<&str> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let id = id.as_bytes();
    let is_name = id.iter().all(is_plain) && id.first().is_some_and(u8::is_ascii_alphanumeric);
    std::str::from_utf8(id).ok().filter(|_| is_name)
}

/// Names of the entries of a directory.
fn entries(directory: PathBuf) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(&directory).into_iter().flatten().enumerate().take_while(move |(before, _)| {
        let is_read = *before < MOST_ENTRIES;
        if !is_read {
            tracing::warn!(?directory, "names of containers: of this directory only {MOST_ENTRIES} entries are read");
        }
        is_read
    });
    entries
        .flat_map(|(_, entry)| entry)
        .filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok().map(str::to_owned))
}

/// Splits at the underscores, of which Kubernetes allows none in its names.
fn fields<const N: usize>(text: &str) -> Option<[String; N]> {
    let fields: Vec<String> = text.split('_').map(str::to_owned).collect();
    fields.try_into().ok()
}

/// `/var/log/pods/<namespace>_<pod>_<uid>`, by uid.
fn pod_logs(base: &Path) -> FxHashMap<String, Found> {
    entries(base.join("var/log/pods")).filter_map(|entry| pod_log(&entry)).collect()
}

pub(super) fn pod_log(entry: &str) -> Option<(String, Found)> {
    let [namespace, pod, uid] = fields(entry)?;
    Some((uid, Found { pod: Some(pod), namespace: Some(namespace), ..Found::default() }))
}

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, by id.
fn container_logs(base: &Path) -> FxHashMap<String, Found> {
    entries(base.join("var/log/containers")).filter_map(|entry| container_log(&entry)).collect()
}

pub(super) fn container_log(entry: &str) -> Option<(String, Found)> {
    let (name, id) = entry.strip_suffix(".log")?.rsplit_once('-')?;
    let [pod, namespace, container] = fields(name)?;
    let found =
        Found { container: Some(container), pod: Some(pod), namespace: Some(namespace), uid: None, runtime: None };
    Some((id.to_owned(), found))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UID: &str = "1a2b3c4d-0000-4000-8000-00000000000f";

    /// A host's files below a temporary directory.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn directory(&self, path: &str) {
            fs::create_dir_all(self.0.path().join(path)).unwrap();
        }

        fn names(&self) -> Names {
            Names::new(self.0.path().to_owned())
        }

        /// The label of the service, that of its container, its runtime, and whether more may come.
        fn named(&self, path: &str) -> (String, String, Option<Runtime>, bool) {
            let mut service = path::service(path.as_bytes());
            let more = self.names().complete(&mut service, Instant::now());
            let container = service.container.as_ref();
            let label = container.map_or_else(String::new, |it| it.label().to_string());
            (service.label().to_string(), label, container.and_then(|it| it.runtime), more)
        }
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn pods_have_the_names_that_kubelet_gives_their_logs() {
        let host = Host::new();
        let (a, b) = (id('a'), id('b'));
        host.directory(&format!("var/log/pods/shop_web-6f5d8_{UID}/front"));
        let path = |id: &str| format!("/kubepods/burstable/pod{UID}/{id}");
        // The sandbox has no log: its pod is known.
        assert_eq!(host.named(&path(&b)), ("shop/web-6f5d8".to_owned(), "bbbbbbbbbbbb".to_owned(), None, true));
        host.file(&format!("var/log/containers/web-6f5d8_shop_front-{a}.log"), "");
        assert_eq!(host.named(&path(&a)), ("shop/web-6f5d8".to_owned(), "front".to_owned(), None, false));
        let slice = format!("/kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        assert_eq!(host.named(&slice), ("shop/web-6f5d8".to_owned(), String::new(), None, false));
    }

    #[test]
    fn containers_have_the_names_that_their_runtimes_keep() {
        let host = Host::new();
        let annotations = json!({
            "io.kubernetes.cri.container-name": "front", "io.kubernetes.cri.sandbox-name": "web-1",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": UID,
        });
        let crio = json!({
            "io.kubernetes.container.name": "POD", "io.kubernetes.pod.name": "web-2",
            "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
        });
        let task = "run/containerd/io.containerd.runtime.v2.task";
        let config =
            |annotations: &serde_json::Value| json!({"ociVersion": "1", "annotations": annotations}).to_string();
        host.file(&format!("{task}/k8s.io/{}/config.json", id('a')), config(&annotations));
        host.file(&format!("{task}/default/{}/config.json", id('b')), config(&json!({"nerdctl/name": "web-b"})));
        let crio_file = format!("run/containers/storage/overlay-containers/{}/userdata/config.json", id('c'));
        host.file(&crio_file, config(&crio));
        let stored = json!([
            {"id": id('d'), "names": ["web-d"], "layer": {"deep": [1]}},
            {"id": id('e'), "names": [format!("k8s_front_web-3_shop_{UID}_0")]}, {"id": id('1')},
        ]);
        host.file("var/lib/containers/storage/overlay-containers/containers.json", stored.to_string());
        let volatile = json!([{"id": id('f'), "names": ["web-f"]}]).to_string();
        host.file("var/lib/containers/storage/vfs-containers/volatile-containers.json", volatile);
        let docker = |id: &str| format!("var/lib/docker/containers/{id}/config.v2.json");
        host.file(&docker(&id('2')), json!({"Name": "/web-2", "Config": {"Labels": null}}).to_string());
        let labels = json!({"io.kubernetes.container.name": "front", "io.kubernetes.pod.name": "web-4",
            "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID});
        host.file(&docker(&id('3')), json!({"Name": "/k8s_x", "Config": {"Labels": labels}}).to_string());
        let kubepods = |id: &str| format!("/kubepods/pod{UID}/{id}");
        let crio_scope = format!("/kubepods/pod{UID}/crio-{}", id('c'));
        for (path, label, container, runtime, more) in [
            (kubepods(&id('a')), "shop/web-1", "front", Runtime::Containerd, false),
            (format!("/default/{}", id('b')), "web-b", "web-b", Runtime::Containerd, false),
            (crio_scope, "shop/web-2", "cccccccccccc", Runtime::CriO, true),
            (format!("/libpod_parent/libpod-{}", id('d')), "web-d", "web-d", Runtime::Podman, false),
            (kubepods(&id('e')), "shop/web-3", "front", Runtime::CriO, false),
            (format!("/machine.slice/libpod-{}.scope", id('f')), "web-f", "web-f", Runtime::Podman, false),
            (format!("/docker/{}", id('2')), "web-2", "web-2", Runtime::Docker, false),
            (kubepods(&id('3')), "shop/web-4", "front", Runtime::Docker, false),
            // By containerd's word alone, without a pod in the path.
            (format!("/{}", id('a')), "shop/web-1", "front", Runtime::Containerd, false),
        ] {
            assert_eq!(host.named(&path), (label.to_owned(), container.to_owned(), Some(runtime), more), "{path}");
        }
    }

    #[test]
    fn containers_without_an_engine_are_known_by_the_state_of_their_runtime() {
        let host = Host::new();
        let paths = |paths: serde_json::Value| json!({"id": "x", "cgroup_paths": paths}).to_string();
        host.file("run/runc/web/state.json", paths(json!({"": "/sys/fs/cgroup/web"})));
        let v1 = json!({"pids": "/sys/fs/cgroup/pids/b", "cpu": "/sys/fs/cgroup/cpu,cpuacct/b"});
        host.file("run/runc/of-v1/state.json", paths(v1));
        host.file("run/runc/hybrid/state.json", paths(json!({"": "/sys/fs/cgroup/unified/shop/c"})));
        host.file("run/runc/root/state.json", paths(json!({"": "/sys/fs/cgroup", "pids": "/sys/fs/cgroup/pids/"})));
        host.file("run/crun/own/status", json!({"pid": 1, "cgroup-path": "/user.slice/own"}).to_string());
        let of_user = "/user.slice/user-1000.slice/user@1000.service/crun";
        host.file("run/crun/of-user/status", json!({"cgroup-path": of_user}).to_string());
        assert_eq!(host.named(of_user).1, "");
        for (path, expected) in [
            ("/web", "web"),
            ("/web/child", "web"),
            ("/../../web", ""),
            ("/..web", ""),
            ("/../..", ""),
            ("/webs", ""),
            ("/b", "of-v1"),
            ("/shop/c", "hybrid"),
            ("/shop", ""),
            ("/user.slice/own", "own"),
            ("/", ""),
        ] {
            let (_, container, runtime, more) = host.named(path);
            // The state of a runtime may still come, save for the root.
            let may_come = expected.is_empty() && !matches!(path, "/" | "/../..");
            assert_eq!((container.as_str(), more), (expected, may_come), "{path}");
            assert_eq!(runtime, (!expected.is_empty()).then_some(Runtime::Oci), "{path}");
        }
    }

    #[test]
    fn files_that_lie_or_do_not_end_give_no_name() {
        let host = Host::new();
        let a = id('a');
        let config = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{a}/config.json");
        let path = format!("/kubepods/pod{UID}/{a}");
        let unnamed = ("pod 1a2b3c4d…".to_owned(), "aaaaaaaaaaaa".to_owned());
        let long = json!({"annotations": {"io.kubernetes.cri.container-name": "x".repeat(2 << 20)}}).to_string();
        for text in [
            Vec::new(),
            b"{".to_vec(),
            b"[]".to_vec(),
            b"\xff\xfe\0".to_vec(),
            vec![b'['; 500_000],
            br#"{"annotations": {"io.kubernetes.cri.container-name": 1}}"#.to_vec(),
            br#"{"annotations": {"io.kubernetes.cri.container-name": ""}}"#.to_vec(),
            long.into_bytes(),
        ] {
            host.file(&config, &text);
            let (label, container, _, more) = host.named(&path);
            assert_eq!(
                ((label, container), more),
                (unnamed.clone(), true),
                "{}",
                text[..text.len().min(60)].escape_ascii()
            );
        }
        // The name of another pod, and one that would steer a terminal.
        let other = json!({"annotations": {"io.kubernetes.cri.sandbox-name": "x", "io.kubernetes.cri.sandbox-uid": "other",
            "io.kubernetes.cri.container-name": "\u{1b}[31m".repeat(100)}});
        host.file(&config, other.to_string());
        let (label, container, ..) = host.named(&path);
        assert_eq!(label, unnamed.0);
        assert!(container.starts_with("?[31m") && container.chars().count() <= 64, "{container}");
        // A link to a file that is not the runtime's.
        let secret = host.0.path().join("secret.json");
        fs::write(&secret, json!({"annotations": {"io.kubernetes.cri.container-name": "secret"}}).to_string()).unwrap();
        fs::remove_file(host.0.path().join(&config)).unwrap();
        std::os::unix::fs::symlink(&secret, host.0.path().join(&config)).unwrap();
        assert_eq!(host.named(&path).1, unnamed.1);
    }

    #[test]
    fn an_id_that_is_no_name_of_a_directory_is_not_looked_up() {
        for (id, expected) in
            [("a1", true), ("my-web_1.2", true), ("..", false), (".a", false), ("-a", false), ("", false)]
        {
            assert_eq!(file_name(&id.into()).is_some(), expected, "{id}");
        }
        assert!(file_name(&"a/../../etc".into()).is_none());
        assert!(file_name(&Name::new(b"a\0b")).is_none());
    }

    #[test]
    fn lists_of_all_containers_are_read_once_a_second() {
        let host = Host::new();
        let mut names = host.names();
        let now = Instant::now();
        let mut label = |id: &str, now| {
            let mut service = path::service(format!("/machine.slice/libpod-{id}.scope").as_bytes());
            names.complete(&mut service, now);
            service.label().to_string()
        };
        assert_eq!(label(&id('a'), now), "aaaaaaaaaaaa");
        let list = json!([{"id": id('a'), "names": ["web"]}]).to_string();
        host.file("var/lib/containers/storage/overlay-containers/containers.json", list);
        assert_eq!(label(&id('a'), now + FRESH / 2), "aaaaaaaaaaaa");
        assert_eq!(label(&id('a'), now + FRESH), "web");
    }
}
