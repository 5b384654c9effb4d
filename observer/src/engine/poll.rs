//! How often the engine reads the ring buffer.

use std::time::Duration;

/// Time between two reads of the ring buffer. The buffer holds four times what a saturated loopback writes in that
/// time. Shorter would wake an idle CPU more often.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// The same while events come steadily and take little of the ring. Each read finds the caches cold, which is most of what an event
/// costs; fewer reads of more events find them cold less often. Where nearly nothing comes a read costs little anyhow.
const POLL_STEADY: Duration = Duration::from_millis(100);
/// The same after the ring was more than a quarter full.
const POLL_SOON: Duration = Duration::from_millis(10);

/// The time until the next read of a ring of `ring` bytes, in which so many were found.
pub(super) const fn pause_after(found: u32, ring: u32) -> Duration {
    if found > ring / 4 {
        POLL_SOON
    } else if found > ring / 512 && found <= ring / 16 {
        POLL_STEADY
    } else {
        POLL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_events_are_read_more_rarely_and_a_ring_that_fills_more_often() {
        let ring = 8 << 20;
        let pause_of = |parts: u32| pause_after(ring / 512 * parts, ring);
        assert_eq!([0, 1].map(pause_of), [POLL; 2]);
        assert_eq!([2, 32].map(pause_of), [POLL_STEADY; 2]);
        assert_eq!([33, 128].map(pause_of), [POLL; 2]);
        assert_eq!([129, 512].map(pause_of), [POLL_SOON; 2]);
    }
}
