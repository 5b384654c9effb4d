//! What is given pseudonyms, and what the model still recognizes. Whole recordings are in tests/recordings.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::{
    gaps::Gaps,
    name::Name,
    quality::{AttachMethod, Hook},
    service::{CgroupId, Container, Pod, Runtime, Service},
    units::{NetnsId, Pid},
};

fn anonymizer() -> Anonymizer {
    Anonymizer::new().unwrap()
}

/// In every text: a path where a sentence may have one.
const SECRET: &str = "secretive";

/// One input of each kind that has a text, with the secret in each of its texts.
fn inputs() -> Vec<Input<'static>> {
    let name = || Name::from(SECRET);
    let comm = Comm::from(SECRET);
    let process = Process { pid: Pid(7), comm };
    let sentence = format!("open /run/netns/{SECRET}: ENOENT");
    let unit = || Some(Name::from(format!("{SECRET}.service").as_str()));
    let user = format!("/user.slice/user-{SECRET}.slice/user@{SECRET}.service/{SECRET}/docker-{SECRET}.scope");
    let containers = ["0123456789abcdef0123456789abcdef", SECRET].map(|id| Container {
        id: id.into(),
        name: Some(name()),
        runtime: Some(Runtime::Podman),
    });
    let services = containers.map(|container| {
        let service = Service {
            path: Some(user.as_str().into()),
            unit: unit(),
            pod: Some(Pod { uid: name(), namespace: Some(name()), name: Some(name()) }),
            container: Some(container),
            machine: Some(name()),
        };
        Input::Service(Member::Cgroup(CgroupId(5)), Some(Box::new(service)))
    });
    let namespaces =
        [NamespaceName::Other(name()), NamespaceName::Workload(format!("{SECRET}/{SECRET}").as_str().into())];
    let namespaces = namespaces.map(|name| {
        let devices = vec![DeviceReading { index: 3, name: comm, vrf: 0 }];
        Input::Namespace(NetnsId(1), Box::new(NamespaceReading { name, devices, ..NamespaceReading::default() }))
    });
    let files = ProcessFiles { process, open: 3, soft_limit: None, hard_limit: None };
    let mut gaps = Gaps::default();
    gaps.skipped = Skipped { rounds: 1, operation: sentence.clone(), errno: None, cause: sentence };
    let host = Host { processes: vec![files], ..Host::default() };
    let others = [Input::Host(Box::new(host)), Input::Gaps(Box::new(gaps))];
    services.into_iter().chain(namespaces).chain(others).collect()
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

#[test]
fn no_text_of_an_input_has_a_name_of_the_original() {
    let mut anonymizer = anonymizer();
    for input in inputs() {
        assert!(contains(&postcard::to_stdvec(&input).unwrap(), SECRET), "{input:?}");
        let pseudonymous = anonymizer.input(input);
        let bytes = postcard::to_stdvec(&pseudonymous).unwrap();
        assert!(!contains(&bytes, SECRET) && !contains(&bytes, "0123456789ab"), "{pseudonymous:?}");
    }
}

#[test]
fn the_header_names_no_file() {
    let because = format!("load /lib/{SECRET}.o: EINVAL (Invalid argument)");
    let failed = vec![FailedMethod { method: AttachMethod::Fentry, because }];
    let status = HookStatus { hook: Hook::Connect, method: None, failed };
    let status = anonymizer().hook(status);
    assert_eq!(status.failed[0].because, "load FILE: EINVAL (Invalid argument)");
}

#[test]
fn a_name_keeps_its_pseudonym_and_its_kind() {
    let mut anonymizer = anonymizer();
    let comm = |anonymizer: &mut Anonymizer, name: &str| anonymizer.names.comm(Comm::from(name)).to_string();
    assert_eq!(
        ["nginx", "redis", "nginx", ""].map(|name| comm(&mut anonymizer, name)),
        ["process-1", "process-2", "process-1", ""]
    );
    assert_eq!(["eth0", "lo"].map(|name| anonymizer.names.device(name.into()).to_string()), ["device-1", "lo"]);
    for (unit, expected) in [
        ("nginx.service", "unit-1.service"),
        ("session-31.scope", "session-1.scope"),
        ("init.scope", "init.scope"),
        ("system.slice", "system.slice"),
        ("acme.slice", "unit-2.slice"),
        ("user@1000.service", "user@1.service"),
        ("user-1000.slice", "user-1.slice"),
        ("user@0.service", "user@0.service"),
        ("acme-containerd.service", "containerd-1.service"),
    ] {
        assert_eq!(anonymizer.names.unit(unit.as_bytes()), expected);
    }
    for (name, expected) in [("host", "host"), ("blue", "namespace-1"), ("nginx.service", "unit-1.service")] {
        assert_eq!(&*anonymizer.names.of_namespace(&name.into()), expected);
    }
}

