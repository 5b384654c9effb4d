//! Everything about a column, and which columns fit.

use super::{Source, Value};
use crate::model::snapshot::Snapshot;

/// The column that is left out where there is one namespace.
pub(crate) const NAMESPACE: &str = "NAMESPACE";
pub(crate) const NAMESPACE_HELP: &str =
    "Network namespace, where there are several: its `ip netns` name, else its oldest process, else its number.";

/// How a column is aligned and sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the left, A first.
    Text,
    /// To the right, the highest first.
    Number,
    /// To the right, the shortest first.
    Time,
    /// A picture has no order.
    Picture,
}

/// What stands in a column of a row.
pub(crate) type Get<R> = for<'a> fn(&'a R, &'a Snapshot) -> Value<'a>;

/// Everything about a column. Widths include the space before it.
#[derive(Debug)]
pub(crate) struct Field<R: 'static> {
    /// The longest comes first; the first that fits is shown.
    pub(crate) titles: &'static [&'static str],
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) min: u16,
    /// As narrow as it may become before it is left out: below its `min` where a shorter title says the same.
    pub(crate) tight: Option<u16>,
    /// Spare room makes every column this wide,
    pub(crate) comfort: u16,
    /// and then this wide.
    pub(crate) max: u16,
    /// Only tables at least this wide have the column.
    pub(crate) from: u16,
    /// When room runs out the highest rank goes first.
    pub(crate) rank: u8,
    pub(crate) get: Get<R>,
}

impl<R> Field<R> {
    /// A column of words.
    pub(crate) const fn text(titles: &'static [&'static str], help: &'static str, get: Get<R>) -> Self {
        Self { titles, help, kind: Kind::Text, min: 10, tight: None, comfort: 10, max: 10, from: 0, rank: 0, get }
    }

    /// A column of numbers, ten wide.
    pub(crate) const fn number(titles: &'static [&'static str], help: &'static str, get: Get<R>) -> Self {
        Self { titles, help, kind: Kind::Number, min: 10, tight: None, comfort: 10, max: 10, from: 0, rank: 0, get }
    }

    /// A column of times.
    pub(crate) const fn time(titles: &'static [&'static str], help: &'static str, get: Get<R>) -> Self {
        Self { titles, help, kind: Kind::Time, min: 10, tight: None, comfort: 10, max: 10, from: 0, rank: 0, get }
    }

    /// A column of pictures.
    pub(crate) const fn picture(titles: &'static [&'static str], help: &'static str, get: Get<R>) -> Self {
        Self { titles, help, kind: Kind::Picture, min: 10, tight: None, comfort: 10, max: 10, from: 0, rank: 0, get }
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

    /// The name for sentences.
    pub(crate) fn title(&self) -> &'static str {
        self.title_within(usize::MAX)
    }

    pub(crate) fn title_within(&self, width: usize) -> &'static str {
        let fits = |title: &&&str| title.len() <= width;
        self.titles.iter().find(fits).or(self.titles.last()).copied().unwrap_or_default()
    }
}

/// The columns that a table of this width has, as indices of fields, and how wide each of them is.
pub(crate) fn columns<S: Source>(width: u16, data: &Snapshot) -> Vec<(usize, u16)> {
    let is_wanted = |field: &Field<S::Row>| field.from <= width && S::has(field, data);
    let wanted = S::FIELDS.iter().enumerate().filter(|(_, field)| is_wanted(field));
    let mut columns: Vec<(usize, u16)> = wanted.map(|(index, field)| (index, field.min)).collect();
    let total = |columns: &[(usize, u16)]| columns.iter().map(|(_, width)| width).sum::<u16>();
    while total(&columns) > width && columns.len() > 1 {
        let worst = columns.iter().map(|(index, _)| S::FIELDS[*index].rank).max();
        // Before one of those that can be narrower goes, all of them become so.
        let is_tight = columns.iter().all(|(index, width)| S::FIELDS[*index].tight.is_none_or(|tight| tight >= *width));
        let can_tighten = columns.iter().any(|(index, _)| {
            let field = &S::FIELDS[*index];
            field.tight.is_some() && Some(field.rank) == worst
        });
        if can_tighten && !is_tight {
            for (index, width) in &mut columns {
                *width = S::FIELDS[*index].tight.unwrap_or(*width);
            }
        } else {
            columns.retain(|(index, _)| Some(S::FIELDS[*index].rank) != worst);
        }
    }
    for goal in [|field: &Field<S::Row>| field.comfort, |field: &Field<S::Row>| field.max] {
        for i in 0..columns.len() {
            let spare = width.saturating_sub(total(&columns));
            let (index, width) = &mut columns[i];
            *width += spare.min(goal(&S::FIELDS[*index]).saturating_sub(*width));
        }
    }
    columns
}
