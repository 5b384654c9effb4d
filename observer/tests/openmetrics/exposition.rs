//! Series read back from text.

use std::collections::{BTreeMap, BTreeSet};

/// The name of a series and its labels.
pub(crate) type Key = (String, BTreeMap<String, String>);

/// All series of a text.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    pub(crate) series: BTreeMap<Key, f64>,
}

pub(crate) fn key(name: &str, labels: &[(&str, &str)]) -> Key {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    (name.to_owned(), labels.collect())
}

impl Exposition {
    /// Fails on two series with the same labels.
    pub(crate) fn parse(text: &str) -> Self {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, number) = parse_line(line);
            assert_eq!(series.insert(key, number), None, "twice: {line}");
        }
        Self { series }
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.series.get(&key(name, labels)).copied()
    }

    /// The labels and numbers of one name.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        let named = self.series.iter().filter(move |((of, _), _)| of == name);
        named.map(|((_, labels), number)| (labels, *number))
    }

    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|(_, number)| number).sum()
    }

    pub(crate) fn left_out(&self, name: &str) -> f64 {
        self.get("observer_series_left_out", &[("metric", name)]).unwrap()
    }

    /// All values of a label.
    pub(crate) fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        self.of(name).filter_map(|(labels, _)| labels.get(label).cloned()).collect()
    }
}

fn parse_line(line: &str) -> (Key, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no number: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"").unwrap();
            let (value, after) = unquoted(after);
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            rest = after;
        }
        rest = &rest[1..];
    }
    let number = rest.trim().parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    ((name.to_owned(), labels), number)
}

/// The value up to its closing quote, and what follows.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match letters.next().unwrap().1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    panic!("no end of a value: {text}")
}
