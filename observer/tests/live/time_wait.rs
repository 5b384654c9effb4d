//! The end of TIME_WAIT sockets, which no event shows.

use std::{future::pending, time::Duration};

use observer::model::snapshot::Snapshot;

use crate::{
    ss::sockets_in,
    support::{Pairs, eventually, eventually_within, in_private_netns, observe, outbound},
};

#[test]
fn it_comes_without_a_scan_once_the_kernels_timer_has_ended_it() {
    /// A minute, what the timer wheel adds, and as long for a machine that is busy.
    const ENDED_BY: Duration = Duration::from_mins(3);
    const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
    in_private_netns(|| {
        let mut engine = observe();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 20);
        pairs.clients.clear();
        pairs.accepted.clear();
        let of_model = |snapshot: &Snapshot| {
            outbound(snapshot, "127.0.0.1").map_or(0, |row| row.destinations.iter().map(|it| it.time_wait).sum())
        };
        eventually(&mut engine, "20 in TIME_WAIT", |snapshot| (of_model(snapshot) == 20).then_some(()));
        assert_eq!(sockets_in("time-wait"), 20);
        // Other tests need the CPU meanwhile.
        let rest = engine.rest().unwrap();
        eventually_within(ENDED_BY, &mut engine, "the end of TIME_WAIT", |snapshot| {
            let has_ended = of_model(snapshot) == 0;
            if !has_ended {
                let _ = rest.wait(BETWEEN_LOOKS, pending::<()>());
            }
            has_ended.then_some(())
        });
        assert_eq!(sockets_in("time-wait"), 0, "the model must not be first");
    });
}
