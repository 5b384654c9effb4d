//! Sockets that have been in CLOSE_WAIT or SYN_SENT for longer than these states last where all is well. Found in a pass
//! over all sockets at the end of each round of scans, which costs less than the scan, and only where there are enough.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustc_hash::FxHashMap;

use super::{
    Model,
    device::Device,
    units::{NetnsId, Process, TcpState},
};

/// An application that closes at all closes sooner.
const CLOSE_WAIT_LONG: Duration = Duration::from_secs(30);
/// The SYN was sent, after 1 second again, after 2 more again, and nobody has answered.
const SYN_SENT_LONG: Duration = Duration::from_secs(4);
/// With fewer in both states there is nothing to look for.
const AT_LEAST: u32 = 8;

/// As the last round of scans found them.
#[derive(Default)]
pub(super) struct Stuck {
    pub(super) close_wait: FxHashMap<(NetnsId, Process), Group>,
    pub(super) syn_sent: FxHashMap<(NetnsId, IpAddr, Device, SocketAddr), Group>,
}

impl Stuck {
    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.close_wait.retain(|(of, _), _| *of != netns);
        self.syn_sent.retain(|(of, ..), _| *of != netns);
    }
}

/// Sockets that have one thing in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) count: u32,
    /// Since when the oldest is in its state, as far as observer has seen it.
    pub(super) since: Duration,
    processes: FxHashMap<Process, u32>,
}

impl Group {
    fn add(&mut self, since: Duration, process: Option<Process>) {
        self.since = if self.count == 0 { since } else { self.since.min(since) };
        self.count += 1;
        if let Some(process) = process {
            *self.processes.entry(process).or_default() += 1;
        }
    }

    /// Their owners, the one with the most first.
    pub(super) fn processes(&self) -> Vec<Process> {
        let mut processes: Vec<(Process, u32)> =
            self.processes.iter().map(|(process, count)| (*process, *count)).collect();
        processes.sort_unstable_by_key(|(process, count)| (Reverse(*count), process.pid));
        processes.into_iter().map(|(process, _)| process).collect()
    }
}

impl Model {
    /// The time as sockets keep it: seconds since start.
    pub(super) fn now_in_seconds(&self) -> u32 {
        u32::try_from(self.now.as_secs()).unwrap_or(u32::MAX)
    }

    /// Looks for them again.
    pub(super) fn find_stuck(&mut self) {
        let mut stuck = Stuck::default();
        let in_state = |state| self.ledger.endpoints().iter().map(|(_, row)| row.states.get(state)).sum::<u32>();
        if in_state(TcpState::CloseWait) < AT_LEAST && in_state(TcpState::SynSent) < AT_LEAST {
            self.diagnosis.stuck = stuck;
            return;
        }
        for socket in self.sockets.iter() {
            let since = Duration::from_secs(socket.state_since.into());
            let age = self.now.saturating_sub(since);
            let process = self.ledger.owners().process(socket.owner);
            let key = &self.ledger.endpoints().get(socket.endpoint).key;
            match (socket.state, process) {
                // Nobody's is in its listener's accept queue, and not the application's to close yet.
                (TcpState::CloseWait, Some(process)) if age >= CLOSE_WAIT_LONG => {
                    stuck.close_wait.entry((key.netns, process)).or_default().add(since, Some(process));
                }
                (TcpState::SynSent, process) if age >= SYN_SENT_LONG => {
                    let remote = SocketAddr::new(socket.remote_ip, socket.remote_port);
                    stuck
                        .syn_sent
                        .entry((key.netns, key.local_ip, key.device, remote))
                        .or_default()
                        .add(since, process);
                }
                _ => {}
            }
        }
        self.diagnosis.stuck = stuck;
    }
}
