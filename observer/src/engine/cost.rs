//! Keeps what observer costs below `--max-cost`. Once a second the engine adds up its own CPU time and that of its hooks: events
//! times what the kernel measured for one. Beyond the limit for ten seconds it suspends the hooks that follow sockets, and
//! scans alone count. Suspended hooks still count their runs: that shows when the load has gone.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{Engine, schedule::Cause};
use crate::{
    host::clock,
    input::Input,
    model::cost::{Cost, CpuShare},
    probe::kernel,
};

/// How long the cost has to be beyond the limit, or the load to be away, before hooks are suspended or resumed.
const LASTS: Duration = Duration::from_secs(10);
/// Suspended again so soon after they were resumed, hooks stay suspended twice as long after the load has gone.
const SOON: Duration = Duration::from_mins(1);
/// But no longer than this.
const LONGEST: Duration = Duration::from_mins(5);
/// What a record costs the hooks until the kernel has measured it: 3,445 ns for 11 records on the slowest machine that was measured.
const HOOK_NS: u32 = 310;
/// What a record costs observer itself, at full speed on that machine.
const USER_NS: u32 = 487;
/// A measurement needs so many records in the second before it; it takes `WINDOW`, and 35 ns for each run of any BPF program of
/// the host.
const ENOUGH: u64 = 1_000;
const WINDOW: Duration = Duration::from_millis(100);
/// Between two measurements; the shorter one where the cost is more than a quarter of the limit.
const RARELY: Duration = Duration::from_mins(10);
const OFTEN: Duration = Duration::from_secs(30);

/// What was used since start.
#[derive(Clone, Copy, Default)]
pub(super) struct Used {
    /// CPU time of this process.
    cpu: Duration,
    /// Records that hooks wrote, or for which the ring had no room.
    events: u64,
    /// Records that suspended hooks did not write.
    skipped: u64,
}

/// What to do about the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Suspend,
    Resume,
}

/// A measurement that is under way: the kernel times its BPF programs until this is dropped.
struct Measuring {
    _timing: OwnedFd,
    began: Instant,
    events: u64,
    hooks: Duration,
}

/// Decides when hooks are suspended.
pub(super) struct CostControl {
    cpus: u32,
    cost: Cost,
    at: Instant,
    before: Used,
    /// Since when the verdict has been due that is not carried out yet.
    due_since: Option<Instant>,
    /// How long the load has to be away.
    away_for: Duration,
    resumed_at: Option<Instant>,
    measuring: Option<Measuring>,
    measured_at: Option<Instant>,
}

