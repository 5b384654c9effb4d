//! The last minute of a count.

use std::sync::Arc;

/// One value a second, the last [`History::LEN`] of them.
#[derive(Clone, Debug)]
pub struct History {
    /// Shared with snapshots. `None` while all are 0: most rows of a large host are listeners without connections.
    values: Option<Arc<[u32; Self::LEN]>>,
    len: u8,
    next: u8,
}

impl History {
    /// Seconds kept.
    pub const LEN: usize = 60;

    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { values: None, len: 0, next: 0 }
    }

    /// Appends a value; the oldest goes when the minute is full.
    pub fn push(&mut self, value: u32) {
        if value != 0 || self.values.is_some() {
            let values = self.values.get_or_insert_with(|| Arc::new([0; Self::LEN]));
            Arc::make_mut(values)[usize::from(self.next)] = value;
        }
        self.next = (self.next + 1) % Self::LEN_U8;
        self.len = (self.len + 1).min(Self::LEN_U8);
        // Once a minute.
        if self.next == 0 && self.values.as_ref().is_some_and(|values| values.iter().all(|value| *value == 0)) {
            self.values = None;
        }
    }

    /// The values, the oldest first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        let first = usize::from(self.next) + Self::LEN - usize::from(self.len);
        let value = move |values: &Arc<[u32; Self::LEN]>, i| values[(first + i) % Self::LEN];
        (0..usize::from(self.len)).map(move |i| self.values.as_ref().map_or(0, |values| value(values, i)))
    }

    #[expect(clippy::cast_possible_truncation, reason = "60 fits")]
    const LEN_U8: u8 = Self::LEN as u8;
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for History {}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<u32> for History {
    fn from_iter<I: IntoIterator<Item = u32>>(values: I) -> Self {
        let mut history = Self::new();
        values.into_iter().for_each(|value| history.push(value));
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_minute_in_order() {
        let history: History = (0..100).collect();
        assert_eq!(history.iter().collect::<Vec<_>>(), (40..100).collect::<Vec<_>>());
        assert_eq!(History::new().iter().count(), 0);
    }

    #[test]
    fn zeros_need_no_room_and_are_values_all_the_same() {
        let mut history: History = [0; 5].into_iter().chain([7]).collect();
        let shared = history.clone();
        assert_eq!(history.iter().collect::<Vec<_>>(), [0, 0, 0, 0, 0, 7]);
        (0..2 * History::LEN).for_each(|_| history.push(0));
        assert!(history.values.is_none());
        assert_eq!(history, (0..History::LEN).map(|_| 0).collect(), "a minute of zeros");
        assert_eq!(shared.iter().next_back(), Some(7), "what was shared stays as it was");
    }
}
