//! Turns and budgets.

use super::*;
use crate::engine::EngineOptions;

const A: NetnsId = NetnsId(1);
const B: NetnsId = NetnsId(2);
const COUNT_AFTER: Duration = EngineOptions::COUNT_AFTER;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A schedule whose namespaces were scanned once, at this price, and have settled all debts.
fn scanned(namespaces: &[NetnsId], cpu: Duration) -> (Schedule, Instant) {
    let start = Instant::now();
    let mut schedule = Schedule::new(Scans::Regularly, start);
    assert_eq!(schedule.due_tables(namespaces, start), namespaces, "the first scan is due at once");
    schedule.end_start();
    let mut now = start;
    for _ in 0..2 {
        for netns in namespaces {
            schedule.begin_table(*netns, now);
            schedule.end_table(*netns, now, cpu);
        }
        schedule.begin_files(now);
        schedule.end_files(now, cpu, Payer::OpenFiles);
        now += cpu * TABLES * u32::try_from(namespaces.len()).unwrap();
        // The engine asks many times a second: what is earned pays the debt.
        schedule.due_tables(namespaces, now);
    }
    for netns in namespaces {
        schedule.begin_table(*netns, now);
        schedule.end_table(*netns, now, cpu);
    }
    (schedule, now)
}

/// How long after `now` a scan of A is due, in steps of 10 ms.
fn due_after(schedule: &mut Schedule, now: Instant, namespaces: &[NetnsId]) -> Duration {
    let is_due = |after: &Duration| schedule.due_tables(namespaces, now + *after).contains(&A);
    (0..40_000).map(|step| millis(10 * step)).find(is_due).unwrap()
}

#[test]
fn regular_scans_keep_to_their_share_and_to_less_where_nothing_happens() {
    for (cost, has_events, expected) in [
        (1, true, 1_000),
        (500, true, 99_000),
        (1, false, 5_000),
        (100, false, 40_000),
        (500, false, 100_000),
        (2_000, false, 400_000),
    ] {
        let (mut schedule, now) = scanned(&[A], millis(cost));
        if has_events {
            schedule.note_event(A);
        }
        let is_due_at = |schedule: &mut Schedule, at| !schedule.due_tables(&[A], now + millis(at)).is_empty();
        assert!(!is_due_at(&mut schedule, expected - 30), "a scan of {cost} ms, events: {has_events}");
        assert!(is_due_at(&mut schedule, expected), "a scan of {cost} ms, events: {has_events}");
    }
}

#[test]
fn a_loss_is_repaired_where_something_happens_before_all_else() {
    for (cost, at_most) in [(2, 100), (300, 1_000), (3_000, 3_000)] {
        let (mut schedule, now) = scanned(&[A, B], millis(cost));
        schedule.note_event(A);
        schedule.ask(Cause::Doubt);
        assert!(due_after(&mut schedule, now, &[B, A]) <= millis(at_most), "a scan of {cost} ms");
        let due = schedule.due_tables(&[B, A], now + Duration::from_secs(2_000));
        assert_eq!(due, [A, B], "where nothing is known to have happened comes after");
    }
}

#[test]
fn losses_without_end_take_a_tenth_of_a_cpu_and_leave_no_debt_behind() {
    for cost in [2, 300, 3_000].map(millis) {
        let (mut schedule, start) = scanned(&[A], cost);
        let (mut now, mut used, length) = (start, Duration::ZERO, Duration::from_mins(5));
        let scan = |schedule: &mut Schedule, now: &mut Instant, used: &mut Duration| {
            schedule.begin_table(A, *now);
            *now += cost;
            schedule.end_table(A, *now, cost);
            *used += cost;
        };
        while now < start + length {
            now += millis(50);
            schedule.note_event(A);
            schedule.ask(Cause::Doubt);
            if schedule.due_tables(&[A], now) == [A] && schedule.may_scan(A, now) {
                scan(&mut schedule, &mut now, &mut used);
            }
        }
        schedule.note_event(A);
        schedule.ask(Cause::Doubt);
        now += due_after(&mut schedule, now, &[A]);
        scan(&mut schedule, &mut now, &mut used);
        let elapsed = now.saturating_duration_since(start);
        assert!(used > length / 100, "{used:?} of {elapsed:?} with scans of {cost:?}");
        assert!(used <= elapsed * 11 / 100 + cost, "{used:?} of {elapsed:?} with scans of {cost:?}");
        schedule.note_event(A);
        assert!(due_after(&mut schedule, now, &[A]) <= (cost * TABLES).max(AT_MOST_EVERY), "regular scans go on");
    }
}

