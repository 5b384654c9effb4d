//! From the cgroup of a socket to its container.

use std::{
    fs,
    os::fd::AsFd as _,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use observer::{
    host::cgroup::Resolver,
    model::{
        service::{CgroupId, Runtime, Service},
        units::Pid,
    },
};
use rustix::{
    thread::{
        CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space, set_capabilities,
        unshare_unsafe,
    },
    time::{ClockId, clock_gettime},
};

use crate::{
    machine::Machine,
    runtimes::{Network, Podman, Runc, cgroup2, inode, listener_cgroup, run, unique, wait_until},
};

/// Runs `test` on a thread in a new network namespace with `lo` up.
pub(crate) fn in_private_netns(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| {
        // SAFETY: only this thread's network namespace is split off; no file table is.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("these tests need root");
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `test` on a thread that may not use file handles.
fn without_handles<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let helper = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            test()
        });
        helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `test` on a thread in the network namespace of a process.
fn in_netns_of<T: Send>(pid: u32, test: impl FnOnce() -> T + Send) -> T {
    let netns = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            test()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The id of the listener's cgroup: the path is what `ss` shows, the id is the inode of that directory.
fn cgroup_of_listener(port: u16) -> CgroupId {
    let mut path = None;
    wait_until("the container listens", || {
        path = listener_cgroup(port);
        path.is_some()
    });
    CgroupId(inode(&cgroup2().join(path.unwrap().trim_start_matches('/'))))
}

#[track_caller]
fn assert_is(service: &Service, id: &str, name: Option<&str>, runtime: Runtime) {
    let container = service.container.as_ref().unwrap_or_else(|| panic!("{service:?}"));
    let found = (&*container.id, container.name.as_deref(), container.runtime, service.kind());
    // A name is cut where it is shown.
    assert_eq!((container.id.as_bytes(), found.1, found.2, found.3), (id.as_bytes(), name, Some(runtime), "container"));
}

const HTTPD: [&str; 3] = ["httpd", "-f", "-p"];

#[test]
fn containers_of_runc_are_known_by_the_cgroups_of_their_sockets() {
    in_private_netns(|| {
        let shared = Runc::start("shared", Network::Shared, &[&HTTPD[..], &["127.0.0.1:7001"]].concat());
        let own = Runc::start("own", Network::Own, &[&HTTPD[..], &["127.0.0.1:7002"]].concat());
        let shared_cgroup = cgroup_of_listener(7001);
        let own_cgroup = in_netns_of(own.pid, || cgroup_of_listener(7002));
        assert_ne!(shared_cgroup, own_cgroup);
        for resolve in [Resolver::resolve, |resolver: &mut Resolver, id| without_handles(|| resolver.resolve(id))] {
            let mut resolver = Resolver::new();
            for (cgroup, container) in [(shared_cgroup, &shared), (own_cgroup, &own)] {
                let service = resolve(&mut resolver, cgroup).unwrap();
                assert_is(&service, &container.id, None, Runtime::Oci);
                assert_eq!(service.path.as_ref().unwrap().as_bytes(), format!("/{}", container.id).as_bytes());
                assert_eq!(resolver.of_process(Pid(container.pid)).unwrap(), service);
            }
        }
    });
}

#[test]
fn a_container_that_has_ended_is_known_to_those_that_knew_it() {
    let container = Runc::start("ends", Network::Own, &["cat", "/dev/zero"]);
    let id = CgroupId(inode(&container.cgroup()));
    let (mut before, mut walked) = (Resolver::new(), Resolver::new());
    let service = before.resolve(id).unwrap();
    assert_eq!(without_handles(|| walked.resolve(id)).as_ref(), Some(&service));
    container.end();
    assert_is(&before.resolve(id).unwrap(), &container.id, None, Runtime::Oci);
    assert_is(&without_handles(|| walked.resolve(id)).unwrap(), &container.id, None, Runtime::Oci);
    let mut after = Resolver::new();
    assert_eq!(after.resolve(id), None);
    assert_eq!(without_handles(|| Resolver::new().resolve(id)), None);
    for resolver in [&mut before, &mut walked] {
        resolver.forget(id);
        assert_eq!(resolver.resolve(id), None);
    }
    // Its first process is in the cgroup until init has reaped it.
    wait_until("no process", || before.of_process(Pid(container.pid)).is_none());
}

#[test]
fn a_container_of_podman_has_the_name_that_podman_shows() {
    let container = Podman::start("podman", &["cat", "/dev/zero"]);
    let lines = fs::read_to_string(format!("/proc/{}/cgroup", container.pid)).unwrap();
    let path = lines.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let id = CgroupId(inode(&cgroup2().join(path)));
    let mut resolver = Resolver::new();
    let service = resolver.resolve(id).unwrap();
    assert_is(&service, &container.id, Some(&container.name), Runtime::Podman);
    assert_eq!(&*service.label(), container.name);
    assert_eq!(resolver.of_process(Pid(container.pid)).unwrap(), service);
}

#[test]
fn a_service_in_a_machine_of_nspawn_is_known_with_its_machine() {
    let machine = Machine::start("nspawn", "httpd -f -p 7003");
    let pid = machine.pid();
    let id = in_netns_of(pid, || cgroup_of_listener(7003));
    let mut resolver = Resolver::new();
    let service = resolver.resolve(id).unwrap();
    assert_eq!(&*service.label(), format!("{}: listen.service", machine.name));
    assert_eq!((&*service.row_key().label(), service.kind()), (machine.name.as_str(), "machine"));
    assert_eq!(resolver.of_process(Pid(pid)).unwrap(), service);
}

/// Cgroups without processes below one of their own; they end when dropped.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn make(count: usize) -> Self {
        let parent = cgroup2().join(unique("many"));
        let children = (0..count).map(|number| parent.join(format!("c{number}.service")));
        let all: Vec<PathBuf> = [parent.clone()].into_iter().chain(children).collect();
        for cgroup in &all {
            fs::create_dir(cgroup).unwrap();
        }
        Self(all)
    }

    fn services(&self) -> Vec<(CgroupId, String)> {
        let unit = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.0[1..].iter().map(|path| (CgroupId(inode(path)), unit(path))).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in self.0.iter().rev() {
            fs::remove_dir(cgroup).unwrap();
        }
    }
}

