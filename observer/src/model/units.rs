//! The words of the field, as types.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::name::{NetnsName, fold};

/// A network namespace, by its inode number (`net->ns.inum`, `stat /proc/PID/ns/net`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetnsId(pub u32);

impl NetnsId {
    /// What people call it: its name, or else its number; both where another namespace may be called the same.
    #[must_use]
    pub fn label(self, name: Option<&NetnsName>) -> String {
        match name {
            None => self.0.to_string(),
            Some(name) if name.is_ambiguous => format!("{name} ({})", self.0),
            Some(name) => name.to_string(),
        }
    }

    /// Whether a name of this namespace is, or ends like, something that stands for another one.
    #[must_use]
    pub fn is_belied_by(self, name: &str) -> bool {
        let suffix = name.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (")).map(|(_, number)| number);
        let number = suffix.unwrap_or(name);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        name.is_empty() || is_number && number != self.0.to_string()
    }
}

/// A process (thread group) id, as the /proc that observer reads has it: in the initial pid namespace, or in that of a
/// container in which observer runs. A process outside of that has its id of the initial one, and [`Pid::OUTSIDE`]: it is
/// never mistaken for another with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pid(pub u32);

impl Pid {
    /// Set in the id of a process outside the pid namespace that /proc shows.
    pub const OUTSIDE: u32 = 1 << 31;

    /// Whether /proc does not show the process.
    #[must_use]
    pub const fn is_outside(self) -> bool {
        self.0 & Self::OUTSIDE != 0
    }

    /// The number alone.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 & !Self::OUTSIDE
    }
}

/// `1234`; `host:1234` for a process outside the pid namespace that /proc shows.
impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_outside() { "host:" } else { "" };
        f.pad(&format!("{prefix}{}", self.number()))
    }
}

/// A socket, by the address of its `struct sock`: unique among living sockets, reused after destruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// A process and its command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: Pid,
    /// Command name.
    pub comm: Comm,
}

/// `nginx (1234)`
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.comm, self.pid)
    }
}

/// A command name: at most 15 bytes (`TASK_COMM_LEN` less its zero), chosen by the process itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Comm([u8; 16]);

impl Comm {
    /// All of them, zeros at the end.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Takes the bytes up to the first zero: what a longer name has left behind that (older kernels do not clear it,
    /// `__set_task_comm`) is no part of the name.
    #[must_use]
    pub const fn new(mut bytes: [u8; 16]) -> Self {
        let mut ended = false;
        let mut at = 0;
        while at < bytes.len() {
            ended |= bytes[at] == 0;
            if ended {
                bytes[at] = 0;
            }
            at += 1;
        }
        Self(bytes)
    }
}

impl From<&str> for Comm {
    fn from(name: &str) -> Self {
        Self::from(name.as_bytes())
    }
}

impl From<&[u8]> for Comm {
    fn from(name: &[u8]) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().take(15).zip(name) {
            *to = *from;
        }
        Self(bytes)
    }
}

/// Safe to show: see [`fold`].
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.split(|byte| *byte == 0).next().unwrap_or(&[]);
        f.write_str(&fold(bytes))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// {local ip, local port, remote ip, remote port}: what identifies a TCP connection within a network namespace.
/// v4-mapped IPv6 addresses appear as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FourTuple {
    /// Local address; unspecified for a listener on every address.
    pub local_ip: IpAddr,
    /// Local port; 0 while connect() has not chosen one.
    pub local_port: u16,
    /// Remote address.
    pub remote_ip: IpAddr,
    /// Remote port; 0 for a listener.
    pub remote_port: u16,
}

impl FourTuple {
    /// The same connection as its other end names it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            local_ip: self.remote_ip,
            local_port: self.remote_port,
            remote_ip: self.local_ip,
            remote_port: self.local_port,
        }
    }
}

/// How long a TIME_WAIT socket stays (`TCP_TIMEWAIT_LEN`).
pub(crate) const TIME_WAIT_LASTS: Duration = Duration::from_mins(1);

/// The states of include/net/tcp_states.h that user space can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Both ends agreed.
    Established = 1,
    /// connect() sent its SYN.
    SynSent,
    /// A SYN came in; also a request socket (`TCP_NEW_SYN_RECV`), as `ss` shows it.
    SynReceived,
    /// Closed here, FIN sent.
    FinWait1,
    /// FIN acknowledged, the peer has not closed yet.
    FinWait2,
    /// Closed on both sides, the four-tuple is kept for a while.
    TimeWait,
    /// Not connected.
    Closed,
    /// The peer closed, the process has not.
    CloseWait,
    /// Both closed, the peer first; the last acknowledgement is missing.
    LastAck,
    /// Waiting for connections.
    Listen,
    /// Both closed at the same time.
    Closing,
}

