//! Turns of namespaces, or of all open files, at one kind of work: when each is due, and what it used.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{AT_MOST_EVERY, IN_A_HURRY, budget::Budget, pause_when_asked};
use crate::model::units::NetnsId;

/// Why a turn has come, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// It never had one.
    New,
    /// Its counts may be wrong, and something happened there.
    Repair,
    /// The same, and nothing happened there that is known of.
    Doubt,
    /// Few ports are left.
    Hurried,
    Regular,
}

/// Why a turn was asked for before its regular time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Cause {
    /// So few runs of hooks were missed that the kernel's counts can show whose they were.
    MissedRuns,
    /// More was lost, or its own counts may be wrong.
    Doubt,
}

/// The turns of one namespace, or of all open files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// When the last one ended; `None` before the first.
    pub(super) ended_at: Option<Instant>,
    /// CPU time of the last one.
    cpu: Duration,
    /// When the last walk began. Counts and an fd scan may have stood in for later ones.
    began_at: Option<Instant>,
    pub(super) walked_at: Option<Instant>,
    /// Events so far, and when the last turn began.
    pub(super) events: u64,
    events_before: u64,
    /// Open descriptors of its sockets that an fd scan has found before the first turn.
    pub(super) held: u32,
    pub(super) asked_for: Option<Cause>,
    pub(super) hurried: bool,
    /// When the kernel's counts of it were last compared with an fd scan, and when these last showed that nothing had changed.
    pub(super) counted_at: Option<Instant>,
    pub(super) unchanged_at: Option<Instant>,
    /// When counts and an fd scan could not stand in for a walk.
    pub(super) unprovable_at: Option<Instant>,
    /// The last one that began was asked for where something happens, and repairs pay for it.
    pub(super) is_repair: bool,
}

impl Turn {
    pub(super) const fn is_quiet(&self) -> bool {
        self.events == self.events_before
    }

    /// More than the next regular one is wanted.
    pub(super) const fn is_wanted(&self) -> bool {
        self.asked_for.is_some() || self.hurried || self.ended_at.is_none()
    }

    pub(super) const fn begin(&mut self, now: Instant, repairs: &Budget) {
        self.began_at = Some(now);
        self.is_repair = self.asked_for.is_some() && !self.is_quiet() && repairs.is_free();
        self.events_before = self.events;
        self.asked_for = None;
        self.hurried = false;
    }

    pub(super) const fn end(&mut self, now: Instant, cpu: Duration) {
        self.ended_at = Some(now);
        self.walked_at = self.began_at;
        self.cpu = cpu;
    }

    /// The kernel's counts and an fd scan have stood in for it, when so many events had come.
    pub(super) const fn spare(&mut self, now: Instant, events: u64) {
        self.ended_at = Some(now);
        self.events_before = events;
    }

    /// Counts and an fd scan may show that its full sockets are right: it was walked, nobody has asked for a walk, and for this long no
    /// attempt has failed.
    pub(super) fn may_be_counted(&self, now: Instant, retry: Duration) -> bool {
        let has_failed = self.unprovable_at.is_some_and(|at| now.saturating_duration_since(at) < retry);
        self.walked_at.is_some() && self.asked_for.is_none() && !self.hurried && !has_failed
    }

    /// The same, and the last walk is not older than this: they may stand in for one.
    pub(super) fn may_be_spared(&self, now: Instant, at_latest: Duration) -> bool {
        let is_recent = |at| now.saturating_duration_since(at) < at_latest;
        self.may_be_counted(now, at_latest) && self.walked_at.is_some_and(is_recent)
    }

    /// When it was last scanned or counted; `None` before the first scan.
    pub(super) fn seen_at(&self) -> Option<Instant> {
        self.ended_at.max(self.counted_at.filter(|_| self.ended_at.is_some()))
    }

    /// The last counts showed that nothing had changed.
    fn is_unchanged(&self) -> bool {
        self.counted_at.is_some() && self.counted_at == self.unchanged_at
    }

    /// Asks for it. What is asked for again has more than one cause.
    pub(super) const fn ask(&mut self, cause: Cause) {
        self.asked_for = Some(if self.asked_for.is_some() { Cause::Doubt } else { cause });
    }

    /// What the last one took, if the next one is asked for because of missed runs, and something happened here.
    pub(super) fn repair_takes(&self) -> Option<Duration> {
        (self.asked_for == Some(Cause::MissedRuns) && !self.is_quiet()).then_some(self.cpu)
    }

