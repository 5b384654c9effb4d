//! What namespaces are called, and by whom.

use super::{known::MOST_READS, *};
use crate::model::service::{Container, Service};

#[test]
fn a_container_names_its_namespace_before_ip_netns_does_and_a_unit_after_it() {
    let member = |service| Some(Member { pid: Pid(1), service: Some(service), reads: 1 });
    let unit = Service { unit: Some("nginx.service".into()), ..Service::default() };
    let container = Container { id: "front".into(), name: None, runtime: None };
    let container = Service { container: Some(container), ..Service::default() };
    let namer = || Some(Namer { pid: Pid(1), comm: "nginx".into(), holds_sockets: true });
    for (service, mount_name, expected) in [
        (Some(&container), Some("blue"), "front"),
        (Some(&unit), Some("blue"), "blue"),
        (Some(&unit), None, "nginx.service"),
        (None, Some("blue"), "blue"),
        (None, None, "nginx"),
    ] {
        let member = service.and_then(|service| member(service.clone()));
        let known = Known { mount_name: mount_name.map(Name::from), member, namer: namer(), ..Known::default() };
        assert_eq!(known.name().name().map(|name| &**name), Some(expected));
    }
}

#[test]
fn a_service_is_read_a_few_times_and_not_each_second() {
    let own = Pid(std::process::id());
    let (mut namespaces, mut resolver) = (Namespaces::new(NetnsId(1)), Resolver::new());
    let mut reads = || {
        let member = namespaces.choose_member(NetnsId(2), &[own, Pid(1)], &mut resolver).unwrap();
        assert_eq!(member.pid, own);
        let reads = member.reads;
        namespaces.known.entry(NetnsId(2)).or_default().member = Some(member);
        reads
    };
    assert_eq!((0..9).map(|_| reads()).max(), Some(MOST_READS));
    let gone = namespaces.choose_member(NetnsId(2), &[Pid(1)], &mut resolver).unwrap();
    assert_eq!((gone.pid, gone.reads), (Pid(1), 1));
}

#[test]
fn only_the_namespace_of_the_host_is_called_host() {
    let (host, other, own) = (NetnsId(1), NetnsId(4_026_532_248), NetnsId(3));
    let called = |name: &str| Box::new(Known { mount_name: Some(name.into()), ..Known::default() });
    let mut namespaces = Namespaces::new(own);
    namespaces.host = Some(host);
    namespaces.known.extend([(host, called("blue")), (other, called("host"))]);
    let name = |netns| namespaces.name(netns).name().unwrap().shown().to_string();
    assert_eq!((name(host), name(other)), ("host".to_owned(), "host (4026532248)".to_owned()));
    assert_eq!(&*unlike_host(&"host ".into(), other), "host (4026532248)", "blanks do not distinguish them");
    assert_eq!(&*unlike_host(&"hosts".into(), other), "hosts");
}
