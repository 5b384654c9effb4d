//! Random scenarios. Each has its own namespace, and many are prepared in parallel, so that their TIME_WAIT sockets age
//! together. Then they are finished, predicted and counted one after the other. `OBSERVER_HEADROOM_SEED` repeats one of
//! them.

use std::{
    env, process,
    sync::{Arc, Mutex, PoisonError, mpsc::channel},
    thread,
    time::Duration,
};

use super::scenario::Scenario;
use crate::support::{in_private_netns, report_retry, scaled};

/// The test that runs these scenarios.
const TEST: &str = "headroom::random_scenarios_are_predicted_exactly";

/// Scenarios of a run, and how many of them run at a time.
const SCENARIOS: u32 = 208;
const AT_A_TIME: usize = 26;
/// Time in which counting the ports of a destination must be done, before a TIME_WAIT socket becomes reusable. Each
/// further attempt has twice as long.
const COUNTING_TIME: Duration = Duration::from_millis(100);
/// Attempts at a scenario. Every attempt after the first is reported with its cause.
const ATTEMPTS: u32 = 5;

/// The result of a scenario.
pub(super) enum Outcome {
    /// Every prediction was right.
    Right(Coverage),
    /// At least one prediction was wrong: the prediction, the count and the steps.
    Wrong(String),
    /// Run this seed again, for this reason: a TIME_WAIT socket became reusable while the ports were counted, or the
    /// prediction rests on events alone, which can get lost. A prediction that is wrong in every attempt is a failure.
    Unsettled(u64, String),
}

/// How many destinations of each kind a run has counted.
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
    let mut retries = 0;
    for attempt in 1..=ATTEMPTS {
        let seeds: Vec<u64> = unsettled.drain(..).map(|(seed, _)| seed).collect();
        for batch in seeds.chunks(AT_A_TIME) {
            for outcome in run_batch(batch, COUNTING_TIME * 2_u32.pow(attempt - 1)) {
                match outcome {
                    Outcome::Right(coverage) => covered.add(coverage),
                    Outcome::Wrong(report) => wrong.push(report),
                    Outcome::Unsettled(seed, cause) => {
                        if attempt < ATTEMPTS {
                            retries += 1;
                            report_retry(TEST, &format!("attempt {attempt} of {ATTEMPTS}: {cause}"));
                        }
                        unsettled.push((seed, cause));
                    }
                }
            }
        }
    }
    wrong.extend(unsettled.into_iter().map(|(_, report)| report));
    assert!(wrong.is_empty(), "{} scenarios had wrong predictions:\n{}", wrong.len(), wrong.join("\n\n"));
    let Coverage { all, blocked, time_wait, reused, odd, by_events_alone, not_obvious } = covered;
    println!(
        "{all} destinations from seed {first}, {retries} retries: {blocked} with blocked ports, {time_wait} with \
         TIME_WAIT, {reused} with reusable ones, {odd} odd ranges, {by_events_alone} by events alone, {not_obvious} \
         not obvious"
    );
    let least = [blocked, time_wait, reused, odd, by_events_alone, not_obvious].into_iter().min();
    // A tenth of them may lack some kinds.
    assert!(repeated.is_some() || scaled(100) < 100 || least >= Some(20), "some kind of destination was too rare");
}

/// Runs scenarios in parallel.
fn run_batch(seeds: &[u64], counting_time: Duration) -> Vec<Outcome> {
    let turn = Arc::new(Mutex::new(()));
    let (sender, outcomes) = channel();
    let threads: Vec<_> = seeds
        .iter()
        .map(|seed| {
            let (seed, turn, sender) = (*seed, turn.clone(), sender.clone());
            thread::spawn(move || {
                in_private_netns(move || {
                    let mut scenario = Scenario::prepare(seed);
                    scenario.stage.wait_until_reusable();
                    let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                    let counted = scenario.finish(counting_time);
                    drop(turn);
                    sender.send(scenario.judge(counted.as_deref())).unwrap();
                });
            })
        })
        .collect();
    drop(sender);
    for thread in threads {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    outcomes.into_iter().collect()
}
