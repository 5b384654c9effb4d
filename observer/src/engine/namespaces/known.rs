//! What is known of one network namespace: how it can be entered, and what it may be called.

use std::time::Instant;

use crate::{
    host::{cgroup::Resolver, handle::Handle, namespaces, netns::Identity},
    model::{name::Name, namespace::NamespaceName, service::Service, units::Pid},
};

/// How often the service of a namespace's process is read: files that name it come a moment after the process.
pub(super) const MOST_READS: u8 = 4;

#[derive(Default)]
pub(super) struct Known {
    pub(super) mount_name: Option<Name>,
    pub(super) member: Option<Member>,
    pub(super) namer: Option<Namer>,
    pub(super) handles: Vec<Handle>,
    pub(super) missing_since: Option<Instant>,
    /// Which namespace of its number it was when it was read last.
    pub(super) identity: Identity,
}

/// A process whose service may name the namespace.
pub(super) struct Member {
    pub(super) pid: Pid,
    pub(super) service: Option<Service>,
    pub(super) reads: u8,
}

impl Member {
    pub(super) fn of(pid: Pid, resolver: &mut Resolver) -> Self {
        Self { pid, service: resolver.of_process(pid), reads: 1 }
    }

    /// Reads the service again where a better name may have come.
    pub(super) fn read_again(mut self, resolver: &mut Resolver) -> Self {
        let has_name = self.service.as_ref().is_some_and(|service| match service {
            Service { pod: Some(pod), .. } => pod.name.is_some(),
            Service { container: Some(container), .. } => container.name.is_some(),
            Service { machine, .. } => machine.is_some(),
        });
        if !has_name && self.reads < MOST_READS {
            self.service = resolver.of_process(self.pid).or(self.service);
            self.reads += 1;
        }
        self
    }
}

/// The process that a namespace is named by.
pub(super) struct Namer {
    pub(super) pid: Pid,
    pub(super) comm: Name,
    pub(super) holds_sockets: bool,
}

impl Namer {
    pub(super) fn of(pid: Pid, holds_sockets: bool) -> Option<Self> {
        Some(Self { pid, comm: namespaces::naming_comm(pid)?, holds_sockets })
    }
}

#[derive(Clone, Copy)]
pub(super) struct Hint {
    pub(super) pid: Pid,
    pub(super) fd: Option<u32>,
}

impl Known {
    /// It is there, and nothing that is seen of its sockets helps to find or to name it.
    pub(super) fn is_settled(&self, is_host: bool) -> bool {
        self.missing_since.is_none() && (is_host || !self.wants_fd_owner())
    }

    /// A process that holds sockets of it would give it a better name.
    pub(super) fn wants_fd_owner(&self) -> bool {
        !self.is_named() && self.namer.as_ref().is_none_or(|namer| !namer.holds_sockets)
    }

    pub(super) fn by_service(&self) -> Option<(Name, bool)> {
        self.member.as_ref()?.service.as_ref()?.namespace_name()
    }

    /// Whether it has a name without that of a process.
    pub(super) fn is_named(&self) -> bool {
        self.mount_name.is_some() || self.by_service().is_some()
    }

    pub(super) fn name(&self) -> NamespaceName {
        match (self.by_service(), &self.mount_name) {
            (Some((name, true)), _) => NamespaceName::Workload(name),
            (_, Some(name)) => NamespaceName::Other(name.clone()),
            (Some((name, false)), None) => NamespaceName::Other(name),
            (None, None) => {
                self.namer.as_ref().map_or(NamespaceName::Unknown, |namer| NamespaceName::Other(namer.comm.clone()))
            }
        }
    }
}
