//! Whom a socket or a process belongs to: a systemd unit, a pod, a container, a machine. The path of its cgroup says it.

use serde::{Deserialize, Serialize};

use super::name::Name;

/// A cgroup, by its id in cgroup2 (`kernfs_node.id`): the inode number of its directory, and what `ss --cgroup` looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CgroupId(pub u64);

/// What the path of a cgroup says, with the names that files on this host give to its ids. Parts nest: a pod has
/// containers, a machine has units of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// The path below the root of cgroup2, `/system.slice/nginx.service`.
    pub path: Option<Name>,
    /// The systemd unit or the scope of a session, `nginx.service`, `session-3.scope`; inside a machine, that of the machine.
    pub unit: Option<Name>,
    /// The Kubernetes pod.
    pub pod: Option<Pod>,
    /// The container.
    pub container: Option<Container>,
    /// The machine of systemd-nspawn, LXC or libvirt.
    pub machine: Option<Name>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// Its uid, with `-` between its parts.
    pub uid: Name,
    /// Its Kubernetes namespace, where a file names it.
    pub namespace: Option<Name>,
    /// Its name, where a file names it.
    pub name: Option<Name>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Container {
    /// Its id: 64 hex digits of most runtimes.
    pub id: Name,
    /// Its name, where a file names it.
    pub name: Option<Name>,
    /// Its runtime, as far as the path or the file shows it.
    pub runtime: Option<Runtime>,
}

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd.
    Containerd,
    /// CRI-O.
    CriO,
    /// podman.
    Podman,
    /// runc or crun without an engine.
    Oci,
}

impl Runtime {
    /// Its id, in lower case.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Oci => "oci",
        }
    }
}

/// Bytes of a container's id that its label shows, as `docker ps` does.
const SHORT_ID: usize = 12;
/// Bytes of a pod's uid that its label shows.
const SHORT_UID: usize = 8;

impl Service {
    /// What people call it: `shop/web-6f5d8`, the container's name, `machine: unit`, `nginx.service`; else the path. What a
    /// user's manager runs has that before it: `user@1000: app.service`.
    #[must_use]
    pub fn label(&self) -> Name {
        let label = self.label_of_itself();
        match self.user().filter(|_| self.kind() != "cgroup") {
            Some(user) => joined(user.strip_suffix(b".service").unwrap_or(user), b": ", label.as_bytes()),
            None => label,
        }
    }

    fn label_of_itself(&self) -> Name {
        if let Some(pod) = &self.pod {
            return pod.label();
        }
        if let Some(container) = &self.container {
            return container.label();
        }
        match (&self.machine, &self.unit) {
            (Some(machine), Some(unit)) => joined(machine.as_bytes(), b": ", unit.as_bytes()),
            (Some(name), None) | (None, Some(name)) => name.clone(),
            (None, None) => self.path.clone().unwrap_or_else(|| Name::from("unknown")),
        }
    }

    /// What all of its parts have in common, for a row that sums them: the pod alone, else the container, the machine,
    /// the unit, the path. What a user's manager runs keeps the path of that manager: another user may run the same unit.
    #[must_use]
    pub fn row_key(&self) -> Self {
        let Self { path, unit, pod, container, machine } = self;
        let manager = self.user().and_then(|user| path.as_ref().and_then(|path| up_to(path.as_bytes(), user)));
        let of_manager = Self { path: manager, ..Self::default() };
        if pod.is_some() {
            Self { pod: pod.clone(), ..of_manager }
        } else if container.is_some() {
            Self { container: container.clone(), ..of_manager }
        } else if machine.is_some() {
            Self { machine: machine.clone(), ..of_manager }
        } else if unit.is_some() {
            Self { unit: unit.clone(), ..of_manager }
        } else {
            Self { path: path.clone(), ..Self::default() }
        }
    }