impl CostControl {
    pub(super) fn new(at_most: CpuShare, cpus: usize, now: Instant) -> Self {
        Self {
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX).max(1),
            cost: Cost { at_most, hook_ns: HOOK_NS, ..Cost::default() },
            at: now,
            before: Used::default(),
            due_since: None,
            away_for: LASTS,
            resumed_at: None,
            measuring: None,
            measured_at: None,
        }
    }

    /// The share of all CPUs that this time is of `elapsed`.
    fn share(&self, time: Duration, elapsed: Duration) -> CpuShare {
        let of = elapsed * self.cpus;
        CpuShare::from_ratio(if of.is_zero() { 0.0 } else { time.as_secs_f64() / of.as_secs_f64() })
    }

    /// Takes note of what was used, and decides. It is the caller's to carry it out, and to report that with [`Self::done`].
    ///
    /// Suspending helps only where events are what costs: a limit below what observer takes without any is not kept by it.
    /// Events therefore have to take half of the limit to suspend hooks, and less than a quarter to resume them.
    fn judge(&mut self, now: Instant, used: Used) -> Option<Verdict> {
        let began = self.at;
        let elapsed = now.saturating_duration_since(began);
        let cpu = used.cpu.saturating_sub(self.before.cpu);
        let recorded = used.events.saturating_sub(self.before.events);
        let skipped = used.skipped.saturating_sub(self.before.skipped);
        (self.at, self.before) = (now, used);
        let of = |events: u64, each: u32| Duration::from_nanos(events.saturating_mul(each.into()));
        let Cost { at_most, hook_ns, is_suspended, .. } = self.cost;
        let by_events = self.share(of(recorded + skipped, hook_ns + USER_NS), elapsed);
        let hooks = of(recorded + skipped, hook_ns) + of(skipped, USER_NS);
        self.cost.share = self.share(cpu + hooks, elapsed);
        self.cost.skipped = used.skipped;
        let (is_due, lasts, verdict) = if is_suspended {
            (by_events < at_most.part(4), self.away_for, Verdict::Resume)
        } else {
            (self.cost.share > at_most && by_events >= at_most.part(2), LASTS, Verdict::Suspend)
        };
        let since = *self.due_since.filter(|_| is_due).get_or_insert(began);
        self.due_since = is_due.then_some(since);
        (is_due && now.saturating_duration_since(since) >= lasts).then_some(verdict)
    }

    /// The verdict was carried out.
    fn done(&mut self, now: Instant, verdict: Verdict) {
        self.due_since = None;
        self.cost.is_suspended = verdict == Verdict::Suspend;
        match verdict {
            Verdict::Suspend => {
                self.cost.suspensions += 1;
                let is_soon = self.resumed_at.is_some_and(|at| now.saturating_duration_since(at) < SOON);
                self.away_for = if is_soon { (self.away_for * 2).min(LONGEST) } else { LASTS };
            }
            Verdict::Resume => self.resumed_at = Some(now),
        }
    }

    /// Whether to measure what a record costs the hooks, which wrote so many in the last second.
    fn wants_measurement(&self, now: Instant, recorded: u64) -> bool {
        let pause = if self.cost.share > self.cost.at_most.part(4) { OFTEN } else { RARELY };
        let is_due = self.measured_at.is_none_or(|at| now.saturating_duration_since(at) >= pause);
        is_due && recorded >= ENOUGH && self.measuring.is_none() && !self.cost.is_suspended
    }

    /// Ends a measurement: so many records, and so much time of all hooks.
    fn measured(&mut self, records: u64, time: Duration) {
        // Fewer show what hooks cost that record nothing.
        if records >= ENOUGH / 10 {
            let each = time.as_nanos() / u128::from(records);
            self.cost.hook_ns = u32::try_from(each).unwrap_or(u32::MAX).max(1);
            self.cost.is_measured = true;
        }
    }
}

impl Engine {
    /// Begins to keep the cost below this.
    pub(super) fn limit_cost(&mut self, at_most: CpuShare, now: Instant) {
        let control = CostControl::new(at_most, kernel::cpus(), now);
        self.cost = Some(CostControl { before: self.used(), ..control });
    }

    fn used(&self) -> Used {
        let events = self.feed.model().events_total() + self.losses.ring_full;
        Used { cpu: clock::own_cpu(), events, skipped: self.live.skipped() }
    }

    /// Once a second: suspends hooks, or resumes them, and reports what observer costs.
    pub(super) fn control_cost(&mut self, now: Instant) {
        let used = self.used();
        let Some(control) = &mut self.cost else { return };
        let recorded = used.events.saturating_sub(control.before.events);
        let verdict = control.judge(now, used);
        if let Some(verdict) = verdict {
            match self.live.set_suspended(verdict == Verdict::Suspend) {
                Ok(()) => control.done(now, verdict),
                Err(refusal) => return self.skip(refusal),
            }
            tracing::warn!(?verdict, cost = ?control.cost, "--max-cost");
        } else if control.wants_measurement(now, recorded) {
            // Where that is refused, as without CAP_SYS_ADMIN, the figure stays. It is tried as rarely.
            control.measured_at = Some(now);
            let hooks = self.live.hook_time();
            let timing = self.live.time_programs().ok();
            control.measuring =
                timing.map(|timing| Measuring { _timing: timing, began: now, events: used.events, hooks });
        }
        let cost = control.cost;
        self.feed.take(Input::Cost(cost));
        if cost.is_suspended || verdict == Some(Verdict::Resume) {
            // Listeners end without an event.
            self.proofs.note_loss();
        }
        if verdict == Some(Verdict::Resume) {
            // Hooks first, then scans: nothing is missed in between.
            self.schedule.ask(Cause::Doubt);
        }
    }

