//! When to scan: at start, at once after a loss, when the kernel's own totals differ, and otherwise as often as the
//! budget allows.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::{host::clock, model::units::NetnsId};

/// The shortest time between two scans that nothing has asked for.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// The same where no event has come since the last scan began: what changes without any (a process passes a socket on, a
/// bind() that no connect() follows) is seen that much later.
const WHEN_QUIET: Duration = Duration::from_secs(5);
/// The same while ports are few somewhere.
const IN_A_HURRY: Duration = Duration::from_millis(200);
/// Work that is repeated may take this part of one CPU's time: 2 %.
const BUDGET: u32 = 50;

/// Measures a round of work.
pub(super) struct Stopwatch {
    began: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), cpu: clock::work_cpu() }
    }

    /// How long it took: what people wait for.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What it took of a CPU: what the budget is about. On a busy host a round waits for a CPU many times longer than it
    /// has one, and such a wait takes nothing from others.
    pub(super) fn cpu(&self) -> Duration {
        clock::work_cpu().saturating_sub(self.cpu)
    }
}

/// How long to wait after regular work that took so much of a CPU.
pub(super) fn pause_after(cpu: Duration) -> Duration {
    AT_MOST_EVERY.max(cpu * BUDGET)
}

/// How long to wait before a scan that was asked for. A loss is to be healed within two seconds: one until it is seen,
/// one for this. While losses go on, a scan that takes longer than that still leaves half of the time to others.
fn pause_when_asked(cpu: Duration) -> Duration {
    (cpu * BUDGET).min(Duration::from_secs(1)).max(cpu)
}

/// When the kernel's tables are scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scans {
    /// At start and then as often as the budget allows.
    Regularly,
    /// Only at start: for tests of what events alone show.
    OnlyAtStart,
}

/// What decides when the next scan is due.
pub(super) struct ScanSchedule {
    scans: Scans,
    ended_at: Option<Instant>,
    /// What the last scan took of a CPU.
    cpu: Duration,
    /// Something was lost or found to differ since the last scan began.
    asked_for: bool,
    /// Since the last scan began ports have become few somewhere.
    hurried: bool,
    /// Events that had come when the last scan began.
    events_before: u64,
    /// By namespace: how far the model was from the kernel's totals, and how many events there had been.
    suspects: FxHashMap<NetnsId, ([i64; 2], u64)>,
}

impl ScanSchedule {
    pub(super) fn new(scans: Scans) -> Self {
        Self {
            scans,
            ended_at: None,
            cpu: Duration::ZERO,
            asked_for: true,
            hurried: false,
            events_before: 0,
            suspects: FxHashMap::default(),
        }
    }

    /// Something was lost.
    pub(super) fn ask(&mut self) {
        self.asked_for = true;
    }

    /// Ports are few somewhere: their number is to be exact soon, within the budget.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Takes note of how far the model is from the kernel's totals of a namespace (`CurrEstab` and `tw`). They are read
    /// while events are under way: only differences that stay the same, with no event in between, are some.
    pub(super) fn compare(&mut self, netns: NetnsId, difference: [i64; 2], events: u64) {
        if difference == [0, 0] {
            self.suspects.remove(&netns);
        } else if self.suspects.insert(netns, (difference, events)) == Some((difference, events)) {
            self.ask();
        }
    }

    /// Whether to scan now, given how many events have come so far.
    pub(super) fn is_due(&self, now: Instant, events: u64) -> bool {
        if self.scans == Scans::OnlyAtStart && self.ended_at.is_some() {
            return false;
        }
        let Some(ended_at) = self.ended_at else { return true };
        let pause = match (self.asked_for, self.hurried) {
            (true, _) => pause_when_asked(self.cpu),
            (false, true) => IN_A_HURRY.max(self.cpu * BUDGET),
            (false, false) if events == self.events_before => pause_after(self.cpu).max(WHEN_QUIET),
            (false, false) => pause_after(self.cpu),
        };
        now - ended_at >= pause
    }

