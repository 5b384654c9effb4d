//! What a limit allows, and how urgent its use is: one rule for every screen, panel and output.

use super::{Limit, LimitKind};
use crate::model::reading::{FileUse, Host, ProcessFiles};

/// More than any memory can hold. systemd and modern kernels set such numbers to mean "no limit": `fs.file-max` is
/// 2^63 - 1, and there is `RLIM_INFINITY`.
const ASTRONOMICAL: u64 = 1 << 40;

/// The limit, unless it is too high to matter in practice.
#[must_use]
pub const fn practical(limit: u64) -> Option<u64> {
    if limit < ASTRONOMICAL { Some(limit) } else { None }
}

/// The share of a limit in use, 0 to 1 and beyond. `None` if there is no limit in practice.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a ratio for people: 53 bits are plenty")]
pub fn ratio(used: u64, limit: u64) -> Option<f64> {
    practical(limit).map(|limit| if limit == 0 { 1.0 } else { used as f64 / limit as f64 })
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Less than half.
    Ok,
    /// Half or more, for ports only: connect() first looks at every second port of the range. Once these are in use,
    /// each call searches all of them without success and is many times slower.
    Notice,
    /// 80 % or more.
    Warning,
    /// 95 % or more.
    Critical,
    /// Nothing is left.
    Exhausted,
}

impl Level {
    /// The level for this share in use, 0 to 1.
    #[must_use]
    pub fn of_ratio(ratio: f64) -> Self {
        match ratio {
            full if full >= 1.0 => Self::Exhausted,
            critical if critical >= 0.95 => Self::Critical,
            high if high >= 0.8 => Self::Warning,
            half if half >= 0.5 => Self::Notice,
            _ => Self::Ok,
        }
    }

    /// Its name, on the screen and in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Exhausted => "exhausted",
        }
    }
}

impl LimitKind {
    /// The level of a limit of this kind for this share in use. Only ports have the level notice: from half on
    /// connect() is many times slower, but the next descriptor costs as much as the first.
    #[must_use]
    pub fn level(self, ratio: f64) -> Level {
        match (self, Level::of_ratio(ratio)) {
            (Self::Ports, level) => level,
            (_, Level::Notice) => Level::Ok,
            (_, level) => level,
        }
    }

    /// The level of a limit of this kind with these numbers.
    pub(super) fn level_of(self, used: u64, maximum: u64) -> Level {
        self.level(ratio(used, maximum).unwrap_or(0.0))
    }
}

impl LimitKind {
    /// Why more than the maximum can be in use. The kernel enforces a limit when something is added, never afterwards.
    #[must_use]
    pub const fn why_beyond(self) -> &'static str {
        match self {
            Self::ProcessFiles => "the limit was lowered after they were opened",
            Self::HostFiles => "the limit was lowered, or root opened more: the limit does not hold for root",
            Self::AcceptQueue | Self::SynQueue => "the limit was lowered after they were queued",
            Self::Ports | Self::Conntrack | Self::TimeWait | Self::Orphans | Self::TcpMemory | Self::SocketMemory => {
                "the limit was lowered, or the kernel lets some callers exceed it"
            }
        }
    }
}

impl Limit {
    /// Its level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.kind.level_of(self.used, self.maximum)
    }

    /// The maximum, unless it is too high to matter in practice.
    #[must_use]
    pub const fn practical_maximum(&self) -> Option<u64> {
        practical(self.maximum)
    }

    /// The share in use, 0 to 1, and above 1 if the maximum is exceeded. 0 if there is no limit in practice.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        ratio(self.used, self.maximum).unwrap_or(0.0)
    }
}

impl FileUse {
    /// `fs.file-max`, unless it is no limit in practice.
    #[must_use]
    pub const fn practical_max(self) -> Option<u64> {
        practical(self.max)
    }

    /// The share in use.
    #[must_use]
    pub fn ratio(self) -> Option<f64> {
        ratio(self.allocated, self.max)
    }
}

impl Host {
    /// How many descriptors the kernel lets a process have: its soft `RLIMIT_NOFILE` (`alloc_fd`), and never more than
    /// `fs.nr_open` (`expand_files`), which can have been lowered since. `None` where there is no limit in practice.
    #[must_use]
    pub fn most_descriptors(&self, files: &ProcessFiles) -> Option<u64> {
        [files.soft_limit, self.nr_open].into_iter().flatten().min().and_then(practical)
    }

    /// The share of its descriptors that a process has open.
    #[must_use]
    pub fn descriptor_ratio(&self, files: &ProcessFiles) -> Option<f64> {
        ratio(files.open, self.most_descriptors(files)?)
    }

    /// The process nearest to its own limit of file descriptors.
    #[must_use]
    pub fn fullest_process(&self) -> Option<&ProcessFiles> {
        let part = |files: &ProcessFiles| self.descriptor_ratio(files).unwrap_or(0.0);
        // Of equals the first, as the host's reader has ranked them.
        self.processes.iter().rev().max_by(|a, b| part(a).total_cmp(&part(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::{Pid, Process};

    fn process(pid: u32, open: u64, soft_limit: Option<u64>) -> ProcessFiles {
        let process = Process { pid: Pid(pid), comm: "x".into() };
        ProcessFiles { process, open, soft_limit, hard_limit: None }
    }

    #[test]
    fn a_process_has_the_lower_of_its_own_limit_and_that_of_the_kernel() {
        let host = |nr_open| Host { nr_open, ..Host::default() };
        let most = |soft, nr_open| host(nr_open).most_descriptors(&process(1, 5, soft));
        assert_eq!(most(Some(1_024), Some(4_096)), Some(1_024));
        assert_eq!(most(Some(1 << 20), Some(4_096)), Some(4_096));
        assert_eq!(most(None, Some(4_096)), Some(4_096), "RLIM_INFINITY");
        assert_eq!(most(Some(u64::MAX), None), None);
        assert_eq!(most(None, None), None);
    }

    #[test]
    fn the_fullest_process_is_so_by_that_limit() {
        let processes = vec![process(1, 600, Some(1_000)), process(2, 900, Some(2_000)), process(3, 9, None)];
        let host = |nr_open| Host { nr_open, processes: processes.clone(), ..Host::default() };
        let fullest = |nr_open| host(nr_open).fullest_process().unwrap().process.pid.0;
        assert_eq!(fullest(Some(1 << 20)), 1);
        assert_eq!(fullest(Some(1_000)), 2, "fs.nr_open was lowered");
    }

    #[test]
    fn half_is_a_level_of_ports_alone_and_no_limit_has_none() {
        for kind in LimitKind::ALL {
            let half = if kind == LimitKind::Ports { Level::Notice } else { Level::Ok };
            assert_eq!(
                [0.5, 0.8, 0.95, 1.0].map(|it| kind.level(it)),
                [half, Level::Warning, Level::Critical, Level::Exhausted]
            );
        }
        assert_eq!((ratio(5, 9_223_372_036_854_775_807), ratio(5, u64::MAX), ratio(0, 0)), (None, None, Some(1.0)));
    }
}