#[test]
fn few_ports_are_scanned_more_often_and_still_within_the_budget() {
    for (cost, expected) in [(1, 200), (500, 99_000)] {
        let (mut schedule, now) = scanned(&[A], millis(cost));
        schedule.hurry(&FxHashSet::from_iter([A]));
        let after = due_after(&mut schedule, now, &[A]);
        assert!(after >= millis(expected - 30) && after <= millis(expected), "{after:?} after a scan of {cost} ms");
    }
}

#[test]
fn whoever_begins_to_read_along_waits_for_ten_times_a_scan_at_most() {
    for (waiting, cost, pause) in [
        (Waiting::Begin, 1, 200),
        (Waiting::Begin, 100, 1_000),
        (Waiting::Begin, 1_000, 10_000),
        (Waiting::GoOn, 1, 1_000),
        (Waiting::GoOn, 1_000, 50_000),
    ] {
        let (mut schedule, now) = scanned(&[A, B], millis(1));
        schedule.begin_whole();
        schedule.end_whole(now, millis(cost));
        let due_after = |schedule: &Schedule, after| schedule.is_whole_due(now + millis(after));
        assert!(!due_after(&schedule, pause), "nobody waits");
        schedule.show(waiting);
        assert!(!due_after(&schedule, pause - 1) && due_after(&schedule, pause), "{waiting:?} after {cost} ms");
        schedule.begin_whole();
        schedule.end_whole(now, millis(cost));
        assert!(!due_after(&schedule, pause), "it has come");
    }
}

#[test]
fn a_whole_round_for_a_reader_takes_nothing_of_the_budgets_of_turns() {
    let after = |is_whole: bool| {
        let (mut schedule, now) = scanned(&[A], millis(1));
        if is_whole {
            schedule.begin_whole();
        }
        schedule.begin_table(A, now);
        schedule.end_table(A, now, millis(500));
        if is_whole {
            schedule.end_whole(now, millis(500));
        }
        schedule.note_event(A);
        due_after(&mut schedule, now, &[A])
    };
    assert_eq!(after(true), millis(1_000));
    assert!(after(false) > millis(40_000));
}

#[test]
fn of_equals_the_one_that_waits_longest_comes_first_and_those_with_events_before_others() {
    let (mut schedule, now) = scanned(&[A, B], millis(1));
    schedule.note_event(B);
    assert_eq!(schedule.due_tables(&[A, B], now + millis(1_500)), [B], "nothing happened in the other");
    schedule.begin_table(B, now);
    schedule.end_table(B, now + millis(1_500), millis(1));
    schedule.note_event(B);
    assert_eq!(schedule.due_tables(&[A, B], now + millis(6_000)), [A, B]);
}

#[test]
fn a_namespace_with_many_open_sockets_is_scanned_first_at_start() {
    let start = Instant::now();
    let mut schedule = Schedule::new(Scans::Regularly, start);
    schedule.note_held(B);
    assert_eq!(schedule.due_tables(&[A, B], start), [B, A]);
}

#[test]
fn a_difference_asks_for_a_scan_when_it_stays_without_events() {
    let is_due = |first: [i64; 2], has_event: bool, second: [i64; 2]| {
        let (mut schedule, now) = scanned(&[A, B], millis(1));
        schedule.compare(A, first);
        if has_event {
            schedule.note_event(A);
        }
        // What happens elsewhere says nothing of this.
        schedule.note_event(B);
        schedule.compare(A, second);
        schedule.due_tables(&[A], now + millis(999)) == [A]
    };
    assert!(is_due([3, 0], false, [3, 0]));
    assert!(!is_due([3, 0], true, [3, 0]), "events are under way");
    assert!(!is_due([0, 3], false, [0, 2]), "it moves");
    assert!(!is_due([0, 0], false, [0, 0]), "there is none");
}

