//! What the path of a cgroup says of the service in it. Runtimes and init systems agree on no format: this knows their
//! habits. A path may begin anywhere (`/../..` in a cgroup namespace, a bind mount, a node that is a container itself),
//! therefore segments are looked for and nothing is expected at the start.

use crate::model::{
    name::Name,
    service::{Container, Pod, Runtime, Service, user_manager},
};

/// The longest path that is kept; the kernel's longest is 4,096 bytes.
const LONGEST_PATH: usize = 1024;
/// The longest part that is kept: no directory has a longer name.
const LONGEST_PART: usize = 255;
/// What the kernel adds to the path of a removed cgroup.
const DELETED: &[u8] = b" (deleted)";
/// Endings of the units that have processes.
const UNIT_ENDINGS: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];

/// What a path says.
#[must_use]
pub(super) fn service(path: &[u8]) -> Service {
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    // A user may give any name to a cgroup below the own manager: what looks like a pod there is none of this host's.
    let mut reader = Reader { may_be_pod: user_manager(path).is_none(), ..Reader::default() };
    let mut parent: &[u8] = b"";
    for segment in path.split(|byte| *byte == b'/').filter(|segment| !matches!(*segment, b"" | b"." | b"..")) {
        reader.take(segment, parent);
        parent = segment;
    }
    Service { path: Some(Name::new(cut(path, LONGEST_PATH))), ..reader.service }
}

#[derive(Default)]
struct Reader {
    service: Service,
    /// The unit is a slice: one of another kind below says more.
    is_slice: bool,
    /// Whether pods are looked for.
    may_be_pod: bool,
}

impl Reader {
    fn take(&mut self, segment: &[u8], parent: &[u8]) {
        // containerd's name for systemd, where it manages cgroups as files: `kubepods-….slice:cri-containerd:<id>`.
        let (slice, more) = segment.iter().position(|byte| *byte == b':').map_or((segment, &b""[..]), |at| {
            let (slice, more) = segment.split_at(at);
            (slice, &more[1..])
        });
        if let Some(pod) = pod(slice, parent).filter(|_| self.may_be_pod) {
            // The outer one is that of this host. What is inside a container of it, files of this host do not name.
            self.service.pod.get_or_insert(pod);
            self.enter();
            self.service.container = None;
            if more.is_empty() {
                return;
            }
        }
        if let Some((container, keeps_unit)) = container(segment, parent) {
            if !keeps_unit {
                self.enter();
            }
            self.service.container = Some(container);
        } else if let Some(machine) = machine(segment, parent).or_else(|| self.payload(segment, parent)) {
            self.enter();
            self.service.container = None;
            self.service.machine = Some(machine);
        } else {
            self.take_unit(segment);
        }
    }

    /// systemd-nspawn puts a machine into `payload` below its own cgroup, which is a unit of any name (`--keep-unit`).
    fn payload(&self, segment: &[u8], parent: &[u8]) -> Option<Name> {
        let is_first = self.service.machine.is_none() && self.service.container.is_none();
        let name = UNIT_ENDINGS.iter().find_map(|ending| parent.strip_suffix(*ending)).unwrap_or(parent);
        (segment == b"payload" && is_first).then(|| if name.is_empty() { part(segment) } else { part(name) })
    }

    /// Units outside say nothing of what is inside.
    fn enter(&mut self) {
        self.service.unit = None;
        self.is_slice = false;
    }

    fn take_unit(&mut self, segment: &[u8]) {
        // systemd escapes a unit that is called as a file of cgroupfs (`cpu.service`) with an underscore.
        let name = segment.strip_prefix(b"_").filter(|rest| is_unit(rest)).unwrap_or(segment);
        let has_unit = self.service.unit.is_some() && !self.is_slice;
        if is_unit(name) {
            // The manager of a user puts itself into a scope of its own.
            if name == b"init.scope" && has_unit {
                return;
            }
            self.service.unit = Some(part(name));
            self.is_slice = false;
        } else if name.ends_with(b".slice") && name.len() > b".slice".len() && !has_unit {
            self.service.unit = Some(part(name));
            self.is_slice = true;
        }
    }
}

