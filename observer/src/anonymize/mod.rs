//! Recordings under pseudonyms: an incident can be attached to a public report without its addresses and names.
//!
//! Every field of every input is named here or in [`crate::decode::rewrite`], without `..`: the compiler asks what is to become
//! of a new one. What stays and what does not is in docs/recording.md.
//!
//! **Invariant**: a replay of the result has the numbers of the original. What the model recognizes in an address or a name
//! (loopback, a unit's ending, a runtime) is recognized in its pseudonym.

mod address;
mod names;
mod service;
mod sink;
mod text;

use std::{io, net::IpAddr};

use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip::SipHasher24;

pub use self::sink::{AnonymizedSink, RewriteError, Written, rewrite};
use self::{address::Addresses, names::Names};
use crate::{
    decode::{self, Pseudonyms},
    input::Input,
    model::{
        cost::Cost,
        device::DeviceReading,
        gaps::Skipped,
        member::Member,
        namespace::{NamespaceName, NamespaceReading},
        quality::{FailedMethod, HookStatus, Losses, StreamLoss},
        snapshot::{Host, ProcessFiles},
        units::{Comm, Process, SocketId},
    },
    recording::Header,
};

/// Gives pseudonyms, the same in everything that it rewrites. The keys are random and go with it: afterwards nobody can undo
/// what they did.
pub struct Anonymizer {
    addresses: Addresses,
    names: Names,
    sockets: SipHasher24,
    /// Room that is used again.
    record: Vec<u8>,
}

impl Anonymizer {
    /// With keys of its own. Fails where the system gives no random bytes.
    pub fn new() -> Result<Self, RewriteError> {
        let made = || -> io::Result<Self> {
            Ok(Self {
                addresses: Addresses::new(random()?),
                names: Names::new(keyed(random()?)),
                sockets: keyed(random()?),
                record: Vec::new(),
            })
        };
        made().map_err(RewriteError::Key)
    }

    /// What a recording says of itself. The version becomes this one, which writes the format.
    fn header(&mut self, header: Header) -> Header {
        let Header { observer: _, arch, kernel, started_at, hooks, basis, begins_at, losses_before } = header;
        let hooks = hooks.into_iter().map(|status| self.hook(status)).collect();
        let observer = env!("CARGO_PKG_VERSION").to_owned();
        Header { observer, arch, kernel, started_at, hooks, basis, begins_at, losses_before }
    }