#[test]
fn what_happens_ends_the_rest_of_namespaces_of_which_none_was_due() {
    let (mut schedule, now) = scanned(&[A], millis(1));
    assert!(schedule.due_tables(&[A], now + millis(500)).is_empty());
    assert_eq!(schedule.due_tables(&[A, B], now + millis(500)), [B], "a new one");
    schedule.note_event(A);
    assert_eq!(schedule.due_tables(&[A], now + millis(1_000)), [A]);
}

#[test]
fn hundreds_in_which_nothing_happens_have_fiftieths_of_a_second_between_their_turns() {
    let all: Vec<NetnsId> = (0..500).map(NetnsId).collect();
    let (mut schedule, now) = scanned(&all, Duration::from_micros(20));
    assert!(schedule.due_tables(&all, now + millis(9_990)).is_empty());
    assert_eq!(schedule.due_tables(&all, now + millis(10_000)).len(), 500);
}

#[test]
fn those_in_which_nothing_happens_leave_the_budget_to_the_others() {
    // A wants all of it.
    let (mut schedule, now) = scanned(&[B], millis(500));
    schedule.begin_table(A, now);
    schedule.end_table(A, now, millis(10));
    schedule.note_event(A);
    let is_due = |schedule: &mut Schedule, after| schedule.due_tables(&[A, B], now + millis(after)).contains(&B);
    assert!(!is_due(&mut schedule, 199_000) && is_due(&mut schedule, 200_000));
}

#[test]
fn an_fd_scan_that_failed_by_chance_comes_again_within_a_second() {
    let due_after = |has_failed: bool| {
        let (mut schedule, now) = scanned(&[A], millis(5));
        schedule.begin_files(now);
        schedule.end_files(now, millis(5), Payer::OpenFiles);
        if has_failed {
            schedule.ask_for_files();
        }
        (0..1_000).map(|step| millis(10 * step)).find(|after| schedule.are_files_due(now + *after, 0)).unwrap()
    };
    assert!(due_after(true) <= millis(1_000));
    assert_eq!(due_after(false), WHEN_QUIET);
}

#[test]
fn waiting_for_a_cpu_takes_nothing_of_the_budget() {
    let (stopwatch, (_sender, receiver)) = (Stopwatch::start(), std::sync::mpsc::channel::<()>());
    receiver.recv_timeout(millis(200)).unwrap_err();
    let (took, cpu) = (stopwatch.elapsed(), stopwatch.cpu());
    assert!(took >= millis(200) && cpu < millis(20), "{took:?}, {cpu:?} of a CPU");
    while stopwatch.cpu() < millis(30) {}
    assert!(stopwatch.cpu() >= millis(30), "work takes of it");
}

#[test]
fn whoever_waits_for_the_next_fd_scan_has_nothing_to_repair() {
    let (mut schedule, now) = scanned(&[A, B], millis(1));
    assert!(schedule.can_wait(A));
    schedule.note_event(A);
    schedule.ask_for(B);
    schedule.due_tables(&[A, B], now);
    assert!(!schedule.can_wait(A) && !schedule.can_wait(B));
    assert!(!schedule.can_wait(NetnsId(3)), "it was never scanned");
}

#[test]
fn many_new_namespaces_do_not_wait_for_the_turn_of_open_files() {
    let (mut schedule, now) = scanned(&[A], millis(500));
    schedule.begin_files(now);
    schedule.end_files(now, millis(500), Payer::OpenFiles);
    let many = WORTH_AN_FD_SCAN;
    assert!(!schedule.are_files_due(now, many - 1) && schedule.are_files_due(now, many));
}

#[test]
fn counts_that_prove_nothing_take_of_the_budget_of_tables() {
    let after = |cpu: Duration| {
        let (mut schedule, now) = scanned(&[A], millis(1));
        schedule.note_event(A);
        schedule.pay_for_tables(cpu);
        due_after(&mut schedule, now, &[A])
    };
    assert!(after(Duration::ZERO) <= millis(1_000) && after(millis(100)) >= millis(9_000));
}

