//! Labels that name a namespace or a process. Whatever names these gets its labels here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::sample::LabelSet;
use crate::{
    model::{
        name::{Name, fold},
        service::{Runtime, Service},
        snapshot::{NamespaceRow, ProcessRow, Snapshot},
        units::{NetnsId, Pid},
    },
    present::metric,
};

/// The labels of one snapshot.
pub(super) struct Labels {
    netns: BTreeMap<NetnsId, String>,
    of_process: BTreeMap<Pid, NetnsId>,
    services: BTreeMap<NetnsId, Arc<Service>>,
}

impl Labels {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let service = |row: &NamespaceRow| Some((row.netns, row.service.clone()?));
        Self {
            netns: distinct(snapshot),
            of_process: namespaces_of_processes(snapshot),
            services: snapshot.namespaces.iter().filter_map(service).collect(),
        }
    }

    /// Every namespace that the snapshot names, by its number.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = NetnsId> + '_ {
        self.netns.keys().copied()
    }

    /// The label `netns`: unlike that of every other namespace.
    pub(super) fn netns(&self, netns: NetnsId) -> &str {
        self.netns.get(&netns).map_or("", String::as_str)
    }

    /// What `observer_netns_info` says of a namespace.
    pub(super) fn of_namespace(&self, netns: NetnsId) -> LabelSet {
        let mut labels = vec![("netns", self.netns(netns).to_owned()), ("inode", netns.0.to_string())];
        labels.extend(self.services.get(&netns).into_iter().flat_map(|service| of_service(service)));
        labels
    }

    /// What the series of processes say of one: its command name, its container, and the namespace in which it owns the most
    /// sockets, if it owns any.
    pub(super) fn of_process(&self, row: &ProcessRow) -> LabelSet {
        let netns = self.of_process.get(&row.process.pid).map_or("", |netns| self.netns(*netns));
        let container = row.service.as_deref().and_then(container).unwrap_or_default();
        vec![("netns", netns.to_owned()), ("container", container), ("comm", row.process.comm.to_string())]
    }
}

/// The labels of a namespace's service. Names are whole where readers bound them (255 bytes): others join series by them.
fn of_service(service: &Service) -> LabelSet {
    let Service { path: _, unit, pod, container: of_runtime, machine } = service;
    let text = |name: &Option<Name>| name.as_ref().map_or_else(String::new, |name| fold(name.as_bytes()));
    let runtime = of_runtime.as_ref().and_then(|container| container.runtime).map_or("", Runtime::id);
    let mut labels = LabelSet::new();
    if let Some(pod) = pod {
        labels.extend([("pod_namespace", text(&pod.namespace)), ("pod", text(&pod.name))]);
    } else if let Some(container) = container(service) {
        labels.push(("container", container));
    }
    labels.push(("runtime", runtime.to_owned()));
    // The unit of a container is a scope that its runtime made, and a machine has many.
    if pod.is_none() && of_runtime.is_none() && machine.is_none() {
        labels.push(("unit", text(unit)));
    }
    labels
}

/// The container, or the machine that is one.
fn container(service: &Service) -> Option<String> {
    let Service { container, machine, .. } = service;
    let label = container.as_ref().map(|container| match &container.name {
        Some(name) => fold(name.as_bytes()),
        None => container.label().to_string(),
    });
    label.or_else(|| Some(fold(machine.as_ref()?.as_bytes())))
}

/// The label of each namespace. Names are chosen outside: several namespaces can have one, and one can look like the number
/// of another. Such a label gets the namespace's own number, as in `web (4026532281)`. The namespace with the lowest number,
/// the host's where it is visible, keeps its label whatever others are called.
fn distinct(snapshot: &Snapshot) -> BTreeMap<NetnsId, String> {
    let mut all: BTreeSet<NetnsId> = snapshot.namespaces.iter().map(|row| row.netns).collect();
    all.extend(snapshot.endpoints.iter().map(|row| row.key.netns));
    all.extend(snapshot.flows.iter().map(|row| row.netns));
    all.extend(snapshot.failure_counts.iter().map(|row| row.netns));
    all.extend(snapshot.limits.iter().filter_map(|limit| limit.scope.netns()));
    let names: BTreeMap<NetnsId, &str> =
        snapshot.namespaces.iter().filter_map(|row| Some((row.netns, row.name.as_deref()?))).collect();
    let plain = |netns: NetnsId| names.get(&netns).map_or_else(|| netns.0.to_string(), |name| (*name).to_owned());
    let mut namesakes: BTreeMap<String, u32> = BTreeMap::new();
    for netns in all.iter().filter(|netns| !seems_to_be_another(&plain(**netns), **netns)) {
        *namesakes.entry(plain(*netns)).or_default() += 1;
    }
    let first = all.first().copied();
    let label = |netns: NetnsId| {
        let label = plain(netns);
        let is_shared = namesakes.get(&label).is_some_and(|count| *count > 1) && Some(netns) != first;
        if is_shared || seems_to_be_another(&label, netns) { format!("{label} ({})", netns.0) } else { label }
    };
    all.iter().map(|netns| (*netns, label(*netns))).collect()
}

/// Whether a label is, or ends like, one that stands for something else.
fn seems_to_be_another(label: &str, netns: NetnsId) -> bool {
    label == metric::OTHER || netns.is_belied_by(label)
}

/// The namespace of each process with sockets: of several the one in which it owns the most at one endpoint.
fn namespaces_of_processes(snapshot: &Snapshot) -> BTreeMap<Pid, NetnsId> {
    let mut most: BTreeMap<Pid, (u32, NetnsId)> = BTreeMap::new();
    for row in &snapshot.endpoints {
        let owners = row.owners.iter().map(|owner| (owner.process.pid, owner.sockets + owner.shared));
        for (pid, sockets) in owners.chain(row.listeners.iter().map(|process| (process.pid, 0))) {
            let known = most.entry(pid).or_insert((sockets, row.key.netns));
            if sockets > known.0 {
                *known = (sockets, row.key.netns);
            }
        }
    }
    most.into_iter().map(|(pid, (_, netns))| (pid, netns)).collect()
}
