//! Ranking and forecasts.

use super::LimitKind::{Conntrack, HostFiles, Orphans, Ports, ProcessFiles, SocketMemory, TcpMemory, TimeWait};
use super::*;

fn limit(kind: LimitKind, used: u64, maximum: u64, slope: Option<f64>) -> Limit {
    let lifetime = super::forecast::lifetime(kind, None);
    Limit { slope, lifetime, ..Limit::for_test(kind, Scope::Host, used, maximum) }
}

#[test]
fn the_time_to_full_follows_from_the_slope() {
    let time = |used, slope| limit(Orphans, used, 100, slope).time_to_full();
    assert_eq!(time(50, Some(0.5)), Some(Duration::from_secs(100)));
    assert_eq!(time(100, None), Some(Duration::ZERO), "it is full");
    assert_eq!(time(130, Some(-1.0)), Some(Duration::ZERO), "it is beyond full");
    for never in [None, Some(0.0), Some(-3.0), Some(1e-9), Some(f64::NAN), Some(1e-300)] {
        assert_eq!(time(50, never), None, "{never:?}");
    }
}

#[test]
fn the_level_comes_first_then_what_is_full_soon_then_the_fullest() {
    let mut limits = [
        limit(HostFiles, 90, 100, None),
        limit(Orphans, 99, 100, Some(-1.0)),
        limit(TcpMemory, 1, 100, Some(1.0)),
        limit(TimeWait, 100, 100, None),
        limit(Conntrack, 5, 1_000_000, Some(0.5)),
        limit(SocketMemory, 79, 100, None),
        limit(Ports, 10, 100, Some(3.0)),
    ];
    limits.sort_by(Limit::by_urgency);
    let order = limits.map(|limit| limit.kind);
    let expected = [TimeWait, Orphans, HostFiles, Ports, TcpMemory, SocketMemory, Conntrack];
    assert_eq!(order, expected, "1 % that rises stands below 90 % that does not; weeks away is not soon");
}

#[test]
fn within_a_level_what_is_full_soon_comes_first() {
    let mut limits = [limit(Orphans, 94, 100, None), limit(TcpMemory, 81, 100, Some(1.0))];
    limits.sort_by(Limit::by_urgency);
    assert_eq!(limits.map(|limit| limit.kind), [TcpMemory, Orphans]);
}

#[test]
fn more_than_the_maximum_has_a_reason() {
    let excess = |used, maximum| limit(ProcessFiles, used, maximum, None).excess();
    assert_eq!(excess(49, 48), Some("the limit was lowered after they were opened"));
    assert_eq!(excess(48, 48), None);
    assert_eq!(excess(48, u64::MAX), None);
}

#[test]
fn a_limit_without_room_is_full() {
    let none = limit(Ports, 0, 0, None);
    assert!((none.ratio() - 1.0).abs() < f64::EPSILON);
    assert_eq!(none.time_to_full(), Some(Duration::ZERO));
}

#[test]
fn every_kind_says_where_it_comes_from_and_what_to_do() {
    for kind in LimitKind::ALL {
        let about = About::of(kind);
        assert_eq!(about.kind, kind);
        for words in [about.id, about.name, about.unit, about.source, about.refusal, about.remedy, about.risk] {
            assert!(!words.is_empty(), "{kind:?}");
        }
    }
}
