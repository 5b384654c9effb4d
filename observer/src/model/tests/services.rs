//! Sockets by service: by cgroup, else by owner.

use std::time::{Duration, SystemTime};

use super::{scenario::check, socket};
use crate::model::{
    Model,
    event::Event,
    member::Member,
    name::Name,
    namespace::{NamespaceName, NamespaceReading},
    service::{CgroupId, Container, Pod, Runtime, Service},
    units::{Comm, NetnsId, Pid, Process, TcpState},
};

#[test]
fn sockets_count_with_their_cgroup_whoever_owns_them() {
    check(
        "l 0.0.0.0:80>0.0.0.0:0 closed>listen by 1 systemd cgroup=20
         cgroup 20 /system.slice/web.service
         c 10.0.0.1:80>10.0.0.9:1000 syn_received>established cgroup=20
         c accepted established by 7 nginx cgroup=20
         d 10.0.0.1:40000>10.0.0.9:5432 closed>syn_sent by 9 app cgroup=30
         d syn_sent>established
         cgroup 30 /system.slice/app.service
         d established>fin_wait_1
         d fin_wait_1>fin_wait_2 orphan
         show services
         c established>closed
         d fin_wait_2>closed
         l listen>closed
         show services",
        "app.service sockets 1 listeners 0 bound 0 orphans 1 opened 1 closed 0 failed 0 failures 0
         web.service sockets 1 listeners 1 bound 0 orphans 0 opened 1 closed 0 failed 0 failures 0
         app.service sockets 0 listeners 0 bound 0 orphans 0 opened 1 closed 1 failed 0 failures 0
         web.service sockets 0 listeners 0 bound 0 orphans 0 opened 1 closed 1 failed 0 failures 0",
    );
}

#[test]
fn a_scan_shows_the_cgroup_of_what_was_there_before() {
    check(
        "scan
         l 0.0.0.0:80>0.0.0.0:0 found listen cgroup=20
         c 10.0.0.1:80>10.0.0.9:1000 found established cgroup=20
         t 10.0.0.1:80>10.0.0.9:1001 found tw:time_wait
         end
         cgroup 20 /system.slice/web.service
         show services",
        "web.service sockets 1 listeners 1 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0",
    );
}

#[test]
fn a_scan_shows_the_cgroup_of_a_listener_that_an_event_showed_without() {
    check(
        "l 0.0.0.0:80>0.0.0.0:0 closed>listen by 7 app
         process 7 /system.slice/app.service
         scan
         l 0.0.0.0:80>0.0.0.0:0 found listen cgroup=20
         end
         cgroup 20 /system.slice/web.service
         show services",
        "app.service sockets 0 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0
         web.service sockets 0 listeners 1 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0",
    );
}

#[test]
fn without_a_cgroup_that_names_a_service_a_socket_counts_with_its_owner() {
    // 1 is the root, 20 turns out to be systemd's own, 30 is not found: sockets made there are for others.
    for cgroup in ["", "cgroup=1", "cgroup=20", "cgroup=30"] {
        check(
            &format!(
                "l 0.0.0.0:80>0.0.0.0:0 closed>listen by 1 systemd {cgroup}
                 cgroup 20 /init.scope
                 cgroup 30 gone
                 c 10.0.0.1:80>10.0.0.9:1000 syn_received>established {cgroup}
                 process 1 /init.scope
                 show services
                 c accepted established by 7 sshd {cgroup}
                 process 7 /system.slice/ssh.service
                 show services
                 files
                 l owned by 1 systemd
                 c owned by 8 sshd
                 files end
                 process 8 /user.slice/user-0.slice/session-3.scope
                 show services"
            ),
            "init.scope sockets 1 listeners 1 bound 0 orphans 0 opened 1 closed 0 failed 0 failures 0
             ssh.service sockets 1 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0
             init.scope sockets 0 listeners 1 bound 0 orphans 0 opened 1 closed 0 failed 0 failures 0
             session-3.scope sockets 1 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0
             init.scope sockets 0 listeners 1 bound 0 orphans 0 opened 1 closed 0 failed 0 failures 0
             ssh.service sockets 0 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0",
        );
    }
}

