//! When to scan and to read. Each namespace has a turn of its own: soon after a loss, when the kernel's own totals differ, or
//! while ports are few; often where something happens; rarely where nothing does. All turns of one kind share a budget of CPU
//! time, and of equals the one that has waited longest comes first. Who begins to read along waits for a round over everything.

mod budget;
mod turns;
mod whole;

use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use self::{
    budget::Budget,
    turns::{Turn, Turns, Urgency, WhenQuiet},
    whole::WholeRounds,
};
pub(super) use self::{budget::Stopwatch, turns::Cause, whole::Waiting};
use crate::model::{quality::REGULAR_SCANS, units::NetnsId};

/// The shortest time between two turns without a request.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// The same of a scan if no event came since the last one began. Changes without an event show that much later: a process
/// that passes a socket on, or a bind() without a connect().
const WHEN_QUIET: Duration = Duration::from_secs(5);
/// The same while few ports are left towards some destination.
const IN_A_HURRY: Duration = Duration::from_millis(200);
/// Repeated work that is due at once is done in parts no longer than this: the ring has to be read in between.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Regular work may use this share of one CPU: one part of so many.
const TABLES: u32 = 200;
const OPEN_FILES: u32 = 125;
const READINGS: u32 = 500;
const _: () = assert!(1000 / TABLES + 1000 / OPEN_FILES + 1000 / READINGS == REGULAR_SCANS);
/// Of these, tables and readings of namespaces in which nothing happens. Hundreds that counts prove take a fortieth of a
/// millisecond each: less often than by their share. Walks that would wait for longer than a minute have what others leave.
const QUIET_TABLES: WhenQuiet =
    WhenQuiet { pause: WHEN_QUIET, each: Duration::from_millis(20), one_in: 400, at_latest: Duration::from_mins(1) };
const QUIET_READINGS: WhenQuiet =
    WhenQuiet { pause: AT_MOST_EVERY, each: Duration::ZERO, one_in: 667, at_latest: Duration::MAX };
/// Walks over all processes, which find namespaces, or count open files: each.
pub(super) const WALKS: u32 = 667;
/// So many namespaces are counted with one fd scan, at most: the ring has to be read in between.
const COUNT_AT_ONCE: usize = 500;
/// Where counts and an fd scan stand in for walks although something happens, a walk comes after so long: it alone shows bind
/// buckets and devices that changed without an event. After counts that proved nothing, they are not tried for as long.
const WALK_AT_LATEST: Duration = Duration::from_mins(5);
/// So many namespaces take longer to walk than an fd scan.
pub(super) const WORTH_AN_FD_SCAN: usize = 8;
/// Scans after losses, which come without end on a host with very many events.
const REPAIRS: u32 = 10;

/// While scans of one namespace are requested again and again, one in so much time: 2 % of a CPU, as long as that is not too late.
const ASKED_AGAIN: u32 = 50;

/// The pause before a requested scan. The first scans after a quiet time repair a loss within two seconds: one second to
/// notice it, one for this pause. After those it waits for the budget of repairs.
fn pause_when_asked(cpu: Duration) -> Duration {
    (cpu * ASKED_AGAIN).min(Duration::from_secs(1)).max(cpu)
}

/// When to scan the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scans {
    /// At start, then as often as the budget allows.
    Regularly,
    /// Only at start: for tests of what events alone show.
    OnlyAtStart,
    /// At start, then where counts may be wrong: for tests of what fd scans and the kernel's counts show.
    ByCounts,
}

/// Which namespaces a round is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All that there are, and all open files: who begins to read along begins with such a round.
    Whole,
    /// Of some as many as time and budgets allow.
    Due,
}

/// Whose budget an fd scan takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payer {
    /// Its turn has come.
    OpenFiles,
    /// It stands in for a walk.
    Tables,
}

