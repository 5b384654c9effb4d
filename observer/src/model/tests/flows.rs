//! Connections by namespace: totals that exports take for counters.

use std::time::{Duration, SystemTime};

use super::{change, socket};
use crate::model::{
    Model,
    address::Direction,
    event::Event,
    snapshot::FlowRow,
    units::{NetnsId, TcpState},
};

fn state(netns: u32, n: u64, old: TcpState, new: TcpState, at: Duration) -> Event {
    change(socket(netns, n, None), at, old, new)
}

fn flows(model: &mut Model, now: Duration) -> Vec<(u32, u64, u64)> {
    let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, now, 1);
    let row = |row: &FlowRow| {
        assert_eq!((row.direction, row.failed_total), (Direction::Inbound, 0));
        (row.netns.0, row.opened_total, row.closed_total)
    };
    snapshot.flows.iter().map(row).collect()
}

#[test]
fn a_total_of_a_namespace_outlives_the_rows_that_it_counted_and_ends_with_the_namespace() {
    use TcpState::{Closed, Established, SynReceived};
    let mut model = Model::default();
    let (start, later) = (Duration::from_secs(5), Duration::from_mins(5));
    for (netns, n) in [(1, 1), (1, 2), (2, 3)] {
        model.apply(&state(netns, n, SynReceived, Established, start), start);
        model.apply(&state(netns, n, Established, Closed, start), start);
    }
    assert_eq!(flows(&mut model, start), [(1, 2, 2), (2, 1, 1)]);

    model.tick(later);
    assert!(model.snapshot(SystemTime::UNIX_EPOCH, later, 1).endpoints.is_empty(), "the rows are gone");
    model.apply(&state(1, 4, SynReceived, Established, later), later);
    assert_eq!(flows(&mut model, later), [(1, 3, 2), (2, 1, 1)]);

    model.forget_namespace(NetnsId(2));
    assert_eq!(flows(&mut model, later), [(1, 3, 2)]);
    model.restart_totals(later);
    assert_eq!(flows(&mut model, later), [(1, 0, 0)]);
}