#[test]
fn a_listener_that_systemd_made_counts_with_the_service_that_it_started() {
    for (manager, unit) in [
        ("/init.scope", "init.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
    ] {
        check(
            &format!(
                "l 0.0.0.0:22>0.0.0.0:0 closed>listen by 1 systemd cgroup=20
                 cgroup 20 {manager}
                 process 1 {manager}
                 files
                 l owned by 1 systemd
                 l owned by 7 sshd
                 files end
                 process 7 /system.slice/ssh.service
                 tick 40
                 files
                 l owned by 1 systemd
                 l owned by 7 sshd
                 files end
                 tick 40
                 files
                 l owned by 1 systemd
                 l owned by 7 sshd
                 files end
                 c 10.0.0.1:22>10.0.0.9:1000 syn_received>established
                 show services"
            ),
            &format!(
                "ssh.service sockets 1 listeners 1 bound 0 orphans 0 opened 1 closed 0 failed 0 failures 0
                 {unit} sockets 0 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0"
            ),
        );
    }
}

#[test]
fn sockets_that_nobody_has_accepted_yet_move_to_the_service_of_their_listener() {
    check(
        "l 0.0.0.0:80>0.0.0.0:0 closed>listen by 7 app cgroup=20
         c 10.0.0.1:80>10.0.0.9:1000 syn_received>established cgroup=20
         o 10.0.0.1:80>10.0.0.9:1001 syn_received>established cgroup=20
         o established>fin_wait_1 orphan
         cgroup 20 /init.scope
         process 7 /system.slice/app.service
         show services",
        "app.service sockets 1 listeners 1 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0
         nobody sockets 1 listeners 0 bound 0 orphans 1 opened 2 closed 0 failed 0 failures 0",
    );
}

#[test]
fn in_whatever_order_a_scan_shows_them_what_waits_counts_with_its_listener() {
    let listener = "l 0.0.0.0:80>0.0.0.0:0 found listen cgroup=1";
    let waiting = "c 10.0.0.1:80>10.0.0.9:1000 found established explicit cgroup=1";
    for [first, second] in [[listener, waiting], [waiting, listener]] {
        check(
            &format!(
                "range 40000-40099
                 scan
                 {first}
                 {second}
                 end
                 files
                 l owned by 7 app
                 files end
                 process 7 /system.slice/app.service
                 show services"
            ),
            "app.service sockets 1 listeners 1 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0",
        );
    }
}

#[test]
fn sockets_that_came_before_the_answer_move_to_their_owners() {
    check(
        "a 10.0.0.1:40000>10.0.0.9:5432 closed>syn_sent by 7 app cgroup=20
         show services
         cgroup 20 /
         process 7 /system.slice/app.service
         show services",
        "nobody sockets 1 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0
         asks for [Cgroup(CgroupId(20))]
         app.service sockets 1 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0",
    );
}

#[test]
fn a_cgroup_without_sockets_that_names_no_service_gives_nothing_away() {
    let mut model = Model::default();
    let cgroup = CgroupId(20);
    let root = || Some(Service { path: Some("/".into()), ..Service::default() });
    model.apply(&change(0, Some(cgroup), Duration::ZERO, TcpState::Closed, TcpState::SynSent), Duration::ZERO);
    assert!(model.ledger.set_service(Member::Cgroup(cgroup), root()).is_some(), "it has one");
    model.apply(&change(0, None, Duration::ZERO, TcpState::SynSent, TcpState::Closed), Duration::ZERO);
    assert_eq!(model.ledger.set_service(Member::Cgroup(cgroup), root()), None);
}

#[test]
fn the_sockets_of_a_runtime_that_places_its_containers_in_v1_alone_count_with_their_owners() {
    for unit in [
        "buildkit.service",
        "containerd.service",
        "cri-docker.service",
        "crio.service",
        "docker.service",
        "k0scontroller.service",
        "k0sworker.service",
        "k3s-agent.service",
        "kubelet.service",
        "nomad.service",
        "podman.service",
        "rke2-server.service",
        "snap.docker.dockerd.service",
        "snap.microk8s.daemon-containerd.service",
        "snap.microk8s.daemon-kubelite.service",
    ] {
        check(
            &format!(
                "a 10.0.0.1:40000>10.0.0.9:5432 closed>syn_sent by 7 app cgroup=20
                 b 10.0.0.1:40001>10.0.0.9:5432 closed>syn_sent by 8 runtime cgroup=20
                 cgroup 20 /system.slice/{unit}
                 process 7 /system.slice/app.service
                 process 8 /system.slice/{unit}
                 show services"
            ),
            &format!(
                "app.service sockets 1 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0
                 {unit} sockets 1 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 0"
            ),
        );
    }
}

#[test]
fn a_process_whose_pod_has_no_name_yet_is_asked_for_again_and_one_that_has_ended_is_not() {
    let mut model = Model::default();
    for (pid, service) in [(7, Some(pod_without_a_name())), (8, None)] {
        let by = Process { pid: Pid(pid), comm: Comm::from(&b"app"[..]) };
        let event = Event::Connecting { socket: socket(1, u64::from(pid), None), by };
        let opened = change(u64::from(pid), None, Duration::ZERO, TcpState::Closed, TcpState::SynSent);
        model.apply(&opened, Duration::ZERO);
        model.apply(&event, Duration::ZERO);
        model.set_service(Member::Process(Pid(pid)), service);
    }
    let asked: Vec<_> = model.nameless_members().map(|(member, known)| (member, known.cloned())).collect();
    assert_eq!(asked, [(Member::Process(Pid(7)), Some(pod_without_a_name()))]);
}

fn pod_without_a_name() -> Service {
    Service { pod: Some(Pod { uid: "1a2b".into(), namespace: None, name: None }), ..Service::default() }
}

#[test]
fn what_was_nobodys_stays_nobodys() {
    check(
        "calls
         range 32768-32777
         c 10.0.0.1:80>10.0.0.9:1000 syn_received>established
         c accepted established by 7 app
         c established>closed
         d 10.0.0.1:40000>10.0.0.9:443 closed>syn_sent by 8 app cgroup=30
         d syn_sent>established
         d established>closed
         cgroup 30 gone
         process 7 gone
         process 8 gone
         show services
         tick 61
         tick 61
         show services",
        "nobody sockets 0 listeners 0 bound 0 orphans 0 opened 2 closed 2 failed 0 failures 0
         nobody sockets 0 listeners 0 bound 0 orphans 0 opened 2 closed 2 failed 0 failures 0",
    );
}

#[test]
fn what_a_forgotten_row_had_opened_is_no_part_of_the_next_rate() {
    let mut model = Model::default();
    let cgroup = Some(CgroupId(20));
    model.apply(&change(0, cgroup, Duration::ZERO, TcpState::Closed, TcpState::SynSent), Duration::ZERO);
    model.apply(&change(0, cgroup, Duration::ZERO, TcpState::SynSent, TcpState::Established), Duration::ZERO);
    model.apply(&change(0, cgroup, Duration::ZERO, TcpState::Established, TcpState::Closed), Duration::ZERO);
    for seconds in [61, 62] {
        let now = Duration::from_secs(seconds);
        model.tick(now);
        let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, now, 0);
        let [nobody] = &snapshot.services[..] else { panic!("{:?}", snapshot.services) };
        assert_eq!((nobody.opened_total, nobody.closed_total), (1, 1), "{seconds}");
        assert!(nobody.opened_per_second <= 0.0, "{seconds}");
    }
}