    /// The manager of a user, `user@1000.service`, if this is one of the things that it runs.
    #[must_use]
    pub fn user(&self) -> Option<&[u8]> {
        let user = user_manager(self.path.as_ref()?.as_bytes())?;
        let is_itself = self.kind() == "unit" && self.unit.as_ref().is_some_and(|unit| unit.as_bytes() == user);
        (!is_itself).then_some(user)
    }

    /// Whether it is the root of all cgroups, which belongs to no service.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.kind() == "cgroup" && self.path.as_ref().is_some_and(|path| is_root_path(path.as_bytes()))
    }

    /// Whether its path alone is known: a runtime may still write that it is a container's.
    #[must_use]
    pub fn is_unnamed_cgroup(&self) -> bool {
        self.kind() == "cgroup" && !self.is_root()
    }

    /// What it is, in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let is_session = |unit: &Name| unit.as_bytes().starts_with(b"session-") && unit.as_bytes().ends_with(b".scope");
        match self {
            Self { pod: Some(_), .. } => "pod",
            Self { container: Some(_), .. } => "container",
            Self { machine: Some(_), .. } => "machine",
            Self { unit: Some(unit), .. } if is_session(unit) => "session",
            Self { unit: Some(_), .. } => "unit",
            _ => "cgroup",
        }
    }

    /// What a namespace is called by the service of a process or of sockets in it, and whether that is what people know it by
    /// even where `ip netns` has a name: a pod, a container or a machine has its namespace for itself. A unit may have
    /// entered one. Sessions, slices and other cgroups have many.
    #[must_use]
    pub fn namespace_name(&self) -> Option<(Name, bool)> {
        let label = || self.row_key().label();
        match self.kind() {
            "pod" | "container" | "machine" => Some((label(), true)),
            "unit" => Some((label(), false)).filter(|(unit, _)| !unit.as_bytes().ends_with(b".slice")),
            _ => None,
        }
    }
}

impl Pod {
    /// `namespace/name`, or the start of the uid where no file names it.
    #[must_use]
    pub fn label(&self) -> Name {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => joined(namespace.as_bytes(), b"/", name.as_bytes()),
            (None, Some(name)) => name.clone(),
            (_, None) => joined(b"pod ", &shortened(self.uid.as_bytes(), SHORT_UID), b""),
        }
    }
}

impl Container {
    /// Its name, or the start of its id where no file names it. An id that is shorter than usual was chosen by somebody.
    #[must_use]
    pub fn label(&self) -> Name {
        let id = self.id.as_bytes();
        let is_digits = id.len() > SHORT_ID && id.iter().all(u8::is_ascii_hexdigit);
        let by_id = || if is_digits { Name::new(&id[..SHORT_ID]) } else { self.id.clone() };
        self.name.clone().unwrap_or_else(by_id)
    }
}

/// Whether a cgroup's path is that of the root: `/`, or `/../..` in a private cgroup namespace, which shows all cgroups above
/// its own like this.
#[must_use]
pub(crate) fn is_root_path(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|segment| matches!(segment, b"" | b".."))
}

/// The manager of a user, `user@1000.service`, that a path is of. Everything below it is that user's to make and to name.
#[must_use]
pub(crate) fn user_manager(path: &[u8]) -> Option<&[u8]> {
    let mut segments = path.split(|byte| *byte == b'/').filter(|segment| !matches!(*segment, b"" | b".."));
    let (top, slice, manager) = (segments.next()?, segments.next()?, segments.next()?);
    let of_slice = slice.strip_prefix(b"user-")?.strip_suffix(b".slice")?;
    let of_manager = manager.strip_prefix(b"user@")?.strip_suffix(b".service")?;
    (top == b"user.slice" && of_slice == of_manager).then_some(manager)
}

/// The path as far as this segment.
fn up_to(path: &[u8], segment: &[u8]) -> Option<Name> {
    let at = path.windows(segment.len()).position(|window| window == segment)?;
    Some(Name::new(&path[..at + segment.len()]))
}