#[test]
fn namespaces_are_counted_once_they_were_not_looked_at_for_long() {
    for has_event in [false, true] {
        let (mut schedule, now) = scanned(&[A, B], millis(500));
        let at = |after: u64| now + Duration::from_secs(after);
        if has_event {
            schedule.note_event(A);
        }
        assert!(schedule.due_counts(COUNT_AFTER, at(29)).is_empty());
        let waiting = schedule.due_counts(COUNT_AFTER, at(30));
        assert!(waiting.len() == 2 && waiting.contains(&A) && waiting.contains(&B));
        schedule.begin_count(A, at(30));
        schedule.begin_count(B, at(31));
        assert!(schedule.due_counts(COUNT_AFTER, at(59)).is_empty());
        assert_eq!(schedule.due_counts(COUNT_AFTER, at(60)), [A]);
        schedule.ask_for(A);
        assert!(schedule.due_counts(COUNT_AFTER, at(60)).is_empty(), "it has to be walked");
    }
    let now = Instant::now();
    let mut unscanned = Schedule::new(Scans::Regularly, now);
    unscanned.begin_count(A, now);
    assert!(unscanned.due_counts(COUNT_AFTER, now + Duration::from_mins(1)).is_empty(), "its first scan is a walk");
}

#[test]
fn a_namespace_in_which_something_happens_is_not_counted_again_soon_if_that_has_shown_nothing() {
    let (mut schedule, now) = scanned(&[A], millis(500));
    schedule.note_event(A);
    schedule.note_unprovable(A, now);
    assert!(schedule.due_counts(COUNT_AFTER, now + WALK_AT_LATEST.saturating_sub(millis(1))).is_empty());
    assert_eq!(schedule.due_counts(COUNT_AFTER, now + WALK_AT_LATEST), [A]);
    schedule.hurry(&FxHashSet::from_iter([A]));
    assert!(schedule.due_counts(COUNT_AFTER, now + WALK_AT_LATEST).is_empty(), "its walk comes soon");
}

#[test]
fn of_many_namespaces_those_that_waited_longest_are_counted_and_not_all_at_once() {
    let all: Vec<NetnsId> = (0..2_000).map(NetnsId).collect();
    let (mut schedule, now) = scanned(&all, Duration::from_micros(20));
    for netns in &all[..1_500] {
        schedule.begin_count(*netns, now + millis(1));
    }
    assert!(schedule.due_counts(COUNT_AFTER, now + Duration::from_secs(39)).is_empty(), "20 ms for each");
    let mut first = schedule.due_counts(COUNT_AFTER, now + Duration::from_secs(41));
    first.sort_unstable();
    assert_eq!(first, all[1_500..]);
}

#[test]
fn walks_of_namespaces_that_counts_have_shown_unchanged_leave_the_rest_of_the_budget() {
    let due = |is_unchanged: bool, has_event: bool| {
        let (mut schedule, now) = scanned(&[A], millis(500));
        schedule.begin_count(A, now);
        if is_unchanged {
            assert!(schedule.note_unchanged(A, now));
        }
        if has_event {
            schedule.note_event(A);
        }
        due_after(&mut schedule, now, &[A])
    };
    assert_eq!(due(false, false), millis(500) * TABLES);
    assert_eq!(due(true, false), millis(500) * 400);
    assert_eq!(due(true, true), due(false, true), "what happens is looked at as soon");
    let (mut schedule, now) = scanned(&[A], millis(500));
    schedule.note_event(A);
    assert_eq!(due(false, true), due_after(&mut schedule, now, &[A]), "counts put no walk off");
}

#[test]
fn namespaces_that_are_unchanged_make_none_wait_that_has_to_be_walked() {
    let all: Vec<NetnsId> = (1..=100).map(NetnsId).collect();
    let (mut schedule, now) = scanned(&all, millis(8));
    assert_eq!(due_after(&mut schedule, now, &all), millis(800) * TABLES, "800 ms at 0.5 % of a CPU");
    for netns in &all[1..] {
        schedule.begin_count(*netns, now);
        schedule.note_unchanged(*netns, now);
    }
    assert_eq!(due_after(&mut schedule, now, &all), WHEN_QUIET);
}

