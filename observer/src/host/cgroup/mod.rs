//! Whose a cgroup is: its path by its id, the parts that the path has, and the names that files on this host give to them.

mod files;
mod names;
mod path;
mod states;
mod tree;

#[cfg(test)]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

#[cfg(any(test, feature = "fuzzing"))]
use self::files::Found;
use self::{
    names::Names,
    tree::{Lookup, Tree},
};
use super::{proc, text};
use crate::model::{
    name::Name,
    service::{CgroupId, Service},
    units::Pid,
};

/// When a name that no file has is asked for again: kubelet and the runtimes write their files a moment after the start.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// Cgroups that are remembered. The caller forgets those that it needs no longer.
const MOST_KNOWN: usize = 65_536;
/// Paths of processes' cgroups that are remembered, and for how long: another container may have the same path later.
const MOST_PATHS: usize = 4_096;
const PATH_LASTS: Duration = Duration::from_mins(1);

/// Finds out whose a cgroup is, and remembers it.
#[derive(Debug, Default)]
pub struct Resolver {
    tree: Tree,
    names: Names,
    known: FxHashMap<CgroupId, Known>,
    /// By the path of the cgroup of a process.
    by_path: FxHashMap<Name, (Instant, Known)>,
}

/// What is known of a cgroup.
#[derive(Debug)]
struct Known {
    /// `None`: it had ended when it was looked for, and no other gets its id.
    service: Option<Service>,
    /// When its names are asked for again, and how often they were.
    next: Option<Instant>,
    asked: usize,
}

impl Known {
    fn ask(&mut self, names: &mut Names, now: Instant) {
        let Some(service) = self.service.as_mut().filter(|_| self.next.is_some_and(|next| next <= now)) else { return };
        let may_come = names.complete(service, now);
        self.next = PAUSES.get(self.asked).filter(|_| may_come).map(|pause| now + *pause);
        self.asked += 1;
    }
}

impl Resolver {
    /// For this host.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the files of runtimes below another directory.
    #[cfg(test)]
    fn with_base(base: PathBuf) -> Self {
        Self { names: Names::new(base), ..Self::default() }
    }

    /// The service that a cgroup belongs to. `None` where it has ended before anybody asked, or is not shown here. To ask
    /// again costs a look into a table; a name that no file had at first may be there then.
    pub fn resolve(&mut self, id: CgroupId) -> Option<Service> {
        self.resolve_at(id, Instant::now())
    }

    fn resolve_at(&mut self, id: CgroupId, now: Instant) -> Option<Service> {
        if !self.known.contains_key(&id) {
            let service = match self.tree.path(id, now) {
                Lookup::Path(path) => Some(path::service(&path)),
                Lookup::Gone => None,
                Lookup::Unknown => return None,
            };
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert(id, Known { service, next: Some(now), asked: 0 });
        }
        let known = self.known.get_mut(&id)?;
        known.ask(&mut self.names, now);
        known.service.clone()
    }

    /// The service that a process belongs to now.
    pub fn of_process(&mut self, pid: Pid) -> Option<Service> {
        let lines = text::bytes(proc::file(pid, "cgroup")).ok()?;
        self.complete(of_lines(&lines)?, Instant::now())
    }

    /// The service of a process that it was asked for before, with the names that files have of it by now. It costs a look
    /// into a table.
    pub fn again(&mut self, service: &Service) -> Option<Service> {
        self.complete(path::service(service.path.as_ref()?.as_bytes()), Instant::now())
    }

    /// Adds the names that files have, or had when they were read last.
    fn complete(&mut self, service: Service, now: Instant) -> Option<Service> {
        let path = service.path.clone()?;
        let is_old = |since: &Instant| now.saturating_duration_since(*since) >= PATH_LASTS;
        if self.by_path.len() >= MOST_PATHS && !self.by_path.contains_key(&path) {
            self.by_path.clear();
        } else if self.by_path.get(&path).is_some_and(|(since, _)| is_old(since)) {
            self.by_path.remove(&path);
        }
        let new = || (now, Known { service: Some(service), next: Some(now), asked: 0 });
        let (_, known) = self.by_path.entry(path).or_insert_with(new);
        known.ask(&mut self.names, now);
        known.service.clone()
    }