    /// Ends a measurement that has run long enough. The ring is empty: what hooks wrote in its time has arrived.
    pub(super) fn end_measurement(&mut self) {
        let measuring =
            self.cost.as_mut().and_then(|control| control.measuring.take_if(|it| it.began.elapsed() >= WINDOW));
        let Some(measuring) = measuring else { return };
        let time = self.live.hook_time().saturating_sub(measuring.hooks);
        let records = self.used().events.saturating_sub(measuring.events);
        if let Some(control) = &mut self.cost {
            control.measured(records, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second at a time, with so many events and so much CPU time of observer itself.
    struct Host {
        control: CostControl,
        now: Instant,
        used: Used,
    }

    impl Host {
        /// Two CPUs, and at most 5 % of them: 100 ms a second.
        fn new() -> Self {
            let now = Instant::now();
            let control = CostControl::new(CpuShare::from_ratio(0.05), 2, now);
            Self { control, now, used: Used::default() }
        }

        fn second(&mut self, events: u64, cpu: u64) -> Option<Verdict> {
            self.now += Duration::from_secs(1);
            self.used.cpu += Duration::from_millis(cpu);
            let count = if self.control.cost.is_suspended { &mut self.used.skipped } else { &mut self.used.events };
            *count += events;
            let verdict = self.control.judge(self.now, self.used);
            if let Some(verdict) = verdict {
                self.control.done(self.now, verdict);
            }
            verdict
        }

        /// How many seconds of this it takes until there is a verdict.
        fn until_verdict(&mut self, events: u64, cpu: u64) -> (u32, Verdict) {
            (1..1_000).find_map(|second| Some((second, self.second(events, cpu)?))).expect("a verdict")
        }
    }

    #[test]
    fn hooks_are_suspended_after_ten_seconds_beyond_the_limit_and_resumed_after_ten_below() {
        let mut host = Host::new();
        // 400,000 events take the hooks 124 ms.
        assert_eq!(host.until_verdict(400_000, 10), (10, Verdict::Suspend));
        assert!(host.control.cost.is_suspended && host.control.cost.suspensions == 1);
        for _ in 0..60 {
            assert_eq!(host.second(400_000, 1), None, "the load goes on");
        }
        assert_eq!(host.control.cost.skipped, 60 * 400_000);
        assert!(host.control.cost.share > host.control.cost.at_most, "what it would be with hooks");
        assert_eq!(host.until_verdict(1_000, 1), (10, Verdict::Resume));
    }

    #[test]
    fn a_second_below_the_limit_starts_the_ten_again() {
        let mut host = Host::new();
        for _ in 0..5 {
            for _ in 0..9 {
                assert_eq!(host.second(400_000, 10), None);
            }
            assert_eq!(host.second(100, 1), None);
        }
    }

    #[test]
    fn own_work_without_events_suspends_nothing() {
        let mut host = Host::new();
        for _ in 0..60 {
            assert_eq!(host.second(1_000, 900), None, "hooks are not what costs");
        }
        assert!(host.control.cost.share > host.control.cost.at_most);
    }

    #[test]
    fn a_load_that_comes_back_at_once_waits_longer_each_time() {
        let mut host = Host::new();
        let waits: Vec<u32> = (0..7)
            .map(|_| {
                assert_eq!(host.until_verdict(400_000, 10), (10, Verdict::Suspend));
                host.until_verdict(0, 1).0
            })
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        for _ in 0..60 {
            assert_eq!(host.second(0, 1), None);
        }
        host.until_verdict(400_000, 10);
        assert_eq!(host.until_verdict(0, 1), (10, Verdict::Resume));
    }

    #[test]
    fn what_the_kernel_measured_replaces_the_figure() {
        let mut host = Host::new();
        host.second(ENOUGH, 1);
        assert!(!host.control.cost.is_measured && host.control.wants_measurement(host.now, ENOUGH));
        assert!(!host.control.wants_measurement(host.now, ENOUGH - 1), "too few to be measured");
        host.control.measured_at = Some(host.now);
        host.control.measured(10_000, Duration::from_millis(4));
        assert_eq!((host.control.cost.hook_ns, host.control.cost.is_measured), (400, true));
        host.control.measured(3, Duration::from_secs(1));
        assert_eq!(host.control.cost.hook_ns, 400, "three records are no measurement");
        assert!(!host.control.wants_measurement(host.now + OFTEN, ENOUGH), "far from the limit");
        assert!(host.control.wants_measurement(host.now + RARELY, ENOUGH));
        host.second(200_000, 10);
        assert!(host.control.wants_measurement(host.now + OFTEN, ENOUGH));
    }
}