/// The first `length` bytes, with a mark where something is cut.
fn shortened(bytes: &[u8], length: usize) -> Vec<u8> {
    match bytes.get(..length) {
        Some(start) if bytes.len() > length => [start, "…".as_bytes()].concat(),
        _ => bytes.to_vec(),
    }
}

fn joined(first: &[u8], between: &[u8], second: &[u8]) -> Name {
    Name::new(&[first, between, second].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: Option<&str>, name: Option<&str>) -> Pod {
        let uid = "1a2b3c4d-0000-4000-8000-00000000000f".into();
        Pod { uid, namespace: namespace.map(Name::from), name: name.map(Name::from) }
    }

    fn container(id: &str, name: Option<&str>) -> Container {
        Container { id: id.into(), name: name.map(Name::from), runtime: None }
    }

    #[test]
    fn a_service_is_called_what_people_call_it() {
        let id = "0123456789abcdef".repeat(4);
        let (unit, machine) = (Some("nginx.service".into()), Some("web".into()));
        let path = Some("/x/y".into());
        let all = Service { path, unit, pod: Some(pod(Some("shop"), Some("web-6f5d8"))), container: None, machine };
        let no_pod = Service { pod: None, ..all.clone() };
        let unit_alone = Service { machine: None, ..no_pod.clone() };
        let session = Service { unit: Some("session-3.scope".into()), ..Service::default() };
        let named = |path: &str| Service { path: Some(path.into()), ..Service::default() };
        let of_container = |id: &str, name| Service { container: Some(container(id, name)), ..no_pod.clone() };
        for (service, label, kind) in [
            (all.clone(), "shop/web-6f5d8", "pod"),
            (Service { pod: Some(pod(None, Some("web"))), ..all.clone() }, "web", "pod"),
            (Service { pod: Some(pod(None, None)), ..all.clone() }, "pod 1a2b3c4d…", "pod"),
            (of_container(&id, Some("front")), "front", "container"),
            (of_container(&id, None), "0123456789ab", "container"),
            (of_container("my-own-long-name", None), "my-own-long-name", "container"),
            (no_pod.clone(), "web: nginx.service", "machine"),
            (Service { unit: None, ..no_pod.clone() }, "web", "machine"),
            (unit_alone.clone(), "nginx.service", "unit"),
            (session, "session-3.scope", "session"),
            (named("/x/y"), "/x/y", "cgroup"),
            (named("/"), "/", "cgroup"),
        ] {
            assert_eq!((&*service.label(), service.kind()), (label, kind), "{service:?}");
        }
        for (path, expected) in [
            ("/", true),
            ("/..", true),
            ("/../..", true),
            ("/x", false),
            ("/../x", false),
            ("/..x", false),
            ("/...", false),
        ] {
            assert_eq!((named(path).is_root(), named(path).is_unnamed_cgroup()), (expected, !expected), "{path}");
        }
        assert!(!all.is_root());
    }

    #[test]
    fn rows_sum_the_containers_of_a_pod_and_the_units_of_a_machine() {
        let pod_of =
            |name| Service { pod: Some(pod(None, None)), container: Some(container(name, None)), ..Service::default() };
        assert_ne!(pod_of("a"), pod_of("b"));
        assert_eq!(pod_of("a").row_key(), pod_of("b").row_key());
        let machine_of = |unit: &str| Service {
            machine: Some("web".into()),
            unit: Some(unit.into()),
            path: Some(unit.into()),
            ..Service::default()
        };
        assert_eq!(machine_of("a").row_key(), machine_of("b").row_key());
        let unit_of = |unit: &str| Service { machine: None, ..machine_of(unit) };
        assert_ne!(unit_of("a").row_key(), unit_of("b").row_key());
        let path_of = |path: &str| Service { path: Some(path.into()), ..Service::default() };
        assert_eq!(path_of("/a").row_key(), path_of("/a"));
        assert_eq!(pod_of("a").row_key().kind(), "pod");
    }

    #[test]
    fn what_two_users_run_under_the_same_name_is_two_services() {
        let of = |user: u32, rest: &str, service: Service| {
            let path = format!("/user.slice/user-{user}.slice/user@{user}.service{rest}");
            Service { path: Some(path.as_str().into()), ..service }
        };
        let unit = |unit: &str| Service { unit: Some(unit.into()), ..Service::default() };
        let container = Container { id: "web".into(), name: None, runtime: Some(Runtime::Oci) };
        let container = Service { container: Some(container), ..Service::default() };
        for (service, label) in [(unit("app.service"), "app.service"), (container, "web")] {
            let [one, two] = [1000, 1001].map(|user| of(user, "/app.slice/x", service.clone()));
            assert_ne!(one.row_key(), two.row_key());
            assert_eq!(one.row_key(), of(1000, "/y", service.clone()).row_key(), "its parts are one row");
            assert_ne!(one.row_key(), service.row_key(), "nor is it the host's");
            for it in [one.clone(), one.row_key(), one.row_key().row_key()] {
                assert_eq!(&*it.label(), format!("user@1000: {label}"));
            }
        }
        let manager = of(1000, "/init.scope", unit("user@1000.service"));
        assert_eq!((&*manager.label(), manager.row_key()), ("user@1000.service", unit("user@1000.service")));
        let false_one = of(1000, "/user@1001.service", unit("user@1001.service"));
        assert_eq!(&*false_one.label(), "user@1000: user@1001.service");
        let session =
            Service { path: Some("/user.slice/user-0.slice/session-3.scope".into()), ..unit("session-3.scope") };
        assert_eq!(&*session.row_key().label(), "session-3.scope");
        for path in
            ["/x/user.slice/user-1.slice/user@1.service/a", "/user.slice/user-1.slice/user@2.service/a", "/user.slice"]
        {
            assert_eq!(user_manager(path.as_bytes()), None, "{path}");
        }
        assert!(user_manager(b"/../../user.slice/user-1.slice/user@1.service/a").is_some());
    }

    #[test]
    fn names_chosen_to_deceive_are_shown_folded_and_cut() {
        let evil = Name::new(b"\x1b[31m\xff\xfe");
        let service =
            Service { pod: Some(Pod { uid: evil.clone(), namespace: None, name: Some(evil) }), ..Service::default() };
        assert!(service.label().chars().all(|c| !c.is_control()));
        let long = Service { unit: Some(Name::new(&[b'x'; 300])), machine: Some("m".into()), ..Service::default() };
        assert!(super::super::name::columns(&long.label()) <= 64);
    }

    #[test]
    fn services_that_have_a_namespace_for_themselves_name_it_first() {
        let unit = |unit: &str| Service { unit: Some(unit.into()), ..Service::default() };
        let container = Container { id: "front".into(), name: None, runtime: None };
        let pod = Pod { uid: "u".into(), namespace: Some("shop".into()), name: Some("web".into()) };
        let machine = Service { machine: Some("web".into()), ..unit("init.scope") };
        let of_container = Service { container: Some(container), ..unit("a.service") };
        let of_pod = Service { pod: Some(pod), ..of_container.clone() };
        let path = Service { path: Some("/x".into()), ..Service::default() };
        for (service, expected) in [
            (of_pod, Some(("shop/web", true))),
            (of_container, Some(("front", true))),
            (machine, Some(("web", true))),
            (unit("nginx.service"), Some(("nginx.service", false))),
            (unit("session-3.scope"), None),
            (unit("user.slice"), None),
            (path, None),
        ] {
            let name = service.namespace_name();
            assert_eq!(name.as_ref().map(|(name, first)| (&**name, *first)), expected, "{service:?}");
        }
    }
}
