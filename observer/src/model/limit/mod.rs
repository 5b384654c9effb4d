//! Limits: everything that can run out, in one ranked list. Each has what is used, its maximum, how fast it fills, and
//! (`about`) where the maximum comes from, how to raise it, and what that risks.

mod about;
mod counters;
mod forecast;
pub mod level;
mod survey;
mod trend;

use std::{
    cmp::Ordering,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use self::about::About;
pub use self::level::{practical, ratio};
pub use self::trend::SLOPE_NEEDS;
pub(super) use self::trend::Trends;
pub use self::{counters::Counter, forecast::Turnover};
use super::{
    device::Device,
    name::NetnsName,
    service::Service,
    units::{NetnsId, Pid, Process, SocketId},
};

/// A kind of limit: what runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitKind {
    /// Local ports that connect() may choose, from one local ip towards one destination.
    Ports,
    /// File descriptors of a process.
    ProcessFiles,
    /// Open files of the host.
    HostFiles,
    /// Connections of a listener that wait for accept().
    AcceptQueue,
    /// Handshakes in progress at a listener.
    SynQueue,
    /// Connections that netfilter tracks in a namespace.
    Conntrack,
    /// TIME_WAIT sockets of a namespace.
    TimeWait,
    /// Sockets of the host without any fd owner.
    Orphans,
    /// Pages that the buffers of all TCP sockets take.
    TcpMemory,
    /// TCP sockets that the host's memory has room for.
    SocketMemory,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Ports,
        Self::ProcessFiles,
        Self::HostFiles,
        Self::AcceptQueue,
        Self::SynQueue,
        Self::Conntrack,
        Self::TimeWait,
        Self::Orphans,
        Self::TcpMemory,
        Self::SocketMemory,
    ];
}

/// What a limit applies to. The scope identifies a limit among those of its kind, from snapshot to snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The whole host.
    Host,
    /// A network namespace.
    Namespace(NetnsId),
    /// A process.
    Process(Pid),
    /// A destination as seen from one local ip.
    Destination {
        /// Its namespace.
        netns: NetnsId,
        /// The local ip.
        local_ip: IpAddr,
        /// The device that the sockets are bound to.
        device: Device,
        /// The destination.
        remote: SocketAddr,
    },
    /// A listening socket; with `SO_REUSEPORT` several have the same address.
    Listener {
        /// Its namespace.
        netns: NetnsId,
        /// The address that it is bound to.
        local: SocketAddr,
        /// The device that it is bound to.
        device: Device,
        /// The socket.
        id: SocketId,
    },
}

impl Scope {
    /// The namespace that it belongs to, if it belongs to one.
    #[must_use]
    pub const fn netns(self) -> Option<NetnsId> {
        match self {
            Self::Namespace(netns) | Self::Destination { netns, .. } | Self::Listener { netns, .. } => Some(netns),
            Self::Host | Self::Process(_) => None,
        }
    }

    /// The device that its sockets are bound to.
    #[must_use]
    pub const fn device(self) -> Device {
        match self {
            Self::Destination { device, .. } | Self::Listener { device, .. } => device,
            Self::Host | Self::Process(_) | Self::Namespace(_) => Device::NONE,
        }
    }
}

/// Something that can run out.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// What runs out.
    pub kind: LimitKind,
    /// Whose it is.
    pub scope: Scope,
    /// The name of its namespace, if it belongs to one and that has a name.
    pub netns_name: Option<NetnsName>,
    /// The process, of a process or of a listener.
    pub process: Option<Process>,
    /// The service of the process, of the listener, or of most sockets towards the destination.
    pub service: Option<Arc<Service>>,
    /// How much is used, in [`About::unit`].
    pub used: u64,
    /// How much there can be.
    pub maximum: u64,
    /// How often this limit refused something, if known: at a listener's queue since observer started, elsewhere since
    /// the kernel began to count.
    pub hits: Option<u64>,
    /// The kernel's other counters about it.
    pub counters: Vec<Counter>,
    /// Growth per second over the last half minute. `None` while unknown, or no more than noise.
    pub slope: Option<f64>,
    /// For things that end by themselves after a known time (TIME_WAIT): how many there are and how many come.
    pub turnover: Option<Turnover>,
    /// Everything counted here ends by itself after about this time: a rise predicts nothing beyond it.
    pub lifetime: Option<Duration>,
}

/// Among limits of one level, those that will be full within this time come first.
const SOON: Duration = Duration::from_hours(1);

impl Limit {
    /// The most urgent first: by level; within a level what will be full within the hour, the soonest first; then the
    /// fullest. The level decides because a forecast may be wrong, and the use is a fact.
    #[must_use]
    pub fn by_urgency(&self, other: &Self) -> Ordering {
        let soon = |limit: &Self| limit.time_to_full().filter(|time| *time <= SOON).unwrap_or(Duration::MAX);
        other
            .level()
            .cmp(&self.level())
            .then_with(|| soon(self).cmp(&soon(other)))
            .then_with(|| other.ratio().total_cmp(&self.ratio()))
            .then_with(|| (self.kind, self.scope).cmp(&(other.kind, other.scope)))
    }

    /// Why more is in use than the maximum allows; `None` where it is not.
    #[must_use]
    pub fn excess(&self) -> Option<&'static str> {
        let is_beyond = self.practical_maximum().is_some_and(|maximum| self.used > maximum);
        is_beyond.then(|| self.kind.why_beyond())
    }

    /// Where its maximum comes from, and how to raise it.
    #[must_use]
    pub const fn about(&self) -> &'static About {
        About::of(self.kind)
    }

    /// The scope, in words.
    #[must_use]
    pub fn owner(&self) -> String {
        let process = self.process.map(|process| process.to_string());
        match self.scope {
            Scope::Host => "host".to_owned(),
            Scope::Namespace(netns) => {
                format!("namespace {}", netns.label(self.netns_name.as_ref()))
            }
            Scope::Process(pid) => process.unwrap_or_else(|| format!("process {}", pid.0)),
            Scope::Destination { local_ip, device, remote, .. } => format!("{} → {remote}", device.scoped(local_ip)),
            Scope::Listener { local, device, .. } => {
                let local = device.endpoint(local.ip(), local.port());
                process.map_or_else(|| local.clone(), |process| format!("{local} {process}"))
            }
        }
    }

    /// ` in blue`: its namespace, where that is not `own` and not all that it belongs to; else empty.
    #[must_use]
    pub fn elsewhere(&self, own: NetnsId) -> String {
        match self.scope {
            Scope::Destination { netns, .. } | Scope::Listener { netns, .. } if netns != own => {
                format!(" in {}", netns.label(self.netns_name.as_ref()))
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod builder;
#[cfg(test)]
mod tests;
