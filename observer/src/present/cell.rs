//! A value of a row: drawn, compared and dimmed in one place for all tables.

use std::{
    cmp::Ordering,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{format, scope, service, sparkline::sparkline};
use crate::model::{
    PORT_NUMBERS,
    device::Device,
    headroom::PortUse,
    history::History,
    limit::{Limit, level::Level},
    name::{Name, NetnsName},
    service::Service,
    snapshot::{DestinationRow, Direction, EndpointKey, EndpointRow, OwnerNames},
    units::{NetnsId, Pid, Process},
};

/// One process, or one for several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    comm: String,
    pid: Pid,
    namesakes: usize,
    others: usize,
}

/// What stands in a cell.
#[derive(Clone, Debug)]
pub(crate) enum Cell<'a> {
    Endpoint(&'a EndpointRow),
    /// A local ip and the destination.
    Towards(IpAddr, Device, SocketAddr),
    /// An address, a port and the device that it is on.
    Address(IpAddr, u16, Device),
    /// How many ports are left.
    Left(PortUse),
    /// Command name and pid, the number of processes with that name, and the number of other names.
    Process(Option<Named>),
    /// Orphans: sockets without a process, which the kernel closes.
    Orphans,
    /// Who connected to whom.
    Direction(Direction),
    Namespace(Option<&'a NetnsName>, NetnsId),
    Text(String),
    /// The name of the service that something belongs to, where it has one to show.
    Service(Option<Name>),
    /// What a limit applies to.
    Scope(&'a Limit),
    Count(u64),
    /// How much there can be; `None` where there is no limit in practice.
    Maximum(Option<u64>),
    /// How much is in use, how much there can be as in [`Self::Maximum`], and what part that is.
    UsedOf {
        used: u64,
        maximum: Option<u64>,
        part: Option<(f64, Level)>,
    },
    /// A destination with the ports that are left towards it; `None` where there is no destination.
    Destination(Option<&'a DestinationRow>),
    /// An unknown number.
    Unknown,
    /// The row has no such number.
    Absent,
    /// A place in an order; the first is 0.
    Rank(usize),
    Rate(f64),
    /// The share of a limit in use, 0 to 1, and its level.
    Part(f64, Level),
    /// A time since something, or until something.
    Time(Option<Duration>),
    /// A listener without connections.
    Listening,
    Minute(&'a History),
}

impl Cell<'_> {
    /// A process; `None` if unknown.
    pub(crate) fn process(process: Option<Process>) -> Self {
        Self::fd_owners(process.map(|process| OwnerNames { process, namesakes: 1, others: 0 }))
    }

    /// Several processes; `None` if unknown.
    pub(crate) fn fd_owners(names: Option<OwnerNames>) -> Self {
        Self::Process(names.map(|OwnerNames { process, namesakes, others }| Named {
            comm: format::comm(process.comm),
            pid: process.pid,
            namesakes,
            others,
        }))
    }

    /// The service that something belongs to.
    pub(crate) fn service(of: Option<&Service>) -> Self {
        Self::Service(service::name(of))
    }

    /// The text for a column of this width.
    pub(crate) fn text(&self, width: usize) -> String {
        format::cut_end(&self.shortened(width), width)
    }

    /// The longest form that fits, or the shortest one.
    fn shortened(&self, width: usize) -> String {
        match self {
            Self::Endpoint(row) => endpoint(row, width),
            Self::Towards(local, device, remote) => format::towards(*local, *device, *remote, width),
            Self::Address(ip, port, device) => format::cut_middle(&format::address(*ip, Some(*port), *device), width),
            Self::Left(ports) => left(*ports, width),
            Self::Process(Some(Named { comm, pid, namesakes: 1, others: 0 })) => format::process(comm, *pid, width),
            Self::Process(Some(Named { comm, others, .. })) => format::several(comm, *others, width),
            Self::Process(None) | Self::Unknown => "?".to_owned(),
            Self::Orphans => "(closed)".to_owned(),
            Self::Direction(Direction::Inbound) => "in".to_owned(),
            Self::Direction(Direction::Outbound) => "out".to_owned(),
            Self::Namespace(name, netns) => namespace(*name, *netns, width),
            Self::Text(text) => fitted(text, width),
            Self::Service(name) => name.as_ref().map_or_else(|| format::ABSENT.to_owned(), |name| fitted(name, width)),
            Self::Scope(limit) => scope::fitted(limit, None, width),
            Self::UsedOf { used, maximum, .. } => used_of(*used, *maximum, width),
            Self::Count(count) => format::count_within(*count, width),
            Self::Maximum(maximum) => format::maximum_within(*maximum, width),
            Self::Destination(None) | Self::Absent | Self::Time(None) => format::ABSENT.to_owned(),
            Self::Destination(Some(row)) => destination(row, |count| format::count(count.into())),
            Self::Rank(place) => (place + 1).to_string(),
            Self::Rate(rate) => format::rate(*rate),
            Self::Part(part, _) => format::percent(*part),
            Self::Time(Some(time)) if time.is_zero() => "now".to_owned(),
            Self::Time(Some(time)) => {
                let long = format::duration(*time);
                if format::text_width(&long) <= width { long } else { format::forecast(*time) }
            }
            Self::Listening => "LISTEN".to_owned(),
            Self::Minute(history) => sparkline(history, width),
        }
    }

    /// The text for plain tables, which other programs may read: uncut, numbers without grouping, `-` for nothing.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Endpoint(row) => match row.key.local_port {
                Some(port) => row.key.device.endpoint(row.key.local_ip, port),
                None => row.key.device.endpoint(row.key.local_ip, "*"),
            },
            Self::Count(count) | Self::Maximum(Some(count)) => count.to_string(),
            Self::UsedOf { used, maximum: Some(maximum), .. } => format!("{used}/{maximum}"),
            Self::UsedOf { used, maximum: None, .. } => format!("{used}/-"),
            Self::Left(ports) => ports.left_text(|count| count.to_string()),
            Self::Destination(Some(row)) => destination(row, |count| count.to_string()),
            Self::Destination(None) => String::new(),
            Self::Process(None) | Self::Unknown | Self::Absent | Self::Time(None) => "-".to_owned(),
            Self::Service(name) => name.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            _ => self.text(usize::MAX),
        }
    }

    /// Whether the cell is empty or zero: screens dim it.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Process(process) => process.is_none(),
            Self::Service(name) => name.is_none(),
            Self::Count(count) => *count == 0,
            Self::Left(ports) => ports.left_at_most() == 0,
            Self::Rate(rate) => *rate == 0.0,
            Self::Time(time) => time.is_none(),
            Self::Destination(row) => row.is_none(),
            Self::Listening | Self::Orphans | Self::Unknown | Self::Absent => true,
            Self::Endpoint(_)
            | Self::Towards(..)
            | Self::Address(..)
            | Self::Direction(_)
            | Self::Namespace(..)
            | Self::Text(_)
            | Self::Scope(_)
            | Self::Maximum(_)
            | Self::UsedOf { .. }
            | Self::Rank(_)
            | Self::Part(..)
            | Self::Minute(_) => false,
        }
    }

    /// The level, where the cell shows a share of a limit.
    pub(crate) fn level(&self) -> Option<Level> {
        match self {
            Self::Part(_, level) | Self::UsedOf { part: Some((_, level)), .. } => Some(*level),
            _ => None,
        }
    }

    /// The order within a column.
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let place = |key: &EndpointKey| (key.local_ip, key.local_port, key.device);
        match (self, other) {
            // An absent value sorts below every number.
            _ if self.is_missing() || other.is_missing() => other.is_missing().cmp(&self.is_missing()),
            (Self::Endpoint(a), Self::Endpoint(b)) => place(&a.key).cmp(&place(&b.key)),
            (Self::Towards(a, a_device, a_remote), Self::Towards(b, b_device, b_remote)) => {
                (a, a_device, a_remote).cmp(&(b, b_device, b_remote))
            }
            (Self::Address(a, a_port, a_device), Self::Address(b, b_port, b_device)) => {
                (a, a_port, a_device).cmp(&(b, b_port, b_device))
            }
            // Rows without a process go to the end.
            (Self::Orphans, Self::Process(_)) => Ordering::Greater,
            (Self::Process(_), Self::Orphans) => Ordering::Less,
            (Self::Process(a), Self::Process(b)) => a.is_none().cmp(&b.is_none()).then_with(|| a.cmp(b)),
            (Self::Direction(a), Self::Direction(b)) => a.cmp(b),
            (Self::Namespace(a, a_id), Self::Namespace(b, b_id)) => {
                (a.map(|name| &**name), a_id).cmp(&(b.map(|name| &**name), b_id))
            }
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Service(a), Self::Service(b)) => a.is_none().cmp(&b.is_none()).then_with(|| a.cmp(b)),
            (Self::UsedOf { part: a, .. }, Self::UsedOf { part: b, .. }) => {
                let [a, b] = [a, b].map(|part| part.map_or(0.0, |(ratio, _)| ratio));
                a.total_cmp(&b)
            }
            (Self::Scope(a), Self::Scope(b)) => a.owner().cmp(&b.owner()),
            (Self::Destination(a), Self::Destination(b)) => {
                let [a, b] = [a, b].map(|row| row.map(|row| row.remote));
                a.is_none().cmp(&b.is_none()).then_with(|| a.cmp(&b))
            }
            (Self::Rank(a), Self::Rank(b)) => a.cmp(b),
            (Self::Rate(a), Self::Rate(b)) | (Self::Part(a, _), Self::Part(b, _)) => a.total_cmp(b),
            // No forecast sorts after every forecast.
            (Self::Time(a), Self::Time(b)) => a.unwrap_or(Duration::MAX).cmp(&b.unwrap_or(Duration::MAX)),
            _ => self.magnitude().cmp(&other.magnitude()),
        }
    }

    const fn is_missing(&self) -> bool {
        matches!(self, Self::Unknown | Self::Absent)
    }

    const fn magnitude(&self) -> u64 {
        match self {
            Self::Count(count) | Self::Maximum(Some(count)) => *count,
            Self::Maximum(None) => u64::MAX,
            Self::Left(ports) => ports.left_at_most() as u64,
            _ => 0,
        }
    }
}

