//! The last minute of a count.

/// One value a second, the last [`History::LEN`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    values: [u32; Self::LEN],
    len: usize,
    next: usize,
}

impl History {
    /// Seconds kept.
    pub const LEN: usize = 60;

    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { values: [0; Self::LEN], len: 0, next: 0 }
    }

    /// Appends a value; the oldest goes when the minute is full.
    pub fn push(&mut self, value: u32) {
        self.values[self.next] = value;
        self.next = (self.next + 1) % Self::LEN;
        self.len = (self.len + 1).min(Self::LEN);
    }

    /// The values, the oldest first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        let first = self.next + Self::LEN - self.len;
        (0..self.len).map(move |i| self.values[(first + i) % Self::LEN])
    }
}

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
}