    /// What it was asked for has an answer.
    pub(super) const fn answer(&mut self) {
        self.asked_for = None;
    }

    /// Nothing would be lost if its turn came later.
    pub(super) const fn can_wait(&self) -> bool {
        self.ended_at.is_some() && self.is_quiet() && self.asked_for.is_none() && !self.hurried
    }

    /// Why it is due, and how long it has been waiting; else how long it still has to wait.
    fn due_or_left(&self, now: Instant, quiet: Duration) -> Result<(Urgency, Duration), Duration> {
        let Some(ended_at) = self.ended_at else { return Ok((Urgency::New, Duration::ZERO)) };
        let (urgency, pause) = match (self.asked_for.is_some(), self.hurried, self.is_quiet()) {
            (true, _, false) => (Urgency::Repair, pause_when_asked(self.cpu)),
            (true, _, true) => (Urgency::Doubt, pause_when_asked(self.cpu)),
            (false, true, _) => (Urgency::Hurried, IN_A_HURRY),
            (false, false, false) => (Urgency::Regular, AT_MOST_EVERY),
            (false, false, true) => (Urgency::Regular, quiet),
        };
        let waited = now.saturating_duration_since(ended_at);
        match pause.checked_sub(waited) {
            None | Some(Duration::ZERO) => Ok((urgency, waited)),
            Some(left) => Err(left),
        }
    }

    /// Why it is due, if it is.
    pub(super) fn due(&self, now: Instant, quiet: Duration) -> Option<Urgency> {
        self.due_or_left(now, quiet).ok().map(|(urgency, _)| urgency)
    }
}

/// When namespaces in which nothing happens have their turns.
#[derive(Clone, Copy)]
pub(super) struct WhenQuiet {
    /// The shortest time between two turns of one,
    pub(super) pause: Duration,
    /// and between two turns of any two of them.
    pub(super) each: Duration,
    /// The share of a CPU for all of these: one part of so many.
    pub(super) one_in: u32,
    /// Where that makes them wait longer, they also have what the others leave of the budget.
    pub(super) at_latest: Duration,
}

/// The turns of all namespaces, at one kind of work.
pub(super) struct Turns {
    all: FxHashMap<NetnsId, Turn>,
    pub(super) budget: Budget,
    quiet: WhenQuiet,
    /// Among so many namespaces none is due until then, unless something happens. This is asked many times a second.
    rest: Option<(Instant, usize)>,
    /// When this was last asked, one was wanted.
    is_wanted: bool,
}

impl Turns {
    pub(super) fn new(one_in: u32, quiet: WhenQuiet, now: Instant) -> Self {
        Self { all: FxHashMap::default(), budget: Budget::new(one_in, now), quiet, rest: None, is_wanted: false }
    }

    pub(super) fn get(&self, netns: NetnsId) -> Option<&Turn> {
        self.all.get(&netns)
    }

    /// For a change of what is due.
    pub(super) fn change(&mut self, netns: NetnsId) -> &mut Turn {
        self.rest = None;
        self.all.entry(netns).or_default()
    }

    /// The same for all.
    pub(super) fn change_all(&mut self) -> impl Iterator<Item = &mut Turn> {
        self.rest = None;
        self.all.values_mut()
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, is_known: impl Fn(NetnsId) -> bool) {
        self.rest = None;
        self.all.retain(|netns, _| is_known(*netns));
    }

    /// The namespaces whose turn has come, as far as the budget goes: `repairs` are for those whose counts may be wrong.
    pub(super) fn due(&mut self, known: &[NetnsId], now: Instant, mut repairs: Option<&mut Budget>) -> Vec<NetnsId> {
        let may_repair = repairs.as_mut().is_some_and(|repairs| repairs.allows(now));
        let may = self.budget.allows(now);
        if self.rest.is_some_and(|(until, among)| now < until && among == known.len()) {
            return Vec::new();
        }
        let (pause_unchanged, pause_other) = self.quiet_pauses();
        let repairs_later = repairs.map_or(Duration::MAX, |repairs| repairs.debt_lasts());
        let mut rest = Duration::MAX;
        self.is_wanted = false;
        let mut due: Vec<(Urgency, Reverse<Duration>, Reverse<u32>, usize)> = Vec::new();
        for (place, netns) in known.iter().enumerate() {
            let turn = self.all.entry(*netns).or_default();
            self.is_wanted |= turn.is_wanted();
            let is_repair = |urgency| urgency == Urgency::Repair;
            let quiet = if turn.is_unchanged() { pause_unchanged } else { pause_other };
            match turn.due_or_left(now, quiet) {
                Ok((urgency, waited)) if may || urgency == Urgency::New || (may_repair && is_repair(urgency)) => {
                    due.push((urgency, Reverse(waited), Reverse(turn.held), place));
                }
                Ok((urgency, _)) => {
                    let later = if is_repair(urgency) { repairs_later } else { Duration::MAX };
                    rest = rest.min(later).min(self.budget.debt_lasts());
                }
                Err(left) => rest = rest.min(left),
            }
        }
        self.rest = now.checked_add(rest).filter(|_| due.is_empty()).map(|until| (until, known.len()));
        due.sort_unstable();
        due.into_iter().filter_map(|(.., place)| known.get(place).copied()).collect()
    }