/// `23`, `22-23`; shorter where that does not fit.
fn left(ports: PortUse, width: usize) -> String {
    let long = ports.left_text(|count| format::count(count.into()));
    if format::text_width(&long) <= width {
        return long;
    }
    let plain = ports.left_text(|count| count.to_string());
    if format::text_width(&plain) <= width { plain } else { format::count_within(ports.left_at_most().into(), width) }
}

/// Of a path the end says more.
fn fitted(name: &str, width: usize) -> String {
    if name.starts_with('/') { format::cut_start(name, width) } else { format::cut_end(name, width) }
}

/// Namespaces of one name differ by the end of their numbers, which stays.
fn namespace(name: Option<&NetnsName>, netns: NetnsId, width: usize) -> String {
    let label = format::printable(&netns.label(name));
    if name.is_some_and(|name| name.is_ambiguous) { format::cut_middle(&label, width) } else { label }
}

/// `980/1,024`; shorter where that does not fit.
fn used_of(used: u64, maximum: Option<u64>, width: usize) -> String {
    let within = |each| format!("{}/{}", format::count_within(used, each), format::maximum_within(maximum, each));
    let long = within(usize::MAX);
    if format::text_width(&long) <= width { long } else { within(width.saturating_sub(1) / 2) }
}

/// Beside an endpoint that has more connections than there are port numbers.
const BEYOND: &str = ">65,536";

