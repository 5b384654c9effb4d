//! Sockets that stay where they should not: CLOSE_WAIT that nobody closes, SYN_SENT that nobody answers.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use super::{Finding, FindingKind, age, name, names};
use crate::model::{
    Model,
    device::Device,
    limit::Scope,
    reading::ProcessFiles,
    units::{NetnsId, Process},
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
        sentence: format!("{} does not close connections that its peers have closed.", name(Some(process))),
        evidence: format!("{count} sockets stay in CLOSE_WAIT, the oldest for {} or longer{share}", age(oldest)),
        remedy: "have the application close() a connection when read() returns 0; a restart frees those that leaked"
            .to_owned(),
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
}

pub(super) fn no_answer(unanswered: &Unanswered) -> Option<Finding> {
    let Unanswered { netns, local_ip, device, remote, ref processes, count, oldest } = *unanswered;
    (count >= UNANSWERED_AT_LEAST).then(|| Finding {
        kind: FindingKind::NoAnswer,
        netns,
        scope: Some(Scope::Destination { netns, local_ip, device, remote }),
        service: None,
        sentence: format!("{remote} does not answer."),
        evidence: format!(
            "{count} connect() calls of {} from {} are in SYN_SENT, the oldest for {} or longer",
            names(processes),
            device.scoped(local_ip),
            age(oldest)
        ),
        remedy:
            "look for a firewall that drops SYNs, a host that is down, or a full accept queue there; limit how long \
                 connect() may wait"
                .to_owned(),
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
            });
        unanswered.filter_map(|unanswered| no_answer(&unanswered))
    }
}
