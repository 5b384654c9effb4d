//! Rows in the order of a field.

use std::cmp::Ordering;

use super::{Cell, Field, Fields, Order};
use crate::model::snapshot::Snapshot;

impl<R> Field<R> {
    /// Whether the highest comes first, in the field's own order or against it.
    pub(crate) fn is_descending(&self, reversed: bool) -> bool {
        (self.order == Order::Number) != reversed
    }
}

/// The rows in the order of a field; equals are in the order that `tie` gives them.
pub(crate) fn sorted<'a, R: Fields>(
    rows: impl IntoIterator<Item = &'a R>,
    data: &'a Snapshot,
    field: &Field<R>,
    reversed: bool,
    tie: impl Fn(&R, &R) -> Ordering,
) -> Vec<&'a R> {
    let is_descending = field.is_descending(reversed);
    let mut rows: Vec<(Cell<'a>, &'a R)> = rows.into_iter().map(|row| ((field.get)(row, data), row)).collect();
    rows.sort_by(|(a, row_a), (b, row_b)| {
        let by_value = if is_descending { b.cmp(a) } else { a.cmp(b) };
        by_value.then_with(|| tie(row_a, row_b))
    });
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The ids that rows can be sorted by.
pub(crate) fn ids<R: Fields>() -> impl Iterator<Item = &'static str> {
    R::FIELDS.iter().filter(|field| field.order != Order::None).map(|field| field.id)
}

/// Reads the value of `--sort`. An error names the ids.
pub(crate) fn parse<R: Fields>(text: &str) -> Result<&'static str, String> {
    ids::<R>().find(|id| *id == text).ok_or_else(|| {
        let ids = ids::<R>().collect::<Vec<_>>().join(", ");
        format!("a table of {}s has no such field; it has {ids}", R::NOUN)
    })
}

/// The same of a table of one kind of row above one of another: the id is of either, and sorts the tables that have it.
pub(crate) fn parse_of_two<R: Fields, S: Fields>(text: &str) -> Result<&'static str, String> {
    parse::<R>(text).or_else(|error| {
        let of_other =
            || format!("{error}. The table of {}s has {}", S::NOUN, ids::<S>().collect::<Vec<_>>().join(", "));
        parse::<S>(text).map_err(|_| of_other())
    })
}

/// The rows in the order of the field with this id, or as they are without one.
pub(crate) fn by_id<'a, R: Fields>(rows: &'a [R], data: &'a Snapshot, id: Option<&str>) -> Vec<&'a R> {
    match id.and_then(R::field) {
        Some(field) => sorted(rows, data, field, false, |_, _| Ordering::Equal),
        None => rows.iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        limit::Limit,
        snapshot::{EndpointRow, ServiceRow},
    };

    #[test]
    fn an_unknown_id_is_refused_and_the_ids_are_named() {
        assert_eq!(parse::<EndpointRow>("time_wait"), Ok("time_wait"));
        let error = parse::<EndpointRow>("TIME_WAIT").unwrap_err();
        assert!(error.contains("established, syn_sent, close_wait, time_wait"), "{error}");
        assert!(!error.contains("last_minute"), "a picture has no order: {error}");
        assert_eq!(parse_of_two::<EndpointRow, ServiceRow>("failures_total"), Ok("failures_total"));
        assert_eq!(parse_of_two::<EndpointRow, ServiceRow>("time_wait"), Ok("time_wait"));
        let error = parse_of_two::<EndpointRow, ServiceRow>("colour").unwrap_err();
        assert!(
            error.contains("a table of endpoints has no") && error.contains("The table of services has"),
            "{error}"
        );
        assert_eq!(parse::<Limit>("ratio"), Ok("ratio"));
        assert!(parse::<Limit>("established").unwrap_err().contains("urgency, ratio, used, maximum"));
    }
}