fn endpoint(row: &EndpointRow, width: usize) -> String {
    let local = format::address(row.key.local_ip, row.key.local_port, row.key.device);
    if row.key.local_port.is_some() {
        let marked = format!("{local} {BEYOND}");
        let is_beyond = row.sockets > PORT_NUMBERS && format::text_width(&marked) <= width;
        return if is_beyond { marked } else { format::cut_middle(&local, width) };
    }
    let several = match (row.destination_count, row.destinations.first()) {
        (0, _) => return format::cut_middle(&local, width),
        (1, Some(only)) => only.remote.to_string(),
        (1, None) => "1 destination".to_owned(),
        (many, _) => format!("{} destinations", format::count(many as u64)),
    };
    let long = format!("{} → {several}", format::scoped(row.key.local_ip, row.key.device));
    if format::text_width(&long) <= width { long } else { format::cut_middle(&local, width) }
}

/// `10.0.0.9:5432: 23 ports left, 12 used, 3 in TIME_WAIT`
fn destination(row: &DestinationRow, count: impl Fn(u32) -> String) -> String {
    let remote = row.remote;
    let Some(ports) = row.ports else { return remote.to_string() };
    let left = match ports.left() {
        Some(_) => ports.left_text(&count),
        None => format!("at most {}", count(ports.left_at_most())),
    };
    format!("{remote}: {left} ports left, {} used, {} in TIME_WAIT", count(ports.used), count(ports.time_wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_one_name_differ_in_every_width_that_has_room_for_it() {
        let shown = |number, is_ambiguous, width| {
            let name = NetnsName { name: "nginx".into(), is_ambiguous };
            Cell::Namespace(Some(&name), NetnsId(number)).text(width)
        };
        for (width, expected) in
            [(18, "nginx (4026532281)"), (16, "nginx (40…32281)"), (11, "nginx…2281)"), (4, "n…1)")]
        {
            assert_eq!(shown(4_026_532_281, true, width), expected);
            assert_ne!(shown(4_026_532_280, true, width), expected);
            assert_eq!(shown(4_026_532_281, false, width), shown(4_026_532_280, false, width));
        }
        assert_eq!(Cell::Namespace(None, NetnsId(7)).text(11), "7");
    }

    #[test]
    fn what_is_missing_is_below_every_number() {
        let parts = || {
            let part = |percent: u32| Cell::Part(f64::from(percent) / 100.0, Level::Ok);
            (0..100).map(move |i| if i % 3 == 0 { Cell::Unknown } else { part(i * 37 % 101) })
        };
        let mut cells: Vec<Cell> = parts().collect();
        // The sort panics if the order is inconsistent.
        cells.sort_by(Cell::cmp);
        let missing = cells.iter().take_while(|cell| matches!(cell, Cell::Unknown)).count();
        assert_eq!(missing, parts().filter(|cell| matches!(cell, Cell::Unknown)).count());
        assert_eq!(Cell::Absent.cmp(&Cell::Unknown), Ordering::Equal);
        assert_eq!(Cell::Absent.cmp(&Cell::Count(0)), Ordering::Less);
        assert_eq!(Cell::Maximum(None).cmp(&Cell::Maximum(Some(7))), Ordering::Greater);
    }
}