/// What decides when the next scan or reading is due.
pub(super) struct Schedule {
    scans: Scans,
    tables: Turns,
    readings: Turns,
    repairs: Budget,
    files: Turn,
    files_budget: Budget,
    whole: WholeRounds,
    is_starting: bool,
    /// Events by namespace that are not counted with its turns yet, but for those of the last one: several in a row are mostly of
    /// one connection.
    uncounted: FxHashMap<NetnsId, u64>,
    latest: (NetnsId, u64),
    /// By namespace: the difference between the model's totals and the kernel's, and the number of its events then.
    suspects: FxHashMap<NetnsId, ([i64; 2], u64)>,
}

impl Schedule {
    pub(super) fn new(scans: Scans, now: Instant) -> Self {
        Self {
            scans,
            tables: Turns::new(TABLES, QUIET_TABLES, now),
            readings: Turns::new(READINGS, QUIET_READINGS, now),
            repairs: Budget::new(REPAIRS, now),
            files: Turn::default(),
            files_budget: Budget::new(OPEN_FILES, now),
            whole: WholeRounds::default(),
            is_starting: true,
            uncounted: FxHashMap::default(),
            latest: (NetnsId(0), 0),
            suspects: FxHashMap::default(),
        }
    }

    /// Takes note of an event. It is counted with the turns later, together with others of its namespace: what these are kept in
    /// is many times larger than this.
    pub(super) fn note_event(&mut self, netns: NetnsId) {
        if self.latest.0 != netns {
            self.count_latest();
            self.latest.0 = netns;
        }
        self.latest.1 += 1;
    }

    fn count_latest(&mut self) {
        let (netns, count) = std::mem::replace(&mut self.latest, (NetnsId(0), 0));
        if count > 0 {
            *self.uncounted.entry(netns).or_default() += count;
        }
    }

    /// Events of this namespace so far.
    pub(super) fn events_of(&mut self, netns: NetnsId) -> u64 {
        self.count_events();
        self.tables.get(netns).map_or(0, |turn| turn.events)
    }

    /// Takes note of an open descriptor of a socket: where most are, scans begin.
    pub(super) fn note_held(&mut self, netns: NetnsId) {
        let turn = self.tables.change(netns);
        if turn.ended_at.is_none() {
            turn.held += 1;
        }
    }

    fn count_events(&mut self) {
        self.count_latest();
        if self.uncounted.is_empty() {
            return;
        }
        for (netns, count) in self.uncounted.drain() {
            self.files.events += count;
            for turns in [&mut self.tables, &mut self.readings] {
                turns.change(netns).events += count;
            }
        }
    }

    /// Requests a scan of everything after a loss.
    pub(super) fn ask(&mut self, cause: Cause) {
        self.files.ask(cause);
        for turn in self.tables.change_all() {
            turn.ask(cause);
        }
    }

    /// CPU time that the repair of a namespace takes, if one is due to it because of few missed runs.
    pub(super) fn repair_takes(&self, netns: NetnsId) -> Option<Duration> {
        self.tables.get(netns)?.repair_takes()
    }

    /// The kernel's counts show that nothing of this namespace was missed: its next scan is a regular one.
    pub(super) fn spare_repair(&mut self, netns: NetnsId) {
        self.tables.change(netns).answer();
    }

    /// Requests a scan of one namespace, whose counts may be wrong.
    pub(super) fn ask_for(&mut self, netns: NetnsId) {
        self.files.ask(Cause::Doubt);
        self.tables.change(netns).ask(Cause::Doubt);
    }

    /// Requests an fd scan: the last one was not complete.
    pub(super) const fn ask_for_files(&mut self) {
        self.files.ask(Cause::Doubt);
    }

    /// Requests scans of these because few ports are left: their number should be exact soon, within the budget.
    pub(super) fn hurry(&mut self, namespaces: &FxHashSet<NetnsId>) {
        for netns in namespaces {
            self.files.hurried = true;
            self.tables.change(*netns).hurried = true;
        }
    }

    /// Requests a whole round for somebody who reads along.
    pub(super) fn show(&mut self, waiting: Waiting) {
        self.whole.show(waiting);
    }

