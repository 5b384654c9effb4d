//! Names from outside can neither break the format nor make two series one.

use std::{collections::BTreeSet, sync::Arc};

use observer::{
    export::openmetrics::Format,
    model::{name::Name, units::Comm},
};

use super::{
    exposition::Exposition,
    programs::{assert_openmetrics, assert_promtool_is_content},
    synthetic::{self, namespace, netns, process},
    text,
};

/// Bytes that break text, or look like something else.
const NAMES: [&[u8]; 12] = [
    b"a\"b",
    b"back\\slash",
    b"line\nfeed",
    b"caf\xe9",
    b"\xff\xfe\"}\n",
    b"{netns=\"x\"} 1",
    b"\x1b[31m",
    b"",
    b"\\",
    b"\\\"",
    b"# EOF",
    "数据\u{202e}".as_bytes(),
];

#[test]
fn no_name_breaks_the_format() {
    let mut frame = synthetic::frame();
    let template = frame.snapshot.namespaces[0].clone();
    let rows = || (0_u32..).zip(NAMES);
    frame.snapshot.namespaces = rows().map(|(n, name)| namespace(&template, n, Some(name))).collect();
    frame.snapshot.processes = rows().map(|(n, name)| process(n, name)).collect();
    let (openmetrics, plain) = (text(&frame, Format::OpenMetrics), text(&frame, Format::Text));
    assert_openmetrics(&openmetrics);
    assert_promtool_is_content(&plain);
    for text in [openmetrics, plain] {
        let series = Exposition::parse(&text);
        let comms = series.values("observer_process_open_files", "comm");
        for name in NAMES.iter().filter(|name| !name.is_empty()) {
            let comm = Comm::from(*name).to_string();
            assert!(comms.contains(&comm), "{comm} is missing: {comms:?}");
        }
        let labels = series.values("observer_netns_info", "netns");
        let shown = |name: &[u8]| Name::new(name).shown().to_string();
        for name in NAMES.iter().filter(|name| !name.is_empty()) {
            assert!(labels.contains(&shown(name)), "{} is missing: {labels:?}", shown(name));
        }
    }
}

#[test]
fn namespaces_with_one_name_differ_by_their_number() {
    let mut frame = synthetic::frame();
    let template = frame.snapshot.namespaces[0].clone();
    frame.snapshot.endpoints.clear();
    frame.snapshot.flows.clear();
    frame.snapshot.failure_counts.clear();
    frame.snapshot.limits.clear();
    // The last ones pretend to be the others.
    let names = [
        Some("host"),
        Some("web"),
        Some("web"),
        None,
        Some("host"),
        Some("~other"),
        Some("4026532003"),
        Some("web (4026532001)"),
        Some("web (4026532001)"),
    ];
    frame.snapshot.namespaces =
        (0..).zip(names).map(|(n, name)| namespace(&template, n, name.map(str::as_bytes))).collect();
    let series = super::exposition(&frame);
    let inode = |label: &str| {
        let found = series.of("observer_netns_info").find(|(labels, _)| labels["netns"] == label);
        found.map(|(labels, _)| labels["inode"].clone())
    };
    for (n, label) in [
        (0, "host"),
        (1, "web (4026532001)"),
        (2, "web (4026532002)"),
        (3, "4026532003"),
        (4, "host (4026532004)"),
        (5, "~other (4026532005)"),
        (6, "4026532003 (4026532006)"),
        (7, "web (4026532001) (4026532007)"),
    ] {
        assert_eq!(inode(label), Some(netns(n).0.to_string()), "{label}");
    }
    let labels: BTreeSet<String> = series.values("observer_sockets", "netns");
    assert_eq!(labels.len(), names.len(), "{labels:?}");
}

#[test]
fn a_namespace_says_what_it_is_of() {
    let mut frame = synthetic::frame();
    let template = frame.snapshot.namespaces[0].clone();
    frame.snapshot.namespaces = (0..5).map(|n| namespace(&template, n, None)).collect();
    let series = super::exposition(&frame);
    let of = |n: u32| {
        let inode = netns(n).0.to_string();
        let found = series.of("observer_netns_info").find(|(labels, _)| labels["inode"] == inode);
        let mut labels = found.unwrap().0.clone();
        labels.retain(|key, _| !["netns", "inode"].contains(&key.as_str()));
        labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    for (n, labels) in [
        (0, ""),
        // All containers of a pod have one namespace.
        (1, "pod=web-6f5d8 pod_namespace=shop runtime=containerd"),
        (2, "container=db runtime=containerd"),
        (3, "container=vm"),
        (4, "unit=nginx.service"),
    ] {
        assert_eq!(of(n), labels);
    }
}

#[test]
fn processes_with_one_name_differ_by_their_container() {
    let mut frame = synthetic::frame();
    frame.snapshot.processes = vec![process(7, b"worker"), process(2_000, b"worker")];
    frame.snapshot.processes[1].service = synthetic::service(1).map(Arc::new);
    let series = super::exposition(&frame);
    let open = |labels: &[(&str, &str)]| series.get("observer_process_open_files", labels);
    assert_eq!(open(&[("comm", "worker")]), Some(7.0));
    assert_eq!(open(&[("comm", "worker"), ("container", "front")]), Some(2_000.0));
}

#[test]
fn of_processes_with_one_name_the_one_nearest_to_its_limit_is_shown() {
    let mut frame = synthetic::frame();
    frame.snapshot.processes = vec![process(7, b"worker"), process(2_000, b"worker"), process(9, b"worker")];
    let series = super::exposition(&frame);
    assert_eq!(series.get("observer_process_open_files", &[("comm", "worker")]), Some(2_000.0));
    assert_eq!(series.get("observer_process_open_files_limit", &[("comm", "worker")]), Some(4_000.0));
}
