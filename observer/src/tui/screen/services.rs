//! Services: units, pods, containers and machines, and what each of them uses.

use std::sync::Arc;

use crate::{
    frame::Frame,
    model::{
        device::Device,
        filter::{Filter, Filterable},
        service::{Container, Pod, Service},
        snapshot::{ServiceRow, Snapshot},
        units::TcpState,
    },
    present::{Field, service},
    tui::{pane::Explained, table::TableSource},
};

/// One row for each service, and one for the sockets of nobody that is known.
#[derive(Debug)]
pub(crate) struct Services;

impl TableSource for Services {
    type Row = ServiceRow;
    /// Among equals the row without a service is the last.
    type Key = (bool, Option<Arc<Service>>);

    const NAME: &'static str = "Services";
    const SORT: &'static str = "sockets";

    fn rows(data: &Frame) -> Vec<&ServiceRow> {
        data.snapshot.services.iter().collect()
    }

    fn key(row: &ServiceRow) -> Self::Key {
        (row.service.is_none(), row.service.clone())
    }

    fn passes(row: &ServiceRow, filter: &Filter, _: &Snapshot) -> bool {
        let nearest = row.nearest.as_ref();
        let remote = nearest.map(|it| [(it.local_ip, None), (it.remote.ip(), Some(it.remote.port()))]);
        filter.lets_through(&Filterable {
            addresses: remote.as_ref().map_or(&[], |addresses| addresses),
            processes: &row.fullest.map(|files| files.process).into_iter().collect::<Vec<_>>(),
            netns: nearest.map(|it| it.netns),
            netns_name: nearest.and_then(|it| it.netns_name.as_deref()),
            service: row.service.as_deref(),
            direction: None,
            device: Device::NONE,
            has_state: &|state| row.states.get(state) > 0 || state == TcpState::Listen && row.listeners > 0,
            text: row.service.as_ref().map_or(service::UNKNOWN, |service| service.kind()),
        })
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No service has sockets yet. Each systemd unit, pod, container and machine with TCP sockets gets a row."
    }

    fn has(_: &Field<ServiceRow>, _: &Frame) -> bool {
        true
    }

    fn explain(row: &ServiceRow, _: &Snapshot) -> Vec<Explained> {
        let mut lines = row.service.as_ref().map_or_else(
            || vec![Explained::new("why unknown", WHY_UNKNOWN)],
            |service| if service.is_root() { vec![Explained::new("root", ROOT)] } else { parts(service) },
        );
        lines.extend(service::nearest_in_words(row).map(|words| Explained::new("nearest", words)));
        lines
    }
}

const WHY_UNKNOWN: &str = "The kernel reports a socket's cgroup, and observer reads that cgroup's name a moment later. These \
                           sockets ended before that, or neither their cgroup nor their owner names a service. \
                           Connections that observer knows only from their TIME_WAIT, which belongs to no cgroup, count \
                           in the totals here.";

const ROOT: &str = "The root cgroup: processes that no service manager and no container runtime has put elsewhere.";

/// What the row's name leaves out.
fn parts(service: &Service) -> Vec<Explained> {
    let mut lines = Vec::new();
    if let Some(Pod { uid, namespace, name }) = &service.pod {
        let known = |name: &Option<_>| name.as_ref().map_or_else(|| "not known".to_owned(), ToString::to_string);
        lines.push(Explained::new(
            "pod",
            format!("name {}, Kubernetes namespace {}, uid {uid}", known(name), known(namespace)),
        ));
    }
    if let Some(Container { id, name, runtime }) = &service.container {
        let name = name.as_ref().map_or_else(|| "not known".to_owned(), ToString::to_string);
        let runtime = runtime.map_or_else(String::new, |runtime| format!(", runtime {}", runtime.id()));
        lines.push(Explained::new("container", format!("name {name}, id {id}{runtime}")));
    }
    lines
}