/// The CPU time of this thread that a new resolver needs for these.
fn cost(services: &[(CgroupId, String)]) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let start = now();
    let mut resolver = Resolver::new();
    for (id, unit) in services {
        assert_eq!(resolver.resolve(*id).unwrap().unit.as_deref(), Some(unit.as_str()));
    }
    now().saturating_sub(start)
}

#[test]
fn a_file_handle_leads_to_a_new_cgroup_at_once_and_a_walk_is_not_repeated_at_once() {
    let (first, mut resolver) = (Cgroups::make(1), Resolver::new());
    let found = |resolver: &mut Resolver, cgroups: &Cgroups| {
        let (id, unit) = cgroups.services().remove(0);
        resolver.resolve(id).is_some_and(|service| service.unit.as_deref() == Some(unit.as_str()))
    };
    assert!(found(&mut resolver, &first));
    let second = Cgroups::make(1);
    assert!(found(&mut resolver, &second));
    without_handles(|| {
        let mut resolver = Resolver::new();
        let walked = Instant::now();
        assert!(found(&mut resolver, &second));
        let third = Cgroups::make(1);
        let is_found = found(&mut resolver, &third);
        assert!(!is_found || walked.elapsed() >= Duration::from_secs(1), "it was walked twice within a second");
        wait_until("the next walk", || found(&mut resolver, &third));
    });
}

#[test]
fn five_hundred_cgroups_cost_less_than_five_hundred_times_one_and_one_walk_finds_all() {
    let cgroups = Cgroups::make(500);
    let services = cgroups.services();
    let median = |services: &[(CgroupId, String)]| {
        let mut costs: Vec<Duration> = (0..5).map(|_| cost(services)).collect();
        costs.sort();
        costs[2]
    };
    let (one, all) = (median(&services[..1]), median(&services));
    assert!(all < 500 * one, "{all:?} against {one:?}");
    let (one, all) = without_handles(|| (median(&services[..1]), median(&services)));
    assert!(all < 50 * one, "by a walk: {all:?} against {one:?}");
}
