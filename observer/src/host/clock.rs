//! The clocks that the kernel keeps: that of its records, and that of our own work.

use std::{
    cell::Cell,
    fs, io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

use super::text;

/// `PROC_TIME_INIT_INO` of include/linux/proc_ns.h: the initial time namespace, whose clocks are the kernel's own.
const INITIAL: u64 = 0xEFFF_FFFA;
const OWN: &str = "/proc/self/ns/time";
const OF_CHILDREN: &str = "/proc/self/ns/time_for_children";
const NS_PER_SEC: i128 = 1_000_000_000;

/// `CLOCK_MONOTONIC`, as this process is shown it: shifted in a time namespace.
#[must_use]
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` reports it: outside of all time namespaces. `None` where that is not known.
#[must_use]
pub fn kernel() -> Option<Duration> {
    match offset() {
        Ok(Some(offset)) => shifted(monotonic(), -offset),
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, "the time namespace of this process cannot be read: the age of TIME_WAITs is not known");
            None
        }
    }
    .or_else(timer_list)
}

/// The time since observer started, on the clock by which the kernel decides when connect() may take over a TIME_WAIT. Before
/// 6.14 that is `ktime_get_seconds()`, which ticks move: on a busy CPU it may be far behind `CLOCK_MONOTONIC`
/// (`tk_update_ktime_data` in kernel/time/timekeeping.c). Since then it is `tcp_clock_ms()`, which reads the clock.
#[derive(Clone, Copy, Debug)]
pub struct Uptime {
    started: Duration,
    clock: ClockId,
}

impl Uptime {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        // 6.14 brought both.
        let counts_milliseconds = fs::exists("/proc/sys/net/ipv4/tcp_tw_reuse_delay").unwrap_or(true);
        let clock = if counts_milliseconds { ClockId::Monotonic } else { ClockId::MonotonicCoarse };
        Self { started: monotonic(), clock }
    }

    /// How long ago it started. It never goes back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        read(self.clock).saturating_sub(self.started)
    }
}

/// What is added to the kernel's clock for this process, in nanoseconds; `None` where the kernel shows only what would be
/// added for its children.
fn offset() -> io::Result<Option<i128>> {
    let namespace = |path| fs::metadata(path).map(|metadata| metadata.ino());
    let own = match namespace(OWN) {
        Ok(INITIAL) => return Ok(Some(0)),
        Ok(own) => own,
        // Kernels before 5.6, and those without CONFIG_TIME_NS.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::exists("/proc/self/ns/net")? => {
            return Ok(Some(0));
        }
        Err(error) => return Err(error),
    };
    if namespace(OF_CHILDREN)? != own {
        return Ok(None);
    }
    Ok(monotonic_offset(&text::string("/proc/self/timens_offsets")?))
}

/// "monotonic      100000         0": seconds and nanoseconds. A negative offset has negative seconds alone.
pub(super) fn monotonic_offset(offsets: &str) -> Option<i128> {
    let line = offsets.lines().find_map(|line| line.trim_start().strip_prefix("monotonic"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i128>);
    numbers.next()?.ok()?.checked_mul(NS_PER_SEC)?.checked_add(numbers.next()?.ok()?)
}

/// "now at 883798106035 nsecs" of /proc/timer_list, which is for root: `ktime_get()`.
fn timer_list() -> Option<Duration> {
    now_at(&text::string("/proc/timer_list").ok()?)
}

pub(super) fn now_at(timer_list: &str) -> Option<Duration> {
    let line = timer_list.lines().find_map(|line| line.strip_prefix("now at "))?;
    line.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn shifted(time: Duration, by: i128) -> Option<Duration> {
    let nanos = i128::try_from(time.as_nanos()).ok()? + by;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// The wall clock: time since the Unix epoch, 0 before it.
#[must_use]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// `CLOCK_PROCESS_CPUTIME_ID`: what all threads of this process have taken of CPUs.
#[must_use]
pub fn own_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

thread_local! {
    /// What helper threads that have ended took of CPUs for this thread.
    static HELPERS: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// `CLOCK_THREAD_CPUTIME_ID`: what this thread has taken of CPUs.
#[must_use]
pub fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// The same with what its helpers took: the work of this thread, however long it had to wait for a CPU.
#[must_use]
pub fn work_cpu() -> Duration {
    thread_cpu() + HELPERS.get()
}

/// Adds what a helper took, as the helper read it from [`thread_cpu`] at its end.
pub(super) fn add_helper(cpu: Duration) {
    HELPERS.set(HELPERS.get() + cpu);
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            monotonic_offset("monotonic      100000         0\nboottime            0         0\n"),
            Some(100_000 * NS_PER_SEC)
        );
        assert_eq!(monotonic_offset("monotonic          -5 500000000\n"), Some(-4_500_000_000));
        assert_eq!(monotonic_offset("boottime 1 0\n"), None);
        assert_eq!(shifted(Duration::from_secs(7), -2 * NS_PER_SEC), Some(Duration::from_secs(5)));
        assert_eq!(shifted(Duration::from_secs(7), -8 * NS_PER_SEC), None);
        assert_eq!(
            now_at("Timer List Version: v0.10\nnow at 883798106035 nsecs\n"),
            Some(Duration::from_nanos(883_798_106_035))
        );
    }

    #[test]
    fn a_clock_that_ticks_move_is_never_ahead_of_the_other() {
        let fine = Uptime { started: Duration::ZERO, clock: ClockId::Monotonic };
        let coarse = Uptime { clock: ClockId::MonotonicCoarse, ..fine };
        let mut steps = 0;
        let mut last = coarse.elapsed();
        while steps < 5 {
            let (before, ticked, after) = (coarse.elapsed(), fine.elapsed(), fine.elapsed());
            assert!(last <= before && before <= ticked && ticked <= after, "{last:?} {before:?} {ticked:?} {after:?}");
            steps += u32::from(before > last);
            last = before;
        }
        let begun_between_ticks = Uptime { started: Duration::MAX, ..coarse };
        assert_eq!(begun_between_ticks.elapsed(), Duration::ZERO);
    }

    #[test]
    fn outside_of_time_namespaces_both_clocks_are_one() {
        let (before, kernel, after) = (monotonic(), kernel().unwrap(), monotonic());
        assert!(before <= kernel && kernel <= after, "{before:?} {kernel:?} {after:?}");
    }
}
