//! Totals after a reset.

use std::time::{Duration, SystemTime};

use super::{change, socket};
use crate::model::{Model, units::TcpState};

#[test]
fn a_reset_changes_totals_and_peaks_and_nothing_else() {
    let mut model = Model::default();
    let now = Duration::from_secs(5);
    let state = |n, old, new| change(socket(1, n, None), now, old, new);
    for n in 1..=3 {
        model.apply(&state(n, TcpState::SynReceived, TcpState::Established), now);
    }
    model.apply(&state(1, TcpState::Established, TcpState::Closed), now);
    model.tick(now);
    model.restart_totals(now);
    model.apply(&state(4, TcpState::SynReceived, TcpState::Established), now);
    let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, now, 1);
    let totals = snapshot.totals;
    assert_eq!((totals.sockets, totals.peak_sockets, totals.counted_since), (3, 3, now));
    assert_eq!((totals.opened_total, totals.closed_total), (1, 0));
    // The rate is that of the second before, and of the next one.
    assert!((totals.opened_per_second - 0.6).abs() < 1e-9);
    assert_eq!((snapshot.endpoints[0].peak, snapshot.endpoints[0].opened_total), (3, 1));
    model.tick(now + Duration::from_secs(1));
    let next = model.snapshot(SystemTime::UNIX_EPOCH, now, 1).totals;
    assert!((next.opened_per_second - 1.0).abs() < 1e-9 && next.closed_per_second == 0.0);
    assert_eq!(model.events_total(), 5, "what was seen stays seen");
}