/// `pod<uid>` of the cgroupfs driver; `kubepods-burstable-pod<uid>.slice` of the systemd driver, with `_` in the uid
/// where `-` separates slices, and with a prefix below a kubelet that is in a container itself. A pod of the guaranteed
/// class has no class in its path.
fn pod(segment: &[u8], parent: &[u8]) -> Option<Pod> {
    let is_of_kubepods = |name: &[u8]| contains(name, b"kubepods");
    let is_class = |name: &[u8]| is_of_kubepods(name) || matches!(name, b"burstable" | b"besteffort" | b"guaranteed");
    let uid = if let Some(slice) = segment.strip_suffix(b".slice") {
        let at = slice.windows(4).rposition(|window| window == b"-pod").filter(|_| is_of_kubepods(slice))?;
        slice[at + 4..].iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
    } else {
        let uid = segment.strip_prefix(b"pod")?;
        // The manifest of a static pod may choose any uid; elsewhere a directory may be called `podcast`.
        (is_uid(uid) || is_class(parent)).then(|| uid.to_vec())?
    };
    (!uid.is_empty()).then(|| Pod { uid: part(&uid), namespace: None, name: None })
}

/// A UUID, or the 32 digits of the hash that a static pod has in its place.
fn is_uid(text: &[u8]) -> bool {
    let is_uuid = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text[*at] == b'-');
    let digits = text.iter().filter(|byte| **byte != b'-').count();
    digits == 32 && (is_uuid || text.len() == 32) && text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
}

/// A container, and whether the unit around it is its own.
fn container(segment: &[u8], parent: &[u8]) -> Option<(Container, bool)> {
    let mut fields = segment.split(|byte| *byte == b':');
    if let (Some(_), Some(prefix), Some(id), None) = (fields.next(), fields.next(), fields.next(), fields.next()) {
        return is_id(id).then(|| (of(id, runtime(prefix)), false));
    }
    let name = segment.strip_suffix(b".scope").unwrap_or(segment);
    if is_id(name) {
        let runtime = if parent == b"docker" { Some(Runtime::Docker) } else { None };
        return Some((of(name, runtime), false));
    }
    if let Some(at) = name.iter().rposition(|byte| *byte == b'-') {
        let (prefix, id) = (&name[..at], &name[at + 1..]);
        // The monitor of a container is outside it.
        if is_id(id) && !prefix.ends_with(b"conmon") {
            return Some((of(id, runtime(prefix)), prefix == b"libpod-payload"));
        }
    }
    // runc and crun with systemd: people choose the name.
    let is_scope = name.len() < segment.len();
    let chosen = [&b"runc-"[..], b"crun-"].iter().find_map(|prefix| name.strip_prefix(*prefix));
    let id = chosen.filter(|id| is_scope && !id.is_empty())?;
    Some((of(id, Some(Runtime::Oci)), false))
}

fn of(id: &[u8], runtime: Option<Runtime>) -> Container {
    Container { id: part(id), name: None, runtime }
}