    /// Forgets a cgroup.
    pub fn forget(&mut self, id: CgroupId) {
        self.known.remove(&id);
        self.tree.forget(id);
    }
}

/// The most specific of the services that /proc/PID/cgroup has: "0::/system.slice/nginx.service" is cgroup2. On hosts with
/// both versions it is `/`, or the cgroup of the engine that started a container; the lines of v1 say more then.
fn of_lines(lines: &[u8]) -> Option<Service> {
    let mut services: Vec<(usize, Service)> = lines.split(|byte| *byte == b'\n').filter_map(of_line).collect();
    services.sort_by_key(|(rank, _)| *rank);
    let services: Vec<Service> = services.into_iter().map(|(_, service)| service).collect();
    let first = |is_wanted: fn(&Service) -> bool| services.iter().find(|service| is_wanted(service));
    first(|it| it.pod.is_some() || it.container.is_some())
        .or_else(|| first(|it| it.machine.is_some()))
        .or_else(|| first(|it| !it.is_root()))
        .or_else(|| services.first())
        .cloned()
}

/// What is made of bytes as a path, as lines of /proc/PID/cgroup, and as each file that names containers: all names together.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn all_in(bytes: &[u8]) -> Vec<Service> {
    let files = files::found_in(bytes);
    let logs = std::str::from_utf8(bytes).ok().map(|text| [names::pod_log(text), names::container_log(text)]);
    let found: Vec<Found> =
        files.into_iter().chain(logs.into_iter().flatten().flatten().map(|(_, found)| found)).collect();
    let cgroups = states::cgroups_in(bytes);
    let paths = cgroups.iter().map(String::as_bytes).chain([bytes]).map(path::service);
    let mut services: Vec<Service> = paths.chain(of_lines(bytes)).collect();
    for service in &mut services {
        for found in &found {
            names::merge(service, found);
        }
    }
    services
}

