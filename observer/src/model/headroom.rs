//! How many ports are left towards a destination, and how urgent that is.

use super::ports::Counted;

/// Ephemeral ports from one local ip towards one destination. Each port of the range is counted in one of the parts:
/// reserved, blocked, used, in TIME_WAIT, or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Ports of the range (`net.ipv4.ip_local_port_range`).
    pub range: u32,
    /// Of these, ports set apart by `net.ipv4.ip_local_reserved_ports`.
    pub reserved: u32,
    /// Of the rest, ports that a socket holds by an explicit bind() or listen(), of any address: connect() passes them
    /// over for every destination. `None` where that is not known.
    pub blocked: Option<u32>,
    /// Of the rest, ports with a socket towards this destination.
    pub used: u32,
    /// Of the rest, ports with a TIME_WAIT socket towards this destination that connect() may not take over.
    pub time_wait: u32,
    /// Ports left whose TIME_WAIT socket connect() takes over (`net.ipv4.tcp_tw_reuse`).
    pub time_wait_reusable: u32,
}

impl PortUse {
    /// Ports that connect() may choose from, used or not.
    #[must_use]
    pub const fn usable(self) -> u32 {
        self.range.saturating_sub(self.reserved)
    }

    /// How many connect()s to this destination still get a port; `None` where blocked ports are not known.
    ///
    /// In a range of odd size one call passes over the lowest or the highest port (`__inet_hash_connect`), and can fail
    /// while that one is left.
    #[must_use]
    pub const fn left(self) -> Option<u32> {
        match self.blocked {
            Some(_) => Some(self.left_at_most()),
            None => None,
        }
    }

    /// As [`Self::left`]; an upper bound where blocked ports are not known.
    #[must_use]
    pub const fn left_at_most(self) -> u32 {
        let blocked = match self.blocked {
            Some(blocked) => blocked,
            None => 0,
        };
        self.usable().saturating_sub(blocked + self.used + self.time_wait)
    }

    /// One more port with a socket that has lost its full form.
    pub(super) const fn count_mini(&mut self, counted: Counted) {
        match counted {
            Counted::Not | Counted::Used => self.used += 1,
            Counted::TimeWait => self.time_wait += 1,
            Counted::Reusable => self.time_wait_reusable += 1,
        }
    }

    /// Ports that connect() cannot choose any more.
    #[must_use]
    pub const fn taken(self) -> u32 {
        self.usable() - self.left_at_most()
    }

    /// The part that is taken, 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        match self.usable() {
            0 => 1.0,
            usable => f64::from(self.taken()) / f64::from(usable),
        }
    }

    /// How urgent it is.
    #[must_use]
    pub fn level(self) -> Level {
        Level::of_ratio(self.ratio())
    }
}

/// How much of a limited supply is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Less than half.
    Calm,
    /// Half or more. Of ports: connect() looks first at every second port of the range, and once these are taken it
    /// walks all of them in vain, which makes each call many times dearer.
    Half,
    /// 80 % or more.
    High,
    /// 95 % or more.
    Critical,
    /// Nothing is left.
    Full,
}

impl Level {
    /// The level of a part that is taken, 0 to 1.
    #[must_use]
    pub fn of_ratio(ratio: f64) -> Self {
        match ratio {
            full if full >= 1.0 => Self::Full,
            critical if critical >= 0.95 => Self::Critical,
            high if high >= 0.8 => Self::High,
            half if half >= 0.5 => Self::Half,
            _ => Self::Calm,
        }
    }

    /// Its name in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Half => "half",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_at_half_80_and_95_percent_and_when_nothing_is_left() {
        use Level::{Calm, Critical, Full, Half, High};
        let level = |used| {
            let (reserved, blocked) = (0, Some(0));
            PortUse { range: 100, reserved, blocked, used, time_wait: 0, time_wait_reusable: 0 }.level()
        };
        let levels = [0, 49, 50, 79, 80, 94, 95, 99, 100].map(level);
        assert_eq!(levels, [Calm, Calm, Half, Half, High, High, Critical, Critical, Full]);
    }

    #[test]
    fn the_parts_of_a_range_add_up() {
        let ports =
            PortUse { range: 100, reserved: 10, blocked: Some(20), used: 30, time_wait: 5, time_wait_reusable: 7 };
        assert_eq!((ports.usable(), ports.left(), ports.level()), (90, Some(35), Level::Half));
        let unknown = PortUse { blocked: None, ..ports };
        assert_eq!((unknown.left(), unknown.left_at_most()), (None, 55));
    }
}