/// 64 hex digits; Fargate's have 32, a hyphen and a number.
fn is_id(text: &[u8]) -> bool {
    let is_hex = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
    match text.len() {
        64 => is_hex(text),
        34..=44 => is_hex(&text[..32]) && text[32] == b'-' && text[33..].iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn runtime(prefix: &[u8]) -> Option<Runtime> {
    Some(match prefix {
        b"docker" => Runtime::Docker,
        b"cri-containerd" | b"nerdctl" => Runtime::Containerd,
        b"crio" => Runtime::CriO,
        b"libpod" | b"libpod-payload" => Runtime::Podman,
        b"runc" | b"crun" => Runtime::Oci,
        _ => return None,
    })
}

/// A machine of systemd-machined, nspawn, LXC, libvirt or Proxmox.
fn machine(segment: &[u8], parent: &[u8]) -> Option<Name> {
    let between = |prefix: &[u8], suffix: &[u8]| segment.strip_prefix(prefix)?.strip_suffix(suffix);
    let is_monitor = |name: &&[u8]| !name.starts_with(b"lxc.monitor");
    let name = between(b"machine-", b".scope")
        .or_else(|| between(b"systemd-nspawn@", b".service"))
        .or_else(|| segment.strip_prefix(b"lxc.payload."))
        .or_else(|| matches!(parent, b"lxc" | b"lxc.payload").then_some(segment).filter(is_monitor))
        .or_else(|| segment.strip_suffix(b".libvirt-qemu").or_else(|| segment.strip_suffix(b".libvirt-lxc")))
        .or_else(|| segment.strip_suffix(b".scope").filter(|_| parent == b"qemu.slice"))?;
    let name = unescaped(name);
    (!name.is_empty()).then(|| part(&name))
}

/// Undoes `systemd-escape`, which writes bytes that separate slices as `\x2d`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|after| after.get(..2));
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[4..] } else { after };
    }
    out
}

