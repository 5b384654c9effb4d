//! Sockets that stay where they should not: CLOSE_WAIT that nobody closes, SYN_SENT that nobody answers.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use super::{Finding, FindingKind, age, name, names};
use crate::model::{
    Model,
    device::Device,
    limit::Scope,
    reading::ProcessFiles,
    units::{NetnsId, Process, Queues},
};

/// Fewer that stay are no leak.
const LEAKED_AT_LEAST: u32 = 10;
/// Fewer without an answer are chance.
const UNANSWERED_AT_LEAST: u32 = 8;

/// Sockets of a process that have been in CLOSE_WAIT for long.
pub(super) struct Leak {
    pub(super) netns: NetnsId,
    pub(super) process: Process,
    pub(super) count: u32,
    pub(super) oldest: Duration,
    pub(super) files: Option<ProcessFiles>,
}

pub(super) fn close_wait_leak(leak: &Leak) -> Option<Finding> {
    let Leak { netns, process, count, oldest, files } = *leak;
    let share = files.map_or_else(String::new, |files| {
        let limit = files.soft_limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        let percent = u64::from(count) * 100 / files.open.max(1);
        format!(", {} % of its {} open descriptors (limit {limit})", percent.min(100), files.open)
    });
    (count >= LEAKED_AT_LEAST).then(|| Finding {
        kind: FindingKind::CloseWaitLeak,
        netns,
        scope: Some(Scope::Process(process.pid)),
        service: None,
        sentence: format!("{} does not close connections that its peers have closed.", name(Some(process))).into(),
        evidence: format!("{count} sockets stay in CLOSE_WAIT, the oldest for {} or longer{share}", age(oldest)).into(),
        remedy: "have the application close() a connection when read() returns 0; a restart frees those that leaked"
            .into(),
    })
}

/// Sockets in SYN_SENT that have waited beyond the second retry.
pub(super) struct Unanswered {
    pub(super) netns: NetnsId,
    pub(super) local_ip: IpAddr,
    pub(super) device: Device,
    pub(super) remote: SocketAddr,
    /// Those that wait, the one with the most first.
    pub(super) processes: Vec<Process>,
    pub(super) count: u32,
    pub(super) oldest: Duration,
    /// The listener on this host that should answer; `None` where the destination is another host.
    pub(super) listener: Option<LocalListener>,
}

/// A listener on this host that connect() calls wait for.
#[derive(Clone, Copy)]
pub(super) struct LocalListener {
    pub(super) process: Option<Process>,
    /// As the last scan read them.
    pub(super) queues: Option<Queues>,
}

impl LocalListener {
    /// The kernel drops the SYNs: one more than the limit is in the accept queue (`sk_acceptq_is_full`).
    fn full(&self) -> Option<Queues> {
        self.queues.filter(|queues| queues.accept > queues.limit)
    }
}

pub(super) fn no_answer(unanswered: &Unanswered) -> Option<Finding> {
    let Unanswered { netns, local_ip, device, remote, ref processes, count, oldest, listener } = *unanswered;
    if count < UNANSWERED_AT_LEAST {
        return None;
    }
    let evidence = format!(
        "{count} connect() calls of {} from {} are in SYN_SENT, the oldest for {} or longer",
        names(processes),
        device.scoped(local_ip),
        age(oldest)
    );
    let (sentence, evidence, remedy) = match listener.map(|listener| (listener, listener.full())) {
        None => (
            format!("{remote} does not answer."),
            evidence,
            "look for a firewall that drops SYNs, a host that is down, or a full accept queue on the other host; limit \
             how long connect() may wait"
                .into(),
        ),
        Some((listener, Some(Queues { accept, limit, .. }))) => {
            let process = name(listener.process);
            (
                format!("{remote} does not answer: the accept queue of {process} on this host is full."),
                format!("{evidence}; {accept} connections fill the queue (backlog {limit}, and one more fits)"),
                format!(
                    "make {process} call accept() faster, or restart it if it hangs; a larger backlog in its listen() \
                     helps against bursts only"
                )
                .into(),
            )
        }
        Some((listener, None)) => (
            format!("{remote} does not answer, although {} on this host listens there.", name(listener.process)),
            evidence,
            "look for a firewall rule on this host that drops SYNs to this port (nft list ruleset, iptables -S), and for \
             hits of the listener's queues (screen Limits)"
                .into(),
        ),
    };
    Some(Finding {
        kind: FindingKind::NoAnswer,
        netns,
        scope: Some(Scope::Destination { netns, local_ip, device, remote }),
        service: None,
        sentence: sentence.into(),
        evidence: evidence.into(),
        remedy,
    })
}

impl Model {
    pub(in crate::model) fn close_wait_leaks(&self) -> impl Iterator<Item = Finding> {
        let leaks = self.diagnosis.stuck.close_wait.iter().map(|((netns, process), group)| Leak {
            netns: *netns,
            process: *process,
            count: group.count,
            oldest: self.now.saturating_sub(group.since),
            files: self.readings.host.processes.iter().find(|files| files.process.pid == process.pid).copied(),
        });
        leaks.filter_map(|leak| close_wait_leak(&leak))
    }

    pub(in crate::model) fn destinations_without_answer(&self) -> impl Iterator<Item = Finding> {
        let unanswered =
            self.diagnosis.stuck.syn_sent.iter().map(|((netns, local_ip, device, remote), group)| Unanswered {
                netns: *netns,
                local_ip: *local_ip,
                device: self.named(*netns, *device),
                remote: *remote,
                processes: group.processes(),
                count: group.count,
                oldest: self.now.saturating_sub(group.since),
                listener: self.local_listener(*netns, *remote, *device),
            });
        unanswered.filter_map(|unanswered| no_answer(&unanswered))
    }

    /// The listener that answers at `remote`, if that is an address of the same namespace: a listener is bound to it, it
    /// is a loopback address, or sockets use it as their local address.
    fn local_listener(&self, netns: NetnsId, remote: SocketAddr, device: Device) -> Option<LocalListener> {
        let listener = self.covering_address(netns, remote.ip(), remote.port(), device)?;
        let is_local = listener.ip == remote.ip()
            || remote.ip().is_loopback()
            || self.ledger.endpoints().iter().any(|(_, row)| row.key.netns == netns && row.key.local_ip == remote.ip());
        is_local.then_some(LocalListener { process: listener.process, queues: listener.queues })
    }
}