#[test]
fn names_without_end_take_no_memory_without_end_and_stay_apart() {
    let mut anonymizer = anonymizer();
    let names: BTreeSet<String> = (0..70_000)
        .map(|number| anonymizer.names.comm(Comm::from(format!("n{number}").as_str())).to_string())
        .collect();
    assert_eq!(names.len(), 70_000);
    assert!(names.iter().all(|name| name.starts_with("process-") && name.len() <= 15));
    assert_eq!(anonymizer.names.size(), 1 << 16);
}

#[test]
fn sockets_stay_apart_and_none_is_none() {
    let mut anonymizer = anonymizer();
    let found: BTreeSet<u64> =
        (0..100_000_u64).map(|at| anonymizer.socket(SocketId(0xffff_8880_0000_0000 + (at << 6))).0).collect();
    assert_eq!(found.len(), 100_000);
    assert!(!found.contains(&0));
    assert!(found.iter().filter(|sock| **sock >= 0xffff_8880_0000_0000).count() < 100, "they show no kernel addresses");
    assert_eq!(anonymizer.socket(SocketId(0)), SocketId(0));
}

/// Names as people and programs choose them, some alike.
fn chosen() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{1,2}",
        "[a-z.@:_-]{1,8}",
        Just("host".to_owned()),
        "[0-9a-f]{12}",
        "[a-c]\\.(service|slice|scope)"
    ]
}

fn services() -> impl Strategy<Value = Service> {
    let name = || chosen().prop_map(|name| Name::from(name.as_str()));
    let some = || prop::option::of(name());
    let unit = "([a-c]|session-[1-3]|user@[12]|docker-[a-c]|init)\\.(service|slice|scope)";
    let path = "(/user\\.slice/user-[12]\\.slice/user@[12]\\.service|/system\\.slice|/\\.\\.)?(/[a-c]\\.service|/init\\.scope|/[a-c])?";
    let uid = "([0-9a-f]{8}-0000-4000-8000-00000000000[0-9a-f]|[0-9a-f]{32})";
    let pod =
        (uid, some(), some()).prop_map(|(uid, namespace, name)| Pod { uid: uid.as_str().into(), namespace, name });
    let id = prop_oneof!["[0-9a-f]{64}", "[a-c]{1,3}"];
    let container =
        (id, some()).prop_map(|(id, name)| Container { id: id.as_str().into(), name, runtime: Some(Runtime::Oci) });
    let text = |text: String| Name::from(text.as_str());
    (
        prop::option::of(path.prop_map(text)),
        prop::option::of(unit.prop_map(text)),
        prop::option::of(pod),
        prop::option::of(container),
        some(),
    )
        .prop_map(|(path, unit, pod, container, machine)| Service { path, unit, pod, container, machine })
}

proptest! {
    /// Otherwise a namespace would have a service live and none in a replay, or the other way round.
    #[test]
    fn a_namespace_is_called_as_the_service_that_it_is_called_by(services in prop::collection::vec(services(), 1..4)) {
        let mut anonymizer = anonymizer();
        for service in services {
            // Before or after its service, as it comes.
            let name = service.namespace_name();
            let of = |anonymizer: &mut Anonymizer| name.as_ref().map(|(name, is_workload)| match is_workload {
                true => (anonymizer.names.of_workload(name), true),
                false => (anonymizer.names.of_namespace(name), false),
            });
            let before = of(&mut anonymizer);
            let pseudonymous = anonymizer.names.service(service.clone());
            prop_assert_eq!(&before, &pseudonymous.namespace_name(), "{:?} {:?}", service, pseudonymous);
            prop_assert_eq!(before, of(&mut anonymizer));
        }
    }

    #[test]
    fn the_model_recognizes_the_same_in_a_service(service in services()) {
        let seen = |service: &Service| {
            let unit = service.unit.as_ref().map(|unit| unit.as_bytes().to_vec()).unwrap_or_default();
            let is_init = |name: &Option<Name>| name.as_ref().is_some_and(|name| name.as_bytes().ends_with(b"init.scope"));
            (
                service.kind(),
                service.is_root(),
                service.user().is_some(),
                crate::model::member::runtime_in(&unit),
                is_init(&service.unit),
                is_init(&service.path),
                service.row_key() == *service,
            )
        };
        prop_assert_eq!(seen(&service), seen(&anonymizer().names.service(service.clone())));
    }

    #[test]
    fn services_stay_apart((one, other) in (services(), services())) {
        let mut anonymizer = anonymizer();
        let found = [&one, &other].map(|service| anonymizer.names.service(service.clone()));
        prop_assert_eq!(one == other, found[0] == found[1]);
        prop_assert_eq!(one.row_key() == other.row_key(), found[0].row_key() == found[1].row_key());
    }
}
