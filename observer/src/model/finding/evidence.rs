//! What a finding rests on, in words.

use std::{fmt, ops::Deref, sync::OnceLock};

use super::name;
use crate::model::units::{PortRange, Process};

/// The numbers that a finding rests on, as text.
#[derive(Clone)]
pub struct Evidence(Form);

#[derive(Clone)]
enum Form {
    Words(String),
    /// Its words once somebody reads them: hundreds of namespaces may have such listeners, and a screen shows few of them.
    InRange(InRange, OnceLock<String>),
}

/// Listeners on ports of the ephemeral range.
#[derive(Clone, Copy)]
pub(super) struct InRange {
    range: PortRange,
    /// The first ones by port.
    first: [(u16, Option<Process>); Self::SHOWN],
    count: usize,
}

impl InRange {
    const SHOWN: usize = 3;

    /// Of these listeners, in the order of their ports; `None` of none.
    pub(super) fn new(range: PortRange, found: &[(u16, Option<Process>)]) -> Option<Self> {
        let mut first = [*found.first()?; Self::SHOWN];
        for (place, it) in first.iter_mut().zip(found) {
            *place = *it;
        }
        Some(Self { range, first, count: found.len() })
    }
}

impl fmt::Display for InRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, first, count } = self;
        for (place, (port, process)) in first.iter().take(*count).enumerate() {
            write!(f, "{}{port} {}", if place > 0 { ", " } else { "" }, name(*process))?;
        }
        if *count > first.len() {
            write!(f, " and {} more", count - first.len())?;
        }
        write!(f, " in {}-{}, not reserved", range.low, range.high)
    }
}

impl Deref for Evidence {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Form::Words(words) => words,
            Form::InRange(found, words) => words.get_or_init(|| found.to_string()),
        }
    }
}

impl From<String> for Evidence {
    fn from(words: String) -> Self {
        Self(Form::Words(words))
    }
}

impl From<InRange> for Evidence {
    fn from(found: InRange) -> Self {
        Self(Form::InRange(found, OnceLock::new()))
    }
}

impl PartialEq for Evidence {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Evidence {}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
