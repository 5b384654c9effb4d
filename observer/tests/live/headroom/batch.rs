//! Scenarios at random. Many are prepared side by side, each in a namespace of its own, so that their TIME_WAIT sockets
//! age together; then one after the other is finished, predicted, and counted.
//! `OBSERVER_HEADROOM_SEED` repeats one of them.

use std::{
    env, process,
    sync::{Arc, Mutex, PoisonError, mpsc::channel},
    thread,
    time::Duration,
};

use super::scenario::Scenario;
use crate::support::{in_private_netns, scaled};

/// Scenarios of a run, and how many of them are under way at a time.
const SCENARIOS: u32 = 208;
const AT_A_TIME: usize = 26;
/// How long to count ports must take at most, lest a TIME_WAIT socket comes of age meanwhile; doubled for each new try.
const A_WHILE: Duration = Duration::from_millis(100);
const TRIES: u32 = 5;

/// What came of a scenario.
pub(super) enum Outcome {
    /// Every prediction was right.
    Right(Coverage),
    /// What was predicted, what was got, and how.
    Wrong(String),
    /// To be run again: a TIME_WAIT socket came of age while ports were counted, or events alone told something else. They
    /// can get lost; only what they tell wrongly each time is wrong.
    Unsettled(u64, String),
}

/// Destinations that a run has met.
#[derive(Clone, Copy, Default)]
pub(super) struct Coverage {
    pub(super) all: u32,
    pub(super) blocked: u32,
    pub(super) time_wait: u32,
    pub(super) reused: u32,
    pub(super) odd: u32,
    pub(super) by_events_alone: u32,
    /// Those where the size of the range less the sockets would have been wrong.
    pub(super) not_obvious: u32,
}

impl Coverage {
    pub(super) fn add(&mut self, other: Self) {
        let Self { all, blocked, time_wait, reused, odd, by_events_alone, not_obvious } = other;
        self.all += all;
        self.blocked += blocked;
        self.time_wait += time_wait;
        self.reused += reused;
        self.odd += odd;
        self.by_events_alone += by_events_alone;
        self.not_obvious += not_obvious;
    }
}

pub(super) fn run_all() {
    let repeated = env::var("OBSERVER_HEADROOM_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let first = repeated.unwrap_or_else(|| u64::from(process::id()) << 20);
    let seeds = first..first + if repeated.is_some() { 1 } else { u64::from(scaled(SCENARIOS)) };
    let mut unsettled: Vec<(u64, String)> = seeds.map(|seed| (seed, String::new())).collect();
    let (mut covered, mut wrong) = (Coverage::default(), Vec::new());
    for tries in 0..TRIES {
        let seeds: Vec<u64> = unsettled.drain(..).map(|(seed, _)| seed).collect();
        for batch in seeds.chunks(AT_A_TIME) {
            for outcome in run_batch(batch, A_WHILE * 2_u32.pow(tries)) {
                match outcome {
                    Outcome::Right(coverage) => covered.add(coverage),
                    Outcome::Wrong(report) => wrong.push(report),
                    Outcome::Unsettled(seed, report) => unsettled.push((seed, report)),
                }
            }
        }
    }
    wrong.extend(unsettled.into_iter().map(|(_, report)| report));
    assert!(wrong.is_empty(), "{} scenarios were predicted wrongly:\n{}", wrong.len(), wrong.join("\n\n"));
    let Coverage { all, blocked, time_wait, reused, odd, by_events_alone, not_obvious } = covered;
    println!(
        "{all} destinations from seed {first}: {blocked} with blocked ports, {time_wait} with TIME_WAIT, \
         {reused} with reusable ones, {odd} odd ranges, {by_events_alone} by events alone, {not_obvious} not obvious"
    );
    let least = [blocked, time_wait, reused, odd, by_events_alone, not_obvious].into_iter().min();
    // A tenth of them may meet little of something.
    assert!(repeated.is_some() || scaled(100) < 100 || least >= Some(20), "too little of something was met");
}

/// Runs scenarios side by side.
fn run_batch(seeds: &[u64], a_while: Duration) -> Vec<Outcome> {
    let turn = Arc::new(Mutex::new(()));
    let (tell, outcomes) = channel();
    let threads: Vec<_> = seeds
        .iter()
        .map(|seed| {
            let (seed, turn, tell) = (*seed, turn.clone(), tell.clone());
            thread::spawn(move || {
                in_private_netns(move || {
                    let mut scenario = Scenario::prepare(seed);
                    scenario.stage.let_ripen();
                    let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                    let counted = scenario.finish(a_while);
                    drop(turn);
                    tell.send(scenario.judge(counted.as_deref())).unwrap();
                });
            })
        })
        .collect();
    drop(tell);
    for thread in threads {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    outcomes.into_iter().collect()
}