    /// Whether to scan everything now.
    pub(super) fn is_whole_due(&self, now: Instant) -> bool {
        self.whole.is_due(now)
    }

    pub(super) fn begin_whole(&mut self) {
        self.whole.begin();
    }

    pub(super) fn end_whole(&mut self, now: Instant, cpu: Duration) {
        self.whole.end(now, cpu);
    }

    /// Stores the difference between the model's totals and the kernel's for a namespace (`CurrEstab` and `tw`). Events
    /// may be in flight during the reading. Only a difference that stays the same without an event in between counts.
    pub(super) fn compare(&mut self, netns: NetnsId, difference: [i64; 2]) {
        self.count_events();
        let events = self.tables.get(netns).map_or(0, |turn| turn.events);
        if difference == [0, 0] {
            self.suspects.remove(&netns);
        } else if self.suspects.insert(netns, (difference, events)) == Some((difference, events)) {
            self.ask_for(netns);
        }
    }

    /// Whether somebody waits for a scan or a reading.
    pub(super) const fn is_wanted(&self) -> bool {
        self.is_starting
            || self.files.asked_for.is_some()
            || self.files.hurried
            || self.tables.is_wanted()
            || self.readings.is_wanted()
    }

    /// The namespaces whose tables to scan now, in this order.
    pub(super) fn due_tables(&mut self, known: &[NetnsId], now: Instant) -> Vec<NetnsId> {
        self.count_events();
        if self.scans == Scans::OnlyAtStart {
            return Vec::new();
        }
        let mut due = self.tables.due(known, now, Some(&mut self.repairs));
        if self.scans == Scans::ByCounts {
            due.retain(|netns| !self.can_wait(*netns));
        }
        due
    }

    /// Whether this one was never scanned.
    pub(super) fn is_unscanned(&self, netns: NetnsId) -> bool {
        self.tables.is_new(netns)
    }

    /// Whether some namespaces wait for their first scan since observer started.
    pub(super) const fn is_starting(&self) -> bool {
        self.is_starting
    }

    /// All namespaces were scanned, or could not be.
    pub(super) const fn end_start(&mut self) {
        self.is_starting = false;
    }

    /// Whether nothing is lost if this table is scanned with the next fd scan.
    pub(super) fn can_wait(&self, netns: NetnsId) -> bool {
        self.tables.get(netns).is_some_and(Turn::can_wait)
    }

    /// The namespaces to count with the next fd scan: they were not looked at for so long.
    pub(super) fn due_counts(&mut self, pause: Duration, now: Instant) -> Vec<NetnsId> {
        self.count_events();
        self.tables.due_counts(pause, WALK_AT_LATEST, COUNT_AT_ONCE, now)
    }

    /// Its counts are compared with an fd scan now.
    pub(super) fn begin_count(&mut self, netns: NetnsId, now: Instant) {
        self.tables.change(netns).counted_at = Some(now);
    }

    /// They have shown that nothing changed since its last walk, which began after `since`. Returns whether there was one.
    pub(super) fn note_unchanged(&mut self, netns: NetnsId, since: Instant) -> bool {
        let turn = self.tables.change(netns);
        let is_unchanged = turn.can_wait() && turn.walked_at.is_some_and(|walked_at| walked_at >= since);
        if is_unchanged {
            turn.unchanged_at = turn.counted_at;
        }
        is_unchanged
    }

    /// Whether counts and an fd scan may stand in for the walk of this namespace that is due, although something happens there.
    pub(super) fn may_spare(&self, netns: NetnsId, now: Instant) -> bool {
        self.tables.get(netns).is_some_and(|turn| turn.may_be_spared(now, WALK_AT_LATEST))
    }

    /// They do, when so many events had come. Returns whether nobody has asked for a walk meanwhile, and none was lost `since`.
    pub(super) fn spare(&mut self, netns: NetnsId, now: Instant, events: u64, since: Instant) -> bool {
        let is_spared = self.may_spare(netns, now) && self.walked_at(netns).is_some_and(|walked_at| walked_at >= since);
        if is_spared {
            self.tables.change(netns).spare(now, events);
        }
        is_spared
    }