/// The service of one line, and its place among the others.
fn of_line(line: &[u8]) -> Option<(usize, Service)> {
    /// v1 hierarchies, those first in which init systems and runtimes make a cgroup for each service.
    const HIERARCHIES: [&[u8]; 7] = [b"name=systemd", b"pids", b"memory", b"cpu", b"devices", b"freezer", b"blkio"];
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let rank = |name: &[u8]| HIERARCHIES.iter().position(|it| *it == name).map_or(HIERARCHIES.len() + 1, |at| at + 1);
    let rank = match controllers {
        b"" => 0,
        _ => controllers.split(|byte| *byte == b',').map(rank).min()?,
    };
    let service = path.starts_with(b"/").then(|| path::service(path))?;
    // A path that names nothing is a service where init systems and runtimes make one for each. In another hierarchy of v1 it
    // is a group with a limit, whatever is in it.
    let is_group = rank > 1 && service.is_unnamed_cgroup();
    (!is_group).then_some((rank, service))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_most_specific_line_of_a_process_is_taken() {
        let id = "0123456789abcdef".repeat(4);
        for (lines, expected) in [
            ("4:memory:/limited/1\n1:name=systemd:/\n0::/\n", "/"),
            ("4:memory:/web\n1:name=systemd:/web\n0::/\n", "/web"),
            ("0::/system.slice/nginx.service\n", "nginx.service"),
            ("0::/../../system.slice/nginx.service\n", "nginx.service"),
            ("0::/\n", "/"),
            // Hybrid, in a cgroup namespace: the root is above it.
            ("1:name=systemd:/../../system.slice/a.service\n0::/../..\n", "a.service"),
            ("1:name=systemd:/../x\n0::/../..\n", "/../x"),
            ("0::/../..\n", "/../.."),
            // A host with both versions, before and after the engine's unit shows in cgroup2.
            ("8:pids:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n", "0123456789ab"),
            ("8:pids:/docker/ID\n0::/system.slice/containerd.service\n", "0123456789ab"),
            // v1 alone: systemd's hierarchy, then by controller.
            ("9:blkio:/x\n8:pids:/y\n2:cpu,cpuacct:/z\n1:name=systemd:/system.slice/a.service\n", "a.service"),
            ("9:blkio:/x\n8:pids:/y\n2:cpu,cpuacct:/z\n1:name=systemd:/\n", "/"),
            ("2:cpuacct,cpu:/docker/ID\n9:blkio:/x\n3:hugetlb:/h\n", "0123456789ab"),
            ("1:name=systemd:/a:b\n0::/\n", "/a:b"),
            ("0::/lxc.payload.web/system.slice/a.service\n1:name=systemd:/b\n", "web: a.service"),
        ] {
            let service = of_lines(lines.replace("ID", &id).as_bytes()).unwrap();
            assert_eq!(&*service.label(), expected, "{lines}");
        }
        for lines in ["", "\n", "nonsense", "0:", "0::", "0::relative", "3:hugetlb:/h\n"] {
            assert_eq!(of_lines(lines.as_bytes()), None, "{lines}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_yet_is_asked_for_again_a_few_times() {
        let host = tempfile::tempdir().unwrap();
        let mut resolver = Resolver::with_base(host.path().to_owned());
        let (id, start) = (CgroupId(7), Instant::now());
        let pod = "1a2b3c4d-0000-4000-8000-00000000000f";
        let service = path::service(format!("/kubepods/pod{pod}").as_bytes());
        let known = || Known { service: Some(service.clone()), next: Some(start), asked: 0 };
        let label = |resolver: &mut Resolver, seconds: u64| {
            resolver.resolve_at(id, start + Duration::from_secs(seconds)).unwrap().label().to_string()
        };
        resolver.known.insert(id, known());
        assert_eq!(label(&mut resolver, 0), "pod 1a2b3c4d…");
        fs::create_dir_all(host.path().join(format!("var/log/pods/shop_web_{pod}"))).unwrap();
        assert_eq!(label(&mut resolver, 0), "pod 1a2b3c4d…", "no pause has passed");
        assert_eq!(label(&mut resolver, 1), "shop/web");
        fs::remove_dir_all(host.path().join("var")).unwrap();
        assert_eq!(label(&mut resolver, 9), "shop/web", "it is kept with its cgroup");
        resolver.known.insert(id, known());
        for second in 10..100 {
            assert_eq!(label(&mut resolver, second), "pod 1a2b3c4d…");
        }
        assert_eq!(resolver.known[&id].asked, 1 + PAUSES.len());
        resolver.forget(id);
        assert!(resolver.known.is_empty());
    }

    #[test]
    fn the_name_of_a_process_is_asked_for_as_often_as_that_of_a_cgroup() {
        let host = tempfile::tempdir().unwrap();
        let (mut resolver, start) = (Resolver::with_base(host.path().to_owned()), Instant::now());
        let pod = "1a2b3c4d-0000-4000-8000-00000000000f";
        let service = || path::service(format!("/kubepods/pod{pod}").as_bytes());
        let mut label = |seconds: u64| {
            let found = resolver.complete(service(), start + Duration::from_secs(seconds)).unwrap();
            (found.label().to_string(), resolver.by_path[&found.path.unwrap()].1.asked)
        };
        assert_eq!(label(0), ("pod 1a2b3c4d…".to_owned(), 1));
        fs::create_dir_all(host.path().join(format!("var/log/pods/shop_web_{pod}"))).unwrap();
        assert_eq!(label(0), ("pod 1a2b3c4d…".to_owned(), 1), "no pause has passed");
        assert_eq!(label(1), ("shop/web".to_owned(), 2));
        assert_eq!(label(59), ("shop/web".to_owned(), 2), "nothing more is to be asked");
        assert_eq!(label(60), ("shop/web".to_owned(), 1), "another container may have this path by now");
        for n in 0..2 * MOST_PATHS {
            let other = path::service(format!("/x{n}").as_bytes());
            resolver.complete(other, start);
        }
        assert!(resolver.by_path.len() <= MOST_PATHS);
    }

    #[test]
    fn this_process_belongs_to_something() {
        let mut resolver = Resolver::new();
        let service = resolver.of_process(Pid(std::process::id())).unwrap();
        assert!(service.path.unwrap().as_bytes().starts_with(b"/"));
        // The largest pid is 2^22.
        assert_eq!(resolver.of_process(Pid(1 << 23)), None);
    }
}
