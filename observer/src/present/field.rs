//! The definition of one quantity of a row, and the choice of columns that fit a width.

use super::Cell;
use crate::model::snapshot::Snapshot;

/// The column that tables omit if all rows are in one namespace.
pub(crate) const NETNS_ID: &str = "netns";
pub(crate) const NETNS_HELP: &str = "Network namespace, where there are several: its pod, container or machine, else its `ip netns` name, its unit, its \
     oldest process, its number. A name that several have stands before the number.";
pub(crate) const NETNS_SOURCE: &str = "the inode number of /proc/PID/ns/net";

/// The column that is left out where no row has a service with a name.
pub(crate) const SERVICE_ID: &str = "service";
pub(crate) const SERVICE_HELP: &str = "Its systemd unit, pod, container or machine; –: none, or not known.";
pub(crate) const SERVICE_SOURCE: &str = "the socket's cgroup, else its owner's";

/// How a column is aligned, and what comes first in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Words, aligned to the left, A first.
    Text,
    /// Numbers, aligned to the right, the highest first.
    Number,
    /// Times, aligned to the right, the shortest first.
    Time,
    /// Places in a list, aligned to the right, 1 first.
    Rank,
    /// A picture, which has no order.
    None,
}

/// What stands in a column of a row.
pub(crate) type Get<R> = for<'a> fn(&'a R, &'a Snapshot) -> Cell<'a>;

/// A kind of row with its fields.
pub(crate) trait Fields: Sized + 'static {
    /// What a row is, in words: `endpoint`.
    const NOUN: &'static str;
    /// The first one names the row and is never left out.
    const FIELDS: &'static [Field<Self>];

    /// The field with this id.
    fn field(id: &str) -> Option<&'static Field<Self>> {
        Self::FIELDS.iter().find(|field| field.id == id)
    }
}

/// A quantity of a row. Widths are in columns and include the space before the column.
#[derive(Debug)]
pub(crate) struct Field<R: 'static> {
    /// The name for scripts, `--sort` and JSON, in snake case.
    pub(crate) id: &'static str,
    /// The longest comes first; the first that fits is shown.
    pub(crate) titles: &'static [&'static str],
    /// What it counts; empty for words.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes docs/metrics.md"))]
    pub(crate) unit: &'static str,
    /// What it is, in a sentence.
    pub(crate) help: &'static str,
    /// Where it comes from: hooks, scans, files, sysctls.
    pub(crate) source: &'static str,
    /// Where a row's JSON object has it. A single path ends with the id; several are parts of it.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes docs/metrics.md"))]
    pub(crate) json: &'static [&'static str],
    pub(crate) order: Order,
    pub(crate) min: u16,
    /// The smallest width before the table omits the column. Less than `min` where a shorter title says the same.
    pub(crate) tight: Option<u16>,
    /// Spare room makes every column this wide,
    pub(crate) comfort: u16,
    /// and then this wide.
    pub(crate) max: u16,
    /// Only tables at least this wide have the column.
    pub(crate) from: u16,
    /// Without room the table omits the highest rank first.
    pub(crate) rank: u8,
    pub(crate) get: Get<R>,
}

