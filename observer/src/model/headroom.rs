//! How many ports are left towards a destination, and how urgent that is.

use super::{limit::level::Level, port_table::PortClass};

/// Ephemeral ports from one local ip towards one destination. Each port of the range is counted in one of the parts:
/// reserved, blocked, used, in TIME_WAIT, or left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortUse {
    /// Ports of the range (`net.ipv4.ip_local_port_range`).
    pub range: u32,
    /// Of these, ports set apart by `net.ipv4.ip_local_reserved_ports`.
    pub reserved: u32,
    /// Of the rest, ports that connect() never looks at: the highest, where the range has three ports.
    pub passed_over: u32,
    /// Of the rest, ports of sockets with an explicit bind() or listen(), at any address: connect() skips them
    /// over for every destination. `None` where that is not known.
    pub blocked: Option<u32>,
    /// Of the rest, ports with a socket towards this destination.
    pub used: u32,
    /// Of the rest, ports with a TIME_WAIT socket towards this destination that connect() may not take over.
    pub time_wait: u32,
    /// Ports left whose TIME_WAIT socket connect() takes over (`net.ipv4.tcp_tw_reuse`).
    pub time_wait_reusable: u32,
    /// Ports left that connect() may or may not get: one where the lowest or the highest port of a range of odd size is
    /// free, because each call skips one of these two by chance (`__inet_hash_connect`); those of
    /// `time_wait_reusable` where the kernel's clock is not known; and, for sockets that are bound to a device, as many as
    /// others towards the same destination have chosen without an event that says which.
    pub uncertain: u32,
}

impl PortUse {
    /// Ports that connect() may choose from, used or not.
    #[must_use]
    pub const fn usable(self) -> u32 {
        self.range.saturating_sub(self.reserved + self.passed_over)
    }

    /// How many connect()s to this destination are certain to get a port still; `None` where blocked ports are not known.
    #[must_use]
    pub const fn left(self) -> Option<u32> {
        match self.blocked {
            Some(_) => Some(self.left_at_most().saturating_sub(self.uncertain)),
            None => None,
        }
    }

    /// How many may get a port at most.
    #[must_use]
    pub const fn left_at_most(self) -> u32 {
        let blocked = match self.blocked {
            Some(blocked) => blocked,
            None => 0,
        };
        self.usable().saturating_sub(blocked + self.used + self.time_wait)
    }

    /// Whether one of the ports left is passed over by chance, and nothing else is uncertain.
    #[must_use]
    pub const fn is_left_to_chance(self) -> bool {
        self.uncertain == 1 && self.range % 2 == 1 && self.left_at_most() > 0
    }

    /// What is left, as far as it is certain, each number by `count`: `23`, `22-23`, or `≤ 23` where blocked ports are not
    /// known.
    #[must_use]
    pub fn left_text(self, count: impl Fn(u32) -> String) -> String {
        let most = count(self.left_at_most());
        match self.left() {
            Some(left) if left == self.left_at_most() => most,
            Some(left) => format!("{}-{most}", count(left)),
            None => format!("≤ {most}"),
        }
    }

    /// One more port with a socket that has lost its full form.
    pub(super) const fn count_minisock(&mut self, class: PortClass) {
        match class {
            PortClass::Unavailable | PortClass::InUse => self.used += 1,
            PortClass::TimeWait => self.time_wait += 1,
            PortClass::Reusable => self.time_wait_reusable += 1,
        }
    }

    /// Ports that connect() cannot choose any more.
    #[must_use]
    pub const fn in_use(self) -> u32 {
        self.usable() - self.left_at_most()
    }

    /// Whether so many are in use that connect() finds no port, as far as these numbers go.
    #[must_use]
    pub const fn explains_refusal(self) -> bool {
        self.left_at_most() == 0 || self.left_at_most() == 1 && self.range % 2 == 1
    }

    /// The used part, 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        match self.usable() {
            0 => 1.0,
            usable => f64::from(self.in_use()) / f64::from(usable),
        }
    }

    /// How urgent it is.
    #[must_use]
    pub fn level(self) -> Level {
        Level::of_ratio(self.ratio())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_at_half_80_and_95_percent_and_when_nothing_is_left() {
        use Level::{Critical, Exhausted, Notice, Ok, Warning};
        let level = |used| {
            let (reserved, blocked) = (0, Some(0));
            PortUse { range: 100, reserved, blocked, used, ..PortUse::default() }.level()
        };
        let levels = [0, 49, 50, 79, 80, 94, 95, 99, 100].map(level);
        assert_eq!(levels, [Ok, Ok, Notice, Notice, Warning, Warning, Critical, Critical, Exhausted]);
    }

    #[test]
    fn the_parts_of_a_range_add_up() {
        let ports =
            PortUse { range: 100, reserved: 10, blocked: Some(20), used: 30, time_wait: 5, ..PortUse::default() };
        assert_eq!((ports.usable(), ports.left(), ports.level()), (90, Some(35), Level::Notice));
        let unknown = PortUse { blocked: None, ..ports };
        assert_eq!((unknown.left(), unknown.left_at_most()), (None, 55));
    }

    #[test]
    fn what_is_not_certain_is_said() {
        let text = |ports: PortUse| ports.left_text(|count| count.to_string());
        let ports = PortUse { range: 101, blocked: Some(0), used: 78, ..PortUse::default() };
        assert_eq!((ports.left(), text(ports)), (Some(23), "23".to_owned()));
        let by_chance = PortUse { uncertain: 1, ..ports };
        assert_eq!((by_chance.left(), by_chance.left_at_most()), (Some(22), 23));
        assert_eq!(text(by_chance), "22-23");
        assert_eq!(text(PortUse { blocked: None, ..by_chance }), "≤ 23");
        let last = PortUse { used: 100, ..by_chance };
        assert_eq!((last.left(), text(last), last.level()), (Some(0), "0-1".to_owned(), Level::Critical));
        let three = PortUse { range: 3, passed_over: 1, used: 2, uncertain: 0, ..ports };
        assert_eq!((three.left(), three.level()), (Some(0), Level::Exhausted));
    }
}