    /// The same input under pseudonyms.
    fn input(&mut self, input: Input<'_>) -> Input<'_> {
        match input {
            Input::Record(bytes) => {
                let mut record = std::mem::take(&mut self.record);
                decode::rewrite(bytes, self, &mut record);
                self.record = record;
                Input::Record(&self.record)
            }
            Input::BeginScan(netns) => Input::BeginScan(netns),
            Input::EndScan => Input::EndScan,
            Input::AbandonScan => Input::AbandonScan,
            Input::EndRound(summary) => Input::EndRound(summary),
            Input::BeginFdScan => Input::BeginFdScan,
            Input::EndFdScan => Input::EndFdScan,
            Input::Namespace(netns, reading) => Input::Namespace(netns, Box::new(self.namespace(*reading))),
            Input::ForgetNamespace(netns) => Input::ForgetNamespace(netns),
            Input::Host(host) => Input::Host(Box::new(self.host(*host))),
            Input::Losses(losses) => {
                let Losses { ring_full, scan_ring_full, read_failed, undecodable, missed } = losses;
                Input::Losses(Losses { ring_full, scan_ring_full, read_failed, undecodable, missed })
            }
            Input::Gaps(gaps) => Input::Gaps(Box::new(gaps.map_skipped(|skipped| self.skipped(skipped)))),
            Input::Tick => Input::Tick,
            Input::RestartTotals => Input::RestartTotals,
            Input::Service(member @ (Member::Cgroup(_) | Member::Process(_)), service) => {
                Input::Service(member, service.map(|service| Box::new(self.names.service(*service))))
            }
            Input::StreamLoss(loss) => {
                let StreamLoss { inputs, namespaces } = *loss;
                Input::StreamLoss(Box::new(StreamLoss { inputs, namespaces }))
            }
            Input::Cost(cost) => {
                let Cost { share, at_most, hook_ns, is_measured, is_suspended, suspensions, skipped } = cost;
                Input::Cost(Cost { share, at_most, hook_ns, is_measured, is_suspended, suspensions, skipped })
            }
            Input::Unchanged(netns) => Input::Unchanged(netns),
        }
    }

    fn hook(&mut self, status: HookStatus) -> HookStatus {
        let HookStatus { hook, method, failed } = status;
        let failed = failed
            .into_iter()
            .map(|FailedMethod { method, because }| FailedMethod { method, because: self.text(&because) });
        HookStatus { hook, method, failed: failed.collect() }
    }

    fn namespace(&mut self, reading: NamespaceReading) -> NamespaceReading {
        let NamespaceReading {
            name,
            port_range,
            reserved,
            tcp_tw_reuse,
            tcp_tw_reuse_delay,
            time_wait,
            established_or_close_wait,
            somaxconn,
            tcp_max_tw_buckets,
            time_wait_overflows,
            aborts_on_memory,
            tcp_timestamps,
            tcp_syncookies,
            tcp_max_syn_backlog,
            listen,
            conntrack,
            shared,
            devices,
            tcp_l3mdev_accept,
            port_step_width,
        } = reading;
        let name = match name {
            NamespaceName::Unknown => NamespaceName::Unknown,
            NamespaceName::Other(name) => NamespaceName::Other(self.names.of_namespace(&name)),
            NamespaceName::Workload(name) => NamespaceName::Workload(self.names.of_workload(&name)),
        };
        let devices = devices.into_iter().map(|DeviceReading { index, name, vrf }| DeviceReading {
            index,
            name: self.names.device(name),
            vrf,
        });
        let devices = devices.collect();
        // Numbers: sysctls and counters.
        NamespaceReading {
            name,
            port_range,
            reserved,
            tcp_tw_reuse,
            tcp_tw_reuse_delay,
            time_wait,
            established_or_close_wait,
            somaxconn,
            tcp_max_tw_buckets,
            time_wait_overflows,
            aborts_on_memory,
            tcp_timestamps,
            tcp_syncookies,
            tcp_max_syn_backlog,
            listen,
            conntrack,
            shared,
            devices,
            tcp_l3mdev_accept,
            port_step_width,
        }
    }

    fn host(&mut self, host: Host) -> Host {
        let Host { kernel, files, nr_open, processes, memory, own } = host;
        let processes = processes.into_iter().map(|ProcessFiles { process, open, soft_limit, hard_limit }| {
            let Process { pid, comm } = process;
            let process = Process { pid, comm: self.names.comm(comm) };
            ProcessFiles { process, open, soft_limit, hard_limit }
        });
        let processes = processes.collect();
        Host { kernel, files, nr_open, processes, memory, own }
    }

    fn skipped(&mut self, skipped: Skipped) -> Skipped {
        let Skipped { rounds, operation, errno, cause } = skipped;
        Skipped { rounds, operation: self.text(&operation), errno, cause: self.text(&cause) }
    }

    fn text(&mut self, text: &str) -> String {
        text::without_names(text, |ip| self.addresses.pseudonym(ip))
    }
}

impl Pseudonyms for Anonymizer {
    fn socket(&mut self, id: SocketId) -> SocketId {
        SocketId(socket(self.sockets, id.0))
    }

    fn ip(&mut self, ip: IpAddr) -> IpAddr {
        self.addresses.pseudonym(ip)
    }

    fn comm(&mut self, comm: Comm) -> Comm {
        self.names.comm(comm)
    }
}

/// A permutation (a Feistel network), because two sockets must stay two. 0 is no socket, before and after.
fn socket(hasher: SipHasher24, sock: u64) -> u64 {
    const ROUNDS: u8 = 4;
    let once = |sock: u64| {
        let round = |(left, right): (u64, u64), round: u8| {
            let mut bytes = [round; 5];
            bytes[1..].copy_from_slice(&right.to_le_bytes()[..4]);
            (right, left ^ (hasher.hash(&bytes) & u64::from(u32::MAX)))
        };
        let (left, right) = (0..ROUNDS).fold((sock >> 32, sock & u64::from(u32::MAX)), round);
        left << 32 | right
    };
    match sock {
        0 => 0,
        // What led to 0 goes where 0 would go.
        sock => Some(once(sock)).filter(|found| *found != 0).unwrap_or_else(|| once(0)),
    }
}

fn keyed(key: [u8; 16]) -> SipHasher24 {
    SipHasher24::new_with_key(&key)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