impl<R> Field<R> {
    const fn new(
        id: &'static str,
        titles: &'static [&'static str],
        help: &'static str,
        order: Order,
        get: Get<R>,
    ) -> Self {
        Self {
            id,
            titles,
            unit: "",
            help,
            source: "",
            json: &[],
            order,
            min: 10,
            tight: None,
            comfort: 10,
            max: 10,
            from: 0,
            rank: 0,
            get,
        }
    }

    /// A column of words.
    pub(crate) const fn text(
        id: &'static str,
        titles: &'static [&'static str],
        help: &'static str,
        get: Get<R>,
    ) -> Self {
        Self::new(id, titles, help, Order::Text, get)
    }

    /// A column of numbers of `unit`, ten wide.
    pub(crate) const fn number(
        id: &'static str,
        titles: &'static [&'static str],
        unit: &'static str,
        help: &'static str,
        get: Get<R>,
    ) -> Self {
        Self { unit, ..Self::new(id, titles, help, Order::Number, get) }
    }

    /// A column of times.
    pub(crate) const fn time(
        id: &'static str,
        titles: &'static [&'static str],
        help: &'static str,
        get: Get<R>,
    ) -> Self {
        Self { unit: "seconds", ..Self::new(id, titles, help, Order::Time, get) }
    }

    /// A column of places in a list.
    pub(crate) const fn rank_of(
        id: &'static str,
        titles: &'static [&'static str],
        help: &'static str,
        get: Get<R>,
    ) -> Self {
        Self::new(id, titles, help, Order::Rank, get)
    }

    /// A column of pictures.
    pub(crate) const fn picture(
        id: &'static str,
        titles: &'static [&'static str],
        help: &'static str,
        get: Get<R>,
    ) -> Self {
        Self::new(id, titles, help, Order::None, get)
    }

    /// The network namespace of a row.
    pub(crate) const fn netns(titles: &'static [&'static str], get: Get<R>) -> Self {
        Self::text(NETNS_ID, titles, NETNS_HELP, get).source(NETNS_SOURCE)
    }

    /// The service of a row.
    pub(crate) const fn service(get: Get<R>) -> Self {
        Self::text(SERVICE_ID, &["SERVICE"], SERVICE_HELP, get).source(SERVICE_SOURCE)
    }

    pub(crate) const fn source(self, source: &'static str) -> Self {
        Self { source, ..self }
    }

    pub(crate) const fn json(self, json: &'static [&'static str]) -> Self {
        Self { json, ..self }
    }

    pub(crate) const fn width(self, min: u16, comfort: u16, max: u16) -> Self {
        Self { min, comfort, max, ..self }
    }

    pub(crate) const fn tight(self, tight: u16) -> Self {
        Self { tight: Some(tight), ..self }
    }

    pub(crate) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    pub(crate) const fn from(self, from: u16) -> Self {
        Self { from, ..self }
    }

    /// Only plain tables and explanations have it: the live tables have no room for it.
    pub(crate) const fn off_screen(self) -> Self {
        self.from(u16::MAX)
    }

    pub(crate) const fn is_on_screen(&self) -> bool {
        self.from < u16::MAX
    }

    /// The name for sentences.
    pub(crate) fn title(&self) -> &'static str {
        self.title_within(usize::MAX)
    }

    pub(crate) fn title_within(&self, width: usize) -> &'static str {
        let fits = |title: &&&str| title.chars().count() <= width;
        self.titles.iter().find(fits).or(self.titles.last()).copied().unwrap_or_default()
    }

    /// What it is, and where it comes from.
    pub(crate) fn explanation(&self) -> String {
        if self.source.is_empty() { self.help.to_owned() } else { format!("{} Source: {}.", self.help, self.source) }
    }
}

/// The width of most terminals that are not wide.
const USUAL: u16 = 80;
/// Tables below this width shorten titles before they leave out a column.
const WIDE: u16 = 100;

/// The columns that a table of this width has among those that are `wanted`, as indices of fields, and how wide each
/// is. From 80 columns on, those with the ids `kept`, by which the table is sorted now or at first, are never left out.
pub(crate) fn columns<R: Fields>(width: u16, kept: [&str; 2], wanted: impl Fn(&Field<R>) -> bool) -> Vec<(usize, u16)> {
    let is_kept = |field: &Field<R>| width >= USUAL && kept.contains(&field.id);
    let is_wanted = |field: &Field<R>| (field.from <= width || is_kept(field)) && field.is_on_screen() && wanted(field);
    let wanted = R::FIELDS.iter().enumerate().filter(|(_, field)| is_wanted(field));
    let mut columns: Vec<(usize, u16)> = wanted.map(|(index, field)| (index, field.min)).collect();
    let total = |columns: &[(usize, u16)]| columns.iter().map(|(_, width)| width).sum::<u16>();
    let rank = |index: usize| if is_kept(&R::FIELDS[index]) { 0 } else { R::FIELDS[index].rank };
    while total(&columns) > width && columns.len() > 1 {
        let worst = columns.iter().skip(1).map(|(index, _)| rank(*index)).max();
        // All columns that can be narrower become so before the table omits one of them.
        let is_tight = columns.iter().all(|(index, width)| R::FIELDS[*index].tight.is_none_or(|tight| tight >= *width));
        let can_tighten = columns.iter().any(|(index, _)| {
            let field = &R::FIELDS[*index];
            field.tight.is_some() && Some(rank(*index)) == worst
        });
        let tight = |(index, width): &(usize, u16)| R::FIELDS[*index].tight.map_or(*width, |tight| tight.min(*width));
        let is_enough = width < WIDE && columns.iter().map(tight).sum::<u16>() <= width;
        if (can_tighten || is_enough) && !is_tight {
            for (index, width) in &mut columns {
                *width = R::FIELDS[*index].tight.map_or(*width, |tight| tight.min(*width));
            }
        } else {
            let first = columns[0];
            columns.retain(|column| *column == first || Some(rank(column.0)) != worst);
        }
    }
    for goal in [|field: &Field<R>| field.comfort, |field: &Field<R>| field.max] {
        // One column after the other becomes one wider: none takes all the room before the next one has any.
        loop {
            let mut spare = width.saturating_sub(total(&columns));
            let before = spare;
            for (index, width) in &mut columns {
                if spare > 0 && *width < goal(&R::FIELDS[*index]) {
                    (*width, spare) = (*width + 1, spare - 1);
                }
            }
            if spare == before {
                break;
            }
        }
    }
    columns
}