#[test]
fn after_a_loss_counts_show_nothing_before_the_next_walk() {
    let (mut schedule, now) = scanned(&[A], millis(1));
    assert!(schedule.note_unchanged(A, now));
    assert!(!schedule.note_unchanged(A, now + millis(1)), "lost after its last scan");
    schedule.ask(Cause::Doubt);
    assert!(!schedule.note_unchanged(A, now), "a scan was requested");
}

#[test]
fn a_walk_can_be_spared_after_few_missed_runs_and_not_after_more() {
    let (mut schedule, now) = scanned(&[A, B], millis(500));
    schedule.note_event(A);
    assert_eq!(schedule.repair_takes(A), None, "nothing was missed");
    schedule.ask(Cause::MissedRuns);
    assert_eq!(schedule.events_of(A), 1);
    let takes = (schedule.repair_takes(A), schedule.repair_takes(B));
    assert_eq!(takes, (Some(millis(500)), None), "nothing happened in B");
    assert!(due_after(&mut schedule, now, &[A, B]) <= Duration::from_secs(1));
    schedule.spare_repair(A);
    assert_eq!(schedule.repair_takes(A), None);
    assert!(due_after(&mut schedule, now, &[A]) > Duration::from_mins(1), "the next one is a regular one");
    for more in [Cause::MissedRuns, Cause::Doubt] {
        schedule.ask(Cause::MissedRuns);
        assert!(schedule.repair_takes(A).is_some());
        schedule.ask(more);
        assert_eq!(schedule.repair_takes(A), None, "one loss may hide another");
        schedule.spare_repair(A);
    }
    schedule.ask_for(A);
    assert_eq!(schedule.repair_takes(A), None, "its own counts have been compared");
}

#[test]
fn an_fd_scan_stands_in_for_walks_for_minutes_and_never_where_one_was_asked_for() {
    let (mut schedule, walked) = scanned(&[A], millis(500));
    assert!(!schedule.may_spare(B, walked), "it was never walked");
    let mut now = walked;
    let mut spared = 0;
    loop {
        schedule.note_event(A);
        now += due_after(&mut schedule, now, &[A]);
        if !schedule.may_spare(A, now) {
            break;
        }
        let events = schedule.events_of(A);
        schedule.begin_files(now);
        schedule.end_files(now, millis(250), Payer::Tables);
        assert!(schedule.spare(A, now, events, walked));
        assert!(schedule.due_tables(&[A], now + millis(999)).is_empty(), "its turn is over");
        spared += 1;
    }
    // Half a second of a CPU each time, of one part in 200, would be 100 seconds: these take half of it.
    assert_eq!(spared, 5);
    assert!(now - walked >= WALK_AT_LATEST);

    let is_spared = |change: fn(&mut Schedule, Instant), since: Duration| {
        let (mut schedule, now) = scanned(&[A], millis(1));
        schedule.note_event(A);
        change(&mut schedule, now);
        let events = schedule.events_of(A);
        schedule.spare(A, now, events, now + since)
    };
    assert!(is_spared(|_, _| {}, Duration::ZERO));
    assert!(!is_spared(|_, _| {}, millis(1)), "something was lost since the walk");
    assert!(!is_spared(|schedule, _| schedule.ask(Cause::Doubt), Duration::ZERO));
    assert!(!is_spared(|schedule, _| schedule.ask_for(A), Duration::ZERO));
    assert!(!is_spared(|schedule, _| schedule.hurry(&FxHashSet::from_iter([A])), Duration::ZERO));
    assert!(!is_spared(|schedule, now| schedule.note_unprovable(A, now), Duration::ZERO), "it was tried in vain");
}

#[test]
fn events_that_come_while_an_fd_scan_stands_in_for_a_walk_make_the_next_one_due() {
    let (mut schedule, now) = scanned(&[A], millis(1));
    schedule.note_event(A);
    let events = schedule.events_of(A);
    schedule.note_event(A);
    assert!(schedule.spare(A, now, events, now));
    assert_eq!(schedule.due_tables(&[A], now + AT_MOST_EVERY), [A]);
    let events = schedule.events_of(A);
    assert!(schedule.spare(A, now, events, now));
    assert!(schedule.due_tables(&[A], now + AT_MOST_EVERY).is_empty());
}
