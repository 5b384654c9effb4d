//! The line in which a filter is typed: it applies from the first letter on.

use std::mem;

use crate::model::filter::{Filter, FilterError};

/// The typed text, and the filter in force.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    /// While it is open keys are letters.
    pub(crate) is_open: bool,
    pub(crate) text: String,
    /// The text before it was opened.
    before: String,
    /// The filter in force: the last text that was valid.
    pub(crate) filter: Filter,
    pub(crate) error: Option<FilterError>,
}

/// A key within the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Letter(char),
    /// The last letter goes.
    Erase,
    EraseWord,
    EraseAll,
    /// Keeps the typed text.
    Accept,
    /// Restores the text from before.
    Cancel,
}

impl Prompt {
    /// Longer filters say nothing.
    const LONGEST: usize = 200;

    pub(crate) fn open(&mut self) {
        self.is_open = true;
        self.before.clone_from(&self.text);
    }

    /// Lets every row through again.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn update(&mut self, typed: Typed) {
        match typed {
            Typed::Letter(letter) => {
                if self.text.chars().count() < Self::LONGEST {
                    self.text.push(letter);
                }
            }
            Typed::Erase => drop(self.text.pop()),
            Typed::EraseWord => {
                let kept = self.text.trim_end().rfind(' ').map_or(0, |space| space + 1);
                self.text.truncate(kept);
            }
            Typed::EraseAll => self.text.clear(),
            Typed::Accept => self.is_open = false,
            Typed::Cancel => {
                self.is_open = false;
                self.text = mem::take(&mut self.before);
            }
        }
        match self.text.parse() {
            Ok(filter) => (self.filter, self.error) = (filter, None),
            Err(error) => self.error = Some(error),
        }
    }
}