fn is_unit(name: &[u8]) -> bool {
    UNIT_ENDINGS.iter().any(|ending| name.len() > ending.len() && name.ends_with(ending))
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

fn part(bytes: &[u8]) -> Name {
    Name::new(cut(bytes, LONGEST_PART))
}

fn cut(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "1a2b3c4d-0000-4000-8000-00000000000f";

    /// Real paths, and their [`parts`]. `SLICE` is the uid in the name of a slice, `OUTER` another id.
    const REAL: [(&str, &str); 82] = [
        // systemd
        ("/", ""),
        ("/init.scope", "unit init.scope"),
        ("/system.slice/nginx.service", "unit nginx.service"),
        ("/system.slice/nginx.service (deleted)", "unit nginx.service"),
        ("/../../system.slice/nginx.service", "unit nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "unit getty@tty1.service"),
        ("/system.slice/system-systemd\\x2dfsck.slice", "unit system-systemd\\x2dfsck.slice"),
        ("/system.slice/dev-disk-by\\x2duuid-1.swap", "unit dev-disk-by\\x2duuid-1.swap"),
        ("/system.slice/_cpu.service", "unit cpu.service"),
        ("/system.slice/systemd-udevd.service/udev", "unit systemd-udevd.service"),
        ("/system.slice/dbus-:1.2-org.freedesktop.x@0.service", "unit dbus-:1.2-org.freedesktop.x@0.service"),
        ("/system.slice", "unit system.slice"),
        ("/user.slice/user-1000.slice", "unit user-1000.slice"),
        ("/user.slice/user-1000.slice/session-3.scope", "unit session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "unit user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice", "unit user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "unit foo.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.slice/vte-1.scope", "unit vte-1.scope"),
        // Kubernetes: cgroupfs and systemd, the three classes, a static pod, a kubelet in a container
        ("/kubepods/burstable/podUID/ID", "pod UID, container ID ?"),
        ("/kubepods/podUID/ID", "pod UID, container ID ?"),
        ("/kubepods/besteffort/podUID", "pod UID"),
        ("/kubepods/burstable/podmy-own/ID", "pod my-own, container ID ?"),
        ("/user/podcast", ""),
        (
            "/kubepods/besteffort/pod0123456789abcdef0123456789abcdef/ID",
            "pod 0123456789abcdef0123456789abcdef, container ID ?",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE.slice/cri-containerd-ID.scope",
            "pod UID, container ID Containerd",
        ),
        ("/kubepods.slice/kubepods-podSLICE.slice/crio-ID.scope", "pod UID, container ID CriO"),
        ("/kubepods.slice/kubepods-podSLICE.slice/crio-ID.scope/container", "pod UID, container ID CriO"),
        ("/kubepods.slice/kubepods-podSLICE.slice/docker-ID.scope", "pod UID, container ID Docker"),
        ("/kubepods.slice/kubepods-podSLICE.slice/crio-conmon-ID.scope", "pod UID, unit crio-conmon-ID.scope"),
        ("/kubepods/burstable/podUID/crio-conmon-ID", "pod UID"),
        ("/kubepods/burstable/podUID/crio-ID", "pod UID, container ID CriO"),
        ("/docker/OUTER/kubelet/kubepods/burstable/podUID/ID", "pod UID, container ID ?"),
        ("/docker/OUTER/kubelet/kubepods/burstable/podUID", "pod UID"),
        (
            "/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podSLICE.slice/cri-containerd-ID.scope",
            "pod UID, container ID Containerd",
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-podSLICE.slice:cri-containerd:ID",
            "pod UID, container ID Containerd",
        ),
        ("/kubepods/podUID/OUTER/docker/ID", "pod UID, container ID Docker"),
        ("/kubepods/podUID/OUTER/kubepods/pod0123456789abcdef0123456789abcdef/ID", "pod UID, container ID ?"),
        // A user who calls cgroups as kubelet does
        ("/user.slice/user-1000.slice/user@1000.service/kubepods/burstable/podUID/ID", "container ID ?"),
        ("/user.slice/user-1000.slice/user@1000.service/kubepods/podUID", "unit user@1000.service"),
        (
            "/../user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-podSLICE.slice/cri-containerd-ID.scope",
            "container ID Containerd",
        ),
        // Docker, podman, runc, ECS
        ("/docker/ID", "container ID Docker"),
        ("/docker/ID/init", "container ID Docker"),
        ("/docker/ID/system.slice/nginx.service", "container ID Docker, unit nginx.service"),
        ("/docker/OUTER/docker/ID", "container ID Docker"),
        ("/actions_job/ID", "container ID ?"),
        ("/system.slice/docker-ID.scope", "container ID Docker"),
        ("/system.slice/docker.service", "unit docker.service"),
        ("/machine.slice/libpod-ID.scope", "container ID Podman"),
        ("/machine.slice/libpod-ID.scope/container", "container ID Podman"),
        ("/machine.slice/libpod-conmon-ID.scope", "unit libpod-conmon-ID.scope"),
        ("/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope", "container ID Podman"),
        ("/libpod_parent/libpod-ID", "container ID Podman"),
        ("/libpod_parent/libpod-conmon-ID", ""),
        ("/libpod_parent/conmon", ""),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", "container ID Podman"),
        ("/system.slice/web.service/libpod-payload-ID", "container ID Podman, unit web.service"),
        ("/system.slice/web.service/runtime", "unit web.service"),
        ("/system.slice/nerdctl-ID.scope", "container ID Containerd"),
        ("/system.slice/runc-my-web.scope", "container my-web Oci"),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/crun-web.scope", "container web Oci"),
        ("/web", ""),
        ("/user.slice/user-0.slice/session-3.scope/web", "unit session-3.scope"),
        (
            "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
            "container 0123456789abcdef0123456789abcdef-1234567890 ?",
        ),
        // Machines
        ("/machine.slice/machine-web.scope", "machine web"),
        ("/machine.slice/machine-web.scope/supervisor", "machine web"),
        ("/machine.slice/machine-web.scope/payload", "machine web"),
        ("/machine.slice/machine-web.scope/payload/init.scope", "machine web, unit init.scope"),
        ("/machine.slice/machine-web.scope/payload/system.slice/nginx.service", "machine web, unit nginx.service"),
        ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service", "machine web, unit a.service"),
        ("/system.slice/build.service/payload/system.slice/a.service", "machine build, unit a.service"),
        ("/system.slice/build.service/supervisor", "unit build.service"),
        ("/payload/system.slice/a.service", "machine payload, unit a.service"),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator", "machine qemu-1-vm"),
        ("/machine/vm.libvirt-qemu/emulator", "machine vm"),
        ("/qemu.slice/100.scope", "machine 100"),
        ("/lxc.payload.web/system.slice/nginx.service", "machine web, unit nginx.service"),
        ("/lxc.payload.web", "machine web"),
        ("/lxc.payload/web/init.scope", "machine web, unit init.scope"),
        ("/lxc.monitor.web", ""),
        ("/lxc.monitor/web", ""),
        ("/lxc/101/ns/system.slice/ssh.service", "machine 101, unit ssh.service"),
        ("/lxc.payload.web/docker/ID", "container ID Docker, machine web"),
    ];

    /// `UNIT`, `pod UID`, `container RUNTIME`, `machine NAME`: each part that the service has, with `ID` for the id.
    fn parts(service: &Service, id: &str) -> String {
        let mut parts = Vec::new();
        parts.extend(service.pod.as_ref().map(|pod| format!("pod {}", pod.uid.as_bytes().escape_ascii())));
        parts.extend(service.container.as_ref().map(|container| {
            let runtime = container.runtime.map_or_else(|| "?".to_owned(), |runtime| format!("{runtime:?}"));
            format!("container {} {runtime}", container.id.as_bytes().escape_ascii())
        }));
        parts.extend(service.machine.as_ref().map(|name| format!("machine {}", name.as_bytes().escape_ascii())));
        parts.extend(service.unit.as_ref().map(|unit| format!("unit {}", String::from_utf8_lossy(unit.as_bytes()))));
        parts.join(", ").replace(id, "ID").replace(UID, "UID")
    }

    #[test]
    fn the_paths_of_runtimes_and_init_systems_are_understood() {
        let id = "0123456789abcdef".repeat(4);
        let outer = "fedcba9876543210".repeat(4);
        let slice_uid = UID.replace('-', "_");
        for (path, expected) in REAL {
            let path = path.replace("SLICE", &slice_uid).replace("UID", UID).replace("ID", &id);
            let path = path.replace("OUTER", &outer);
            let service = service(path.as_bytes());
            assert_eq!(parts(&service, &id).replace(&outer, "OUTER"), expected, "{path}");
            assert_eq!(service.path.unwrap().as_bytes(), path.trim_end_matches(" (deleted)").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_or_its_parts_long(path in prop::collection::vec(any::<u8>(), 0..6000)) {
            assert_bounded(&path)?;
        }

        #[test]
        fn no_order_of_real_segments_makes_it_fail(
            segments in prop::collection::vec(prop::sample::select(vec![
                "kubepods", "kubepods.slice", "pod", "-pod", "kubepods-pod.slice", "kubepods-pod_.slice", "x:y:z", "::",
                "docker", "docker-", ".scope", "-.scope", "_", "_.service", ".slice", "machine-.scope", "machine-x.scope",
                "lxc", "lxc.payload.", "payload", "\\x", "\\x2", "runc-.scope", "qemu.slice", "..", " (deleted)",
                "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "machine-\\x00.scope",
            ]), 0..12),
            separators in prop::collection::vec(prop::sample::select(vec!["/", "", "-"]), 12),
        ) {
            let path: String = segments.iter().zip(&separators).flat_map(|(segment, it)| [*it, *segment]).collect();
            assert_bounded(path.as_bytes())?;
        }
    }

    fn assert_bounded(path: &[u8]) -> Result<(), TestCaseError> {
        let service = service(path);
        let Service { path, unit, pod, container, machine } = &service;
        let names =
            [unit.as_ref(), machine.as_ref(), pod.as_ref().map(|it| &it.uid), container.as_ref().map(|it| &it.id)];
        for name in names.into_iter().flatten() {
            prop_assert!((1..=LONGEST_PART).contains(&name.as_bytes().len()), "{name:?}");
        }
        prop_assert!(path.as_ref().unwrap().as_bytes().len() <= LONGEST_PATH);
        let _ = (service.label(), service.row_key());
        Ok(())
    }
}