    /// They have proven nothing.
    pub(super) fn note_unprovable(&mut self, netns: NetnsId, now: Instant) {
        self.tables.change(netns).unprovable_at = Some(now);
    }

    /// When the last walk of this namespace began.
    pub(super) fn walked_at(&self, netns: NetnsId) -> Option<Instant> {
        self.tables.get(netns)?.walked_at
    }

    /// Whether a round may go on with this table.
    pub(super) fn may_scan(&mut self, netns: NetnsId, now: Instant) -> bool {
        self.tables.may_go_on(netns, now, &mut self.repairs)
    }

    pub(super) fn begin_table(&mut self, netns: NetnsId, now: Instant) {
        self.count_events();
        self.tables.begin(netns, now, &self.repairs);
        self.suspects.remove(&netns);
    }

    pub(super) fn end_table(&mut self, netns: NetnsId, now: Instant, cpu: Duration) {
        // Who owns what the first scan has found is known after the next fd scan.
        self.files.hurried |= self.tables.is_new(netns);
        self.tables.end(netns, now, cpu, self.whole.is_running(), &mut self.repairs);
    }

    /// Work for tables was done that is no turn of one. What a start takes is its price.
    pub(super) fn pay_for_tables(&mut self, cpu: Duration) {
        if !self.is_starting && !self.whole.is_running() {
            self.tables.budget.spend(cpu);
        }
    }

    /// Whether to scan all open files now. An fd scan takes less time than to walk the tables of the `new` namespaces.
    pub(super) fn are_files_due(&mut self, now: Instant, new: usize) -> bool {
        self.count_events();
        if self.scans == Scans::OnlyAtStart && self.files.ended_at.is_some() {
            return false;
        }
        if new >= WORTH_AN_FD_SCAN {
            return true;
        }
        match self.files.due(now, WHEN_QUIET) {
            None => false,
            Some(Urgency::New) => true,
            Some(Urgency::Repair) => self.repairs.allows(now) || self.files_budget.allows(now),
            Some(_) => self.files_budget.allows(now),
        }
    }

    pub(super) fn begin_files(&mut self, now: Instant) {
        self.count_events();
        self.files.begin(now, &self.repairs);
    }

    pub(super) fn end_files(&mut self, now: Instant, cpu: Duration, payer: Payer) {
        if !self.is_starting && !self.whole.is_running() {
            let budget = match payer {
                Payer::Tables => &mut self.tables.budget,
                Payer::OpenFiles if self.files.is_repair => &mut self.repairs,
                Payer::OpenFiles => &mut self.files_budget,
            };
            budget.spend(cpu);
        }
        self.files.end(now, cpu);
    }

    /// The namespaces to read now, in this order.
    pub(super) fn due_readings(&mut self, known: &[NetnsId], now: Instant) -> Vec<NetnsId> {
        self.count_events();
        self.readings.due(known, now, None)
    }

    /// Whether it was never read.
    pub(super) fn is_unread(&self, netns: NetnsId) -> bool {
        self.readings.is_new(netns)
    }

    /// Whether a round may go on with reading this namespace.
    pub(super) fn may_read(&mut self, netns: NetnsId, now: Instant) -> bool {
        self.readings.may_go_on(netns, now, &mut self.repairs)
    }

    /// It was read.
    pub(super) fn end_reading(&mut self, netns: NetnsId, now: Instant, cpu: Duration) {
        self.readings.begin(netns, now, &self.repairs);
        self.readings.end(netns, now, cpu, self.whole.is_running(), &mut self.repairs);
    }

    /// Forgets the namespaces that are gone.
    pub(super) fn keep(&mut self, is_known: impl Fn(NetnsId) -> bool) {
        self.count_events();
        self.suspects.retain(|netns, _| is_known(*netns));
        for turns in [&mut self.tables, &mut self.readings] {
            turns.keep(&is_known);
        }
    }
}

#[cfg(test)]
mod tests;