#[test]
fn bound_sockets_and_failures_count_with_a_service_too() {
    check(
        "calls
         range 32768-32777
         b 10.0.0.1:8080>0.0.0.0:0 owned by 7 app bound 8080 cgroup=20
         x refused bind 10.0.0.1:8080 by 8 second cgroup=30
         cgroup 20 /system.slice/app.service
         cgroup 30 /system.slice/second.service
         show services",
        "app.service sockets 0 listeners 0 bound 1 orphans 0 opened 0 closed 0 failed 0 failures 0
         second.service sockets 0 listeners 0 bound 0 orphans 0 opened 0 closed 0 failed 0 failures 1",
    );
}

/// A change of a socket.
fn change(n: u64, cgroup: Option<CgroupId>, at: Duration, old: TcpState, new: TcpState) -> Event {
    super::change(socket(1, n, cgroup), at, old, new)
}

/// 500 cgroups one after the other, as of a job that starts every few seconds: memory is that of the last minute, the
/// totals are those of all.
#[test]
fn cgroups_that_come_and_go_are_forgotten_and_their_totals_are_not() {
    let mut model = Model::default();
    let pod = |n: u64| Service {
        path: Some(format!("/kubepods/pod1/{n}").as_str().into()),
        unit: Some("job.service".into()),
        ..Service::default()
    };
    let mut forgotten = Vec::new();
    for n in 0..500_u64 {
        let now = Duration::from_secs(2 * n);
        let change = |old, new| change(n, Some(CgroupId(100 + n)), now, old, new);
        model.apply(&change(TcpState::Closed, TcpState::SynSent), now);
        model.apply(&change(TcpState::SynSent, TcpState::Established), now);
        assert_eq!(model.unnamed_members().collect::<Vec<_>>(), [Member::Cgroup(CgroupId(100 + n))]);
        model.set_service(Member::Cgroup(CgroupId(100 + n)), Some(pod(n)));
        model.apply(&change(TcpState::Established, TcpState::Closed), now);
        model.tick(now);
        forgotten.extend(model.take_forgotten_cgroups());
        assert!(model.ledger.members().iter().count() <= 32, "{n}");
    }
    model.tick(Duration::from_secs(1_000));
    model.tick(Duration::from_secs(1_001));
    assert!(model.take_forgotten_cgroups().is_empty(), "those of a tick that nobody asked after are not kept");
    assert!(forgotten.len() >= 460, "{}", forgotten.len());
    assert!(forgotten.iter().is_sorted());
    let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::from_secs(1_000), 0);
    let totals: Vec<_> = snapshot.services.iter().map(|row| (row.opened_total, row.closed_total)).collect();
    assert_eq!(totals, [(500, 500)]);
    model.tick(Duration::from_secs(2_000));
    model.tick(Duration::from_mins(35));
    assert_eq!(model.ledger.members().iter().count(), 1, "nobody's row is left");
    assert!(model.snapshot(SystemTime::UNIX_EPOCH, Duration::from_mins(35), 0).services.is_empty());
}

