//! The columns of the endpoints table: one table that decides drawing, sorting and help.

use std::cmp::Ordering;

use crate::{
    model::{
        history::History,
        snapshot::{Direction, EndpointKey, EndpointRow, Snapshot},
        units::{NetnsId, TcpState},
    },
    tui::{format, widget::sparkline::sparkline},
};

/// A column, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Endpoint,
    Process,
    Direction,
    Namespace,
    Sockets,
    Established,
    Other,
    TimeWait,
    OpenedRate,
    ClosedRate,
    Peak,
    Failed,
    Minute,
}

/// How a column is aligned and sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the left, A first.
    Text,
    /// To the right, the highest first.
    Number,
    /// A picture has no order.
    Picture,
}

/// Everything about a column. Widths include the space before it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) column: Column,
    /// The longest comes first; the first that fits is shown.
    pub(crate) titles: &'static [&'static str],
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) min: u16,
    /// Spare room makes every column this wide,
    pub(crate) comfort: u16,
    /// and then this wide.
    pub(crate) max: u16,
    /// Only tables at least this wide have the column.
    pub(crate) from: u16,
    /// When room runs out the highest rank goes first.
    pub(crate) rank: u8,
    pub(crate) get: fn(&EndpointRow) -> Value<'_>,
}

impl Field {
    /// The name for sentences.
    pub(crate) fn title(&self) -> &'static str {
        self.title_within(usize::MAX)
    }

    pub(crate) fn title_within(&self, width: usize) -> &'static str {
        let fits = |title: &&&str| title.len() <= width;
        self.titles.iter().find(fits).or(self.titles.last()).copied().unwrap_or_default()
    }
}

/// What stands in a cell.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Endpoint(&'a EndpointRow),
    /// Command name and pid.
    Process(Option<(String, u32)>),
    /// Sockets that only the kernel still holds.
    Orphans,
    Direction(Direction),
    Namespace(Option<&'a str>, NetnsId),
    Count(u32),
    Total(u64),
    Rate(f64),
    /// A listener that nobody is connected to.
    Listening,
    Minute(&'a History),
}

/// Everything that is neither ESTABLISHED nor `TIME_WAIT`.
fn other(row: &EndpointRow) -> u32 {
    let known = row.states.get(TcpState::Established) + row.states.get(TcpState::TimeWait);
    row.states.sum().saturating_sub(known)
}

fn established(row: &EndpointRow) -> Value<'_> {
    if row.listening && row.states.sum() == 0 {
        Value::Listening
    } else {
        Value::Count(row.states.get(TcpState::Established))
    }
}

fn process(row: &EndpointRow) -> Value<'_> {
    if row.sockets > 0 && row.orphans == row.sockets {
        return Value::Orphans;
    }
    Value::Process(row.process.map(|process| (format::comm(process.comm), process.pid.0)))
}

/// What most columns have.
const NUMBER: Field = Field {
    column: Column::Sockets,
    titles: &[],
    help: "",
    kind: Kind::Number,
    min: 10,
    comfort: 10,
    max: 10,
    from: 0,
    rank: 0,
    get: |row| Value::Count(row.sockets),
};