    pub(super) fn begin(&mut self, events: u64) {
        self.events_before = events;
        self.asked_for = false;
        self.hurried = false;
    }

    pub(super) fn end(&mut self, now: Instant, cpu: Duration) {
        self.ended_at = Some(now);
        self.cpu = cpu;
        self.suspects.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(cpu: Duration) -> (ScanSchedule, Instant) {
        let mut schedule = ScanSchedule::new(Scans::Regularly);
        let now = Instant::now();
        schedule.begin(7);
        schedule.end(now, cpu);
        (schedule, now)
    }

    #[test]
    fn regular_scans_keep_to_two_percent_and_to_less_where_nothing_happens() {
        for (took, events, pause) in [(1, 8, 1_000), (1_000, 8, 50_000), (1, 7, 5_000), (1_000, 7, 50_000)] {
            let (schedule, now) = scanned(Duration::from_millis(took));
            let due_after = |millis| schedule.is_due(now + Duration::from_millis(millis), events);
            assert!(!due_after(pause - 1) && due_after(pause), "after a scan of {took} ms and {events} events");
        }
    }

    #[test]
    fn waiting_for_a_cpu_takes_nothing_of_the_budget() {
        let (stopwatch, (_sender, receiver)) = (Stopwatch::start(), std::sync::mpsc::channel::<()>());
        receiver.recv_timeout(Duration::from_millis(200)).unwrap_err();
        let (took, cpu) = (stopwatch.elapsed(), stopwatch.cpu());
        assert!(took >= Duration::from_millis(200) && cpu < Duration::from_millis(20), "{took:?}, {cpu:?} of a CPU");
        // At 2 % of 200 ms it would be ten seconds.
        let mut schedule = ScanSchedule::new(Scans::Regularly);
        let now = Instant::now();
        schedule.end(now, cpu);
        assert!(pause_after(cpu) <= Duration::from_secs(1) && schedule.is_due(now + WHEN_QUIET, 8));
        while stopwatch.cpu() < Duration::from_millis(30) {}
        assert!(pause_after(stopwatch.cpu()) >= Duration::from_millis(1_500), "work takes of it");
    }

    #[test]
    fn a_loss_is_healed_within_a_second_or_a_scan_and_not_at_the_cost_of_all_time() {
        for (took, pause) in [(2, 100), (300, 1_000), (3_000, 3_000)] {
            let (mut schedule, now) = scanned(Duration::from_millis(took));
            schedule.ask();
            let due_after = |millis| schedule.is_due(now + Duration::from_millis(millis), 8);
            assert!(!due_after(pause - 1) && due_after(pause), "after a scan of {took} ms");
        }
    }

    #[test]
    fn few_ports_are_scanned_more_often_and_still_within_the_budget() {
        for (took, pause) in [(1, 200), (10, 500), (1_000, 50_000)] {
            let (mut schedule, now) = scanned(Duration::from_millis(took));
            schedule.hurry();
            let due_after = |millis| schedule.is_due(now + Duration::from_millis(millis), 8);
            assert!(!due_after(pause - 1) && due_after(pause), "after a scan of {took} ms");
        }
    }

    #[test]
    fn a_difference_asks_for_a_scan_when_it_stays_without_events() {
        let difference = |first: ([i64; 2], u64), second: ([i64; 2], u64)| {
            let (mut schedule, now) = scanned(Duration::from_millis(1));
            schedule.compare(NetnsId(1), first.0, first.1);
            schedule.compare(NetnsId(1), second.0, second.1);
            schedule.is_due(now + Duration::from_millis(999), 8)
        };
        assert!(difference(([3, 0], 7), ([3, 0], 7)));
        assert!(!difference(([3, 0], 7), ([3, 0], 8)), "events are under way");
        assert!(!difference(([0, 3], 7), ([0, 2], 7)), "it moves");
        assert!(!difference(([0, 0], 7), ([0, 0], 7)), "there is none");
    }
}