#[test]
fn a_namespace_keeps_the_service_that_it_is_named_by_while_it_has_the_name() {
    let cgroup = Some(CgroupId(20));
    let container = Container { id: "front".into(), name: None, runtime: Some(Runtime::Podman) };
    let service = Service { container: Some(container), ..Service::default() };
    for (name, expected) in [(None, true), (Some("front"), true), (Some("blue"), true), (Some("host"), false)] {
        let mut model = Model::default();
        let given = name.map_or(NamespaceName::Unknown, |name| NamespaceName::Other(Name::from(name)));
        model.set_namespace(NetnsId(1), NamespaceReading { name: given, ..NamespaceReading::default() });
        let change = |old, new| change(0, cgroup, Duration::ZERO, old, new);
        model.apply(&change(TcpState::Closed, TcpState::SynSent), Duration::ZERO);
        model.apply(&change(TcpState::SynSent, TcpState::Established), Duration::ZERO);
        model.set_service(Member::Cgroup(CgroupId(20)), Some(service.clone()));
        let of_it = |model: &mut Model| {
            let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
            snapshot.namespaces[0].service.as_deref().cloned()
        };
        assert_eq!(of_it(&mut model), expected.then(|| service.clone()), "{name:?}");
        // Its last socket ends: a namespace that is called otherwise without it is no longer the container's.
        model.apply(&change(TcpState::Established, TcpState::Closed), Duration::ZERO);
        model.tick(Duration::from_mins(10));
        let still = name == Some("front");
        assert_eq!(of_it(&mut model), still.then(|| service.clone()), "{name:?}");
    }
}