impl TcpState {
    /// All states, in kernel order.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynReceived,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Closed,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// The state with this number in the kernel, or `None` for one that is not known. `TCP_NEW_SYN_RECV` (12) is
    /// [`Self::SynReceived`].
    #[must_use]
    pub const fn from_kernel(raw: u8) -> Option<Self> {
        match raw {
            1..=11 => Some(Self::ALL[raw as usize - 1]),
            12 => Some(Self::SynReceived),
            _ => None,
        }
    }

    /// The name that OpenTelemetry gives it (`network.connection.state`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
        }
    }

    /// The name that the kernel gives it (include/net/tcp_states.h), without `TCP_`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Closed => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }

    /// The handshake was completed at some time: everything between ESTABLISHED and the end.
    #[must_use]
    pub const fn is_past_handshake(self) -> bool {
        matches!(
            self,
            Self::Established | Self::FinWait1 | Self::FinWait2 | Self::CloseWait | Self::LastAck | Self::Closing
        )
    }
}

/// Counts by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts([u32; 11]);

impl StateCounts {
    /// How many are in `state`.
    #[must_use]
    pub const fn get(&self, state: TcpState) -> u32 {
        self.0[state as usize - 1]
    }

    /// The counter of `state`.
    pub const fn get_mut(&mut self, state: TcpState) -> &mut u32 {
        &mut self.0[state as usize - 1]
    }

    /// One of them changes its state.
    pub(super) const fn shift(&mut self, from: TcpState, to: TcpState) {
        *self.get_mut(from) -= 1;
        *self.get_mut(to) += 1;
    }

    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u32 {
        self.0.iter().sum()
    }

    /// State by state, in kernel order, without zeros.
    pub fn iter(&self) -> impl Iterator<Item = (TcpState, u32)> + '_ {
        TcpState::ALL.into_iter().map(|state| (state, self.get(state))).filter(|(_, count)| *count > 0)
    }
}

impl std::ops::Add for StateCounts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        for (to, from) in self.0.iter_mut().zip(other.0) {
            *to += from;
        }
        self
    }
}

/// The two queues of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Connections that wait for accept(): `Recv-Q` of `ss -ltn`.
    pub accept: u32,
    /// Handshakes in progress.
    pub syn: u32,
    /// The limit of either, `Send-Q` of `ss -ltn`: listen()'s backlog, at most `net.core.somaxconn`.
    pub limit: u32,
    /// Segments that it discarded since listen(), for whatever reason (`sk_drops`).
    pub drops: u32,
}

impl Queues {
    /// Whether either is so full that it may soon refuse connections.
    #[must_use]
    pub fn are_nearly_full(self) -> bool {
        let fuller = self.accept.max(self.syn);
        fuller > 0 && u64::from(fuller) * 5 >= u64::from(self.limit) * 4
    }
}

/// The ports that the kernel may choose for connect(), both ends included (`net.ipv4.ip_local_port_range`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest port.
    pub low: u16,
    /// Highest port.
    pub high: u16,
}

impl PortRange {
    /// How many ports it has.
    #[must_use]
    pub const fn size(self) -> u32 {
        (self.high as u32 + 1).saturating_sub(self.low as u32)
    }

    /// How many ports connect() finds towards a new destination, at least and at most: of an odd number it skips the
    /// lowest or the highest one, by chance (`__inet_hash_connect`).
    #[must_use]
    pub const fn found(self) -> (u32, u32) {
        match self.size() {
            size if size == 1 || size % 2 == 0 => (size, size),
            // Of three it always skips the highest one.
            3 => (2, 2),
            size => (size - 1, size),
        }
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

/// `1,234,567`
#[must_use]
pub fn grouped(value: u64) -> String {
    grouped_digits(&value.to_string())
}

/// As [`grouped`], of digits.
#[must_use]
pub fn grouped_digits(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_name_left_behind_is_no_part_of_a_name() {
        assert_eq!(Comm::new(*b"live\0worker-123\0"), Comm::from("live"));
        assert_eq!(Comm::new(*b"exactly-15-long\0"), Comm::from("exactly-15-long"));
    }
}
