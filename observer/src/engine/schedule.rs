//! When to scan: at start, at once after a loss, when the kernel's own totals differ, and otherwise as often as the
//! budget allows.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::{host::clock, model::units::NetnsId};

/// The shortest time between two scans without a request.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// The same if no event came since the last scan began. Changes without an event show that much later: a process that
/// passes a socket on, or a bind() without a connect().
const WHEN_QUIET: Duration = Duration::from_secs(5);
/// The same while few ports are left towards some destination.
const IN_A_HURRY: Duration = Duration::from_millis(200);
/// Repeated work may use this share of one CPU: 2 %.
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

    /// Wall-clock time.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// CPU time, which the budget limits. On a busy host a round waits for a CPU many times longer than it runs, and
    /// the wait costs others nothing.
    pub(super) fn cpu(&self) -> Duration {
        clock::work_cpu().saturating_sub(self.cpu)
    }
}

/// The pause after regular work that used this CPU time.
pub(super) fn pause_after(cpu: Duration) -> Duration {
    AT_MOST_EVERY.max(cpu * BUDGET)
}

/// The pause before a requested scan. Scans repair a loss within two seconds: one second to notice it, one for this
/// pause. While losses continue, longer scans still leave half of the time to others.
fn pause_when_asked(cpu: Duration) -> Duration {
    (cpu * BUDGET).min(Duration::from_secs(1)).max(cpu)
}

/// When to scan the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scans {
    /// At start, then as often as the budget allows.
    Regularly,
    /// Only at start: for tests of what events alone show.
    OnlyAtStart,
}

/// What decides when the next scan is due.
pub(super) struct ScanSchedule {
    scans: Scans,
    ended_at: Option<Instant>,
    /// CPU time of the last scan.
    cpu: Duration,
    /// Since the last scan began, records were lost or totals differed from the kernel's.
    asked_for: bool,
    /// Since the last scan began, ports became few towards some destination.
    hurried: bool,
    /// How many events there were when the last scan began.
    events_before: u64,
    /// By namespace: the difference between the model's totals and the kernel's, and the number of events then.
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

    /// Requests a scan after a loss.
    pub(super) fn ask(&mut self) {
        self.asked_for = true;
    }

    /// Requests a scan because few ports are left: their number should be exact soon, within the budget.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Stores the difference between the model's totals and the kernel's for a namespace (`CurrEstab` and `tw`). Events
    /// may be in flight during the reading. Only a difference that stays the same without an event in between counts.
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