pub(crate) const FIELDS: &[Field] = &[
    Field {
        column: Column::Endpoint,
        titles: &["LOCAL ENDPOINT"],
        help: "Local address and port. For outgoing connections, which each have a port of their own: the local address \
               and where they go.",
        kind: Kind::Text,
        min: 18,
        comfort: 24,
        max: 48,
        rank: 0,
        get: |row| Value::Endpoint(row),
        ..NUMBER
    },
    Field {
        column: Column::Process,
        titles: &["PROCESS"],
        help: "The process that listens, or that last connected or accepted here, and its pid.",
        kind: Kind::Text,
        min: 9,
        comfort: 15,
        max: 24,
        rank: 3,
        get: process,
        ..NUMBER
    },
    Field {
        column: Column::Direction,
        titles: &["DIRECTION", "DIR"],
        help: "in: the other end connected to us. out: we connected.",
        kind: Kind::Text,
        min: 4,
        comfort: 4,
        max: 10,
        rank: 7,
        get: |row| Value::Direction(row.key.direction),
        ..NUMBER
    },
    Field {
        column: Column::Namespace,
        titles: &["NAMESPACE"],
        help: "Network namespace, where there are several: its `ip netns` name, else its oldest process, else its number.",
        kind: Kind::Text,
        min: 11,
        comfort: 11,
        max: 16,
        from: 60,
        rank: 4,
        get: |row| Value::Namespace(row.netns_name.as_deref(), row.key.netns),
    },
    Field {
        column: Column::Sockets,
        titles: &["SOCKETS"],
        help: "Sockets that are connected or connecting: ESTABLISHED and other states, without TIME-WAIT and without \
               half-open requests.",
        from: 92,
        rank: 10,
        get: |row| Value::Count(row.sockets),
        ..NUMBER
    },
    Field {
        column: Column::Established,
        titles: &["ESTABLISHED", "ESTAB"],
        help: "Sockets in ESTABLISHED; LISTEN for a listener that has no sockets.",
        min: 8,
        comfort: 8,
        max: 12,
        rank: 1,
        get: established,
        ..NUMBER
    },
    Field {
        column: Column::Other,
        titles: &["OTHER STATES", "OTHER"],
        help: "Sockets that open or close: SYN-SENT, SYN-RECEIVED, FIN-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING.",
        min: 6,
        comfort: 6,
        max: 13,
        rank: 8,
        get: |row| Value::Count(other(row)),
        ..NUMBER
    },
    Field {
        column: Column::TimeWait,
        titles: &["TIME-WAIT"],
        help: "Closed here first; the kernel keeps the addresses for 60 s. Counted at each scan.",
        rank: 5,
        get: |row| Value::Count(row.states.get(TcpState::TimeWait)),
        ..NUMBER
    },
    Field {
        column: Column::OpenedRate,
        titles: &["OPENED/s", "OPEN/s"],
        help: "Handshakes completed over the last second.",
        min: 7,
        comfort: 7,
        max: 9,
        rank: 2,
        get: |row| Value::Rate(row.opened_per_second),
        ..NUMBER
    },
    Field {
        column: Column::ClosedRate,
        titles: &["CLOSED/s", "CLOSE/s"],
        help: "Connections ended over the last second.",
        min: 8,
        comfort: 8,
        max: 9,
        rank: 6,
        get: |row| Value::Rate(row.closed_per_second),
        ..NUMBER
    },
    Field {
        column: Column::Peak,
        titles: &["PEAK"],
        help: "The most sockets that were seen at once.",
        min: 9,
        comfort: 9,
        from: 116,
        rank: 11,
        get: |row| Value::Count(row.peak),
        ..NUMBER
    },
    Field {
        column: Column::Failed,
        titles: &["FAILED"],
        help: "Connections that ended before their handshake was complete, since observer started.",
        min: 8,
        comfort: 8,
        from: 120,
        rank: 12,
        get: |row| Value::Total(row.failed_total),
        ..NUMBER
    },
    Field {
        column: Column::Minute,
        titles: &["LAST MINUTE", "1 MIN"],
        help: "Sockets over the last minute, against the row's own highest; now is at the right.",
        kind: Kind::Picture,
        min: 8,
        comfort: 16,
        max: 61,
        rank: 9,
        get: |row| Value::Minute(&row.history),
        ..NUMBER
    },
];

