//! Some records of the ring buffer, together: whoever applies them can look at all of them first.

/// Few enough that what they need stays in the CPU's first cache.
const MOST: usize = 32;

/// Consecutive records, in their order.
#[derive(Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Records {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    pub(super) const fn is_full(&self) -> bool {
        self.ends.len() >= MOST
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Bytes of the ring buffer that a record takes up.
#[must_use]
pub fn in_ring(record: &[u8]) -> u32 {
    // `BPF_RINGBUF_HDR_SZ`
    const HEADER: u32 = 8;
    HEADER + u32::try_from(record.len()).unwrap_or(u32::MAX).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_they_were_pushed() {
        let mut records = Records::default();
        assert!(records.is_empty() && records.iter().next().is_none());
        for _ in 0..2 {
            for length in 0..MOST {
                assert!(!records.is_full());
                records.push(&vec![7; length]);
            }
            assert!(records.is_full());
            assert!(records.iter().map(<[u8]>::len).eq(0..MOST));
            records.clear();
        }
        records.push(&[1, 2]);
        records.push(&[3]);
        assert!(records.iter().eq([&[1, 2][..], &[3]]));
    }
}