    /// Whether one is wanted before its regular time.
    pub(super) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// The ones that were neither scanned nor counted for `pause`, or longer where there are very many, and that counts may show to be
    /// right: see [`Turn::may_be_counted`]. The longest first, at most `most`.
    pub(super) fn due_counts(&self, pause: Duration, retry: Duration, most: usize, now: Instant) -> Vec<NetnsId> {
        let waiting = || self.all.iter().filter(|(_, turn)| turn.can_wait() || turn.may_be_counted(now, retry));
        let pause = waiting().fold(Duration::ZERO, |all, _| all + self.quiet.each).max(pause);
        let mut old: Vec<(Instant, NetnsId)> =
            waiting().filter_map(|(netns, turn)| Some((turn.seen_at()?, *netns))).collect();
        old.retain(|(seen_at, _)| now.saturating_duration_since(*seen_at) >= pause);
        old.sort_unstable();
        old.into_iter().map(|(_, netns)| netns).take(most).collect()
    }

    /// The time between two turns of a namespace in which nothing happens: of one that counts have shown to be unchanged, which
    /// has its share alone, and of another. The former can wait: they make no other wait for longer.
    fn quiet_pauses(&self) -> (Duration, Duration) {
        let (mut unchanged, mut cost, mut count, mut busy) = (Duration::ZERO, Duration::ZERO, 0, Duration::ZERO);
        for turn in self.all.values() {
            count += u32::from(turn.is_quiet());
            *match (turn.is_quiet(), turn.is_unchanged()) {
                (true, true) => &mut unchanged,
                (true, false) => &mut cost,
                (false, _) => &mut busy,
            } += turn.cpu;
        }
        let WhenQuiet { pause, each, one_in, at_latest } = self.quiet;
        let own = cost * one_in;
        // Where something happens a turn is wanted each second.
        let left = self.budget.of(AT_MOST_EVERY).saturating_sub(busy).max(AT_MOST_EVERY / one_in);
        let with_what_is_left = AT_MOST_EVERY.mul_f64(cost.div_duration_f64(left));
        let least = pause.max(each * count);
        (least.max(unchanged * one_in), least.max(own.min(at_latest.max(with_what_is_left))))
    }

    /// Whether work that a round has begun may go on with this namespace.
    pub(super) fn may_go_on(&mut self, netns: NetnsId, now: Instant, repairs: &mut Budget) -> bool {
        match self.all.get(&netns) {
            Some(Turn { ended_at: None, .. }) | None => true,
            Some(turn) if turn.asked_for.is_some() && !turn.is_quiet() => {
                repairs.allows(now) || self.budget.allows(now)
            }
            Some(_) => self.budget.allows(now),
        }
    }

    pub(super) fn begin(&mut self, netns: NetnsId, now: Instant, repairs: &Budget) {
        self.change(netns).begin(now, repairs);
    }

    /// The first turn is the price of a start, and one in a whole round is the price of that.
    pub(super) fn end(
        &mut self,
        netns: NetnsId,
        now: Instant,
        cpu: Duration,
        in_whole_round: bool,
        repairs: &mut Budget,
    ) {
        self.rest = None;
        let turn = self.all.entry(netns).or_default();
        let is_paid = turn.ended_at.is_some() && !in_whole_round;
        let budget = if turn.is_repair { repairs } else { &mut self.budget };
        budget.spend(if is_paid { cpu } else { Duration::ZERO });
        turn.end(now, cpu);
    }

    /// Whether it never had a turn.
    pub(super) fn is_new(&self, netns: NetnsId) -> bool {
        self.all.get(&netns).is_none_or(|turn| turn.ended_at.is_none())
    }
}
