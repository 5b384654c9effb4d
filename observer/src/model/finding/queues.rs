//! Listeners whose accept queue overflows, and what limits it.

use std::{net::SocketAddr, time::Duration};

use super::{EVIDENCE_LASTS, Finding, FindingKind, age, is_part, name};
use crate::model::{
    Model,
    device::Device,
    limit::Scope,
    units::{NetnsId, Process, Queues, SocketId},
};

/// A listener and the limit of its namespace.
pub(super) struct Queue {
    pub(super) netns: NetnsId,
    pub(super) id: SocketId,
    pub(super) local: SocketAddr,
    pub(super) device: Device,
    pub(super) process: Option<Process>,
    pub(super) queues: Queues,
    pub(super) somaxconn: u32,
    /// Overflows since observer started.
    pub(super) overflows: u64,
    /// How long ago the last one was.
    pub(super) overflowed: Option<Duration>,
}

/// The kernel keeps the smaller of listen()'s backlog and `somaxconn`: below `somaxconn`, the application has chosen.
/// At `somaxconn` it may have asked for more.
pub(super) fn short_queue(queue: &Queue) -> Option<Finding> {
    let Queue { netns, id, local, device, process, queues, somaxconn, overflows, overflowed } = *queue;
    let Queues { accept, limit, .. } = queues;
    let overflows_now = accept > limit || overflowed.is_some_and(|time| time <= EVIDENCE_LASTS);
    // A limit above somaxconn was set before somaxconn was lowered: until the next listen() the backlog decides.
    let is_capped = limit == somaxconn;
    // A queue that the application has made short may be half full at any moment.
    if !(overflows_now || is_capped && is_part(accept, 50, limit)) {
        return None;
    }
    let process = name(process);
    let address = device.endpoint(local.ip(), local.port());
    let scope = Some(Scope::Listener { netns, local, device, id });
    let dropped = match overflowed {
        Some(time) => format!("{overflows} overflows since observer started, the last {} ago", age(time)),
        None => format!("{overflows} overflows since observer started"),
    };
    Some(if is_capped {
        Finding {
            kind: FindingKind::QueueAtSomaxconn,
            netns,
            scope,
            service: None,
            sentence: format!("The accept queue of {process} on {address} may be limited by net.core.somaxconn.")
                .into(),
            evidence: format!(
                "{accept} connections wait; the limit is net.core.somaxconn = {somaxconn} (one more fits); {dropped}"
            )
            .into(),
            remedy:
                "raise net.core.somaxconn and the backlog of listen(), then restart the service; or accept() faster"
                    .into(),
        }
    } else {
        Finding {
            kind: FindingKind::QueueAtBacklog,
            netns,
            scope,
            service: None,
            sentence: format!(
                "The accept queue of {process} on {address} overflows: listen(fd, {limit}) made it short."
            )
            .into(),
            evidence: if limit < somaxconn {
                format!(
                    "{accept} connections wait; the backlog is {limit} (one more fits), net.core.somaxconn = \
                     {somaxconn} allows more; {dropped}"
                )
                .into()
            } else {
                format!(
                    "{accept} connections wait; the backlog is {limit} (one more fits) until the next listen(), which \
                     net.core.somaxconn = {somaxconn} will cap; {dropped}"
                )
                .into()
            },
            remedy: if limit < somaxconn {
                format!(
                    "a larger backlog in the configuration of the service: listen(fd, N) with N up to {somaxconn}; or \
                     accept() faster"
                )
                .into()
            } else {
                format!(
                    "raise net.core.somaxconn above {limit} and the backlog of listen(), then restart the service; or \
                     accept() faster"
                )
                .into()
            },
        }
    })
}

impl Model {
    pub(in crate::model) fn overflowing_queues(&self) -> impl Iterator<Item = Finding> {
        let queues = self.listeners.iter().filter_map(|(id, listener)| {
            Some(Queue {
                netns: listener.netns,
                id,
                local: listener.local(),
                device: self.named(listener.netns, listener.device),
                process: listener.process,
                queues: listener.queues?,
                somaxconn: self.readings.namespaces.get(&listener.netns)?.reading.somaxconn?,
                overflows: listener.drops.overflows,
                overflowed: listener.drops.overflowed_at.map(|at| self.now.saturating_sub(at)),
            })
        });
        queues.filter_map(|queue| short_queue(&queue))
    }
}