impl Value<'_> {
    /// As it is drawn.
    pub(crate) fn text(&self, width: usize) -> String {
        match self {
            Self::Endpoint(row) => endpoint(row, width),
            Self::Process(Some((comm, pid))) => format::process(comm, *pid, width),
            Self::Process(None) => "?".to_owned(),
            Self::Orphans => "(closed)".to_owned(),
            Self::Direction(Direction::Inbound) => "in".to_owned(),
            Self::Direction(Direction::Outbound) => "out".to_owned(),
            Self::Namespace(Some(name), _) => format::cut_end(&format::printable(name), width),
            Self::Namespace(None, netns) => netns.0.to_string(),
            Self::Count(count) => format::count_within((*count).into(), width),
            Self::Total(count) => format::count_within(*count, width),
            Self::Rate(rate) => format::rate(*rate),
            Self::Listening => "LISTEN".to_owned(),
            Self::Minute(history) => sparkline(history, width),
        }
    }

    /// There is nothing to look at.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Process(process) => process.is_none(),
            Self::Count(count) => *count == 0,
            Self::Total(count) => *count == 0,
            Self::Rate(rate) => *rate == 0.0,
            Self::Listening | Self::Orphans => true,
            Self::Endpoint(_) | Self::Direction(_) | Self::Namespace(..) | Self::Minute(_) => false,
        }
    }

    /// The order within a column.
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let place = |key: &EndpointKey| (key.local_ip, key.local_port);
        match (self, other) {
            (Self::Endpoint(a), Self::Endpoint(b)) => place(&a.key).cmp(&place(&b.key)),
            // Rows without a process go to the end.
            (Self::Orphans, Self::Process(_)) => Ordering::Greater,
            (Self::Process(_), Self::Orphans) => Ordering::Less,
            (Self::Process(a), Self::Process(b)) => a.is_none().cmp(&b.is_none()).then_with(|| a.cmp(b)),
            (Self::Direction(a), Self::Direction(b)) => a.cmp(b),
            (Self::Namespace(a, a_id), Self::Namespace(b, b_id)) => (a, a_id).cmp(&(b, b_id)),
            (Self::Rate(a), Self::Rate(b)) => a.total_cmp(b),
            _ => self.magnitude().cmp(&other.magnitude()),
        }
    }

    fn magnitude(&self) -> u64 {
        match self {
            Self::Count(count) => u64::from(*count),
            Self::Total(count) => *count,
            _ => 0,
        }
    }
}

fn endpoint(row: &EndpointRow, width: usize) -> String {
    let local = format::address(row.key.local_ip, row.key.local_port);
    if row.key.local_port.is_some() {
        return format::cut_middle(&local, width);
    }
    let several = match (row.destination_count, row.destinations.first()) {
        (0, _) => return format::cut_middle(&local, width),
        (1, Some(only)) => only.remote.to_string(),
        (1, None) => "1 destination".to_owned(),
        (many, _) => format!("{} destinations", format::count(many as u64)),
    };
    let long = format!("{} → {several}", row.key.local_ip);
    if format::text_width(&long) <= width { long } else { format::cut_middle(&local, width) }
}

/// The columns that a table of this width has, and how wide each of them is.
pub(crate) fn columns(width: u16, data: &Snapshot) -> Vec<(&'static Field, u16)> {
    let mut namespaces = data.endpoints.iter().map(|row| row.key.netns);
    let first = namespaces.next();
    let are_several = namespaces.any(|netns| Some(netns) != first);
    let is_told_apart = |field: &Field| field.column != Column::Namespace || are_several;
    let wanted = FIELDS.iter().filter(|field| field.from <= width && is_told_apart(field));
    let mut columns: Vec<_> = wanted.map(|field| (field, field.min)).collect();
    let total = |columns: &[(&Field, u16)]| columns.iter().map(|(_, width)| width).sum::<u16>();
    while total(&columns) > width && columns.len() > 1 {
        let worst = columns.iter().map(|(field, _)| field.rank).max();
        columns.retain(|(field, _)| Some(field.rank) != worst);
    }
    for goal in [|field: &Field| field.comfort, |field: &Field| field.max] {
        for i in 0..columns.len() {
            let spare = width.saturating_sub(total(&columns));
            let (field, width) = &mut columns[i];
            *width += spare.min(goal(field).saturating_sub(*width));
        }
    }
    columns
}
