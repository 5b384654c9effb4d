//! The end of TIME_WAIT sockets. No event shows it. Scans do, and on a host with very many of them a scan of each namespace takes
//! minutes to come round: what the kernel's timer has ended by then must not count for so long.

use std::{collections::VecDeque, time::Duration};

use super::{
    Model,
    minisocks::Minisock,
    units::{TIME_WAIT_LASTS, TcpState},
};

/// The kernel's timer wheel ends no timer early, and one of a minute by up to 512 of its ticks late: 5.12 s where a second has
/// 100 (kernel/time/timer.c). Beginnings are known to the second.
const AT_LATEST: Duration = Duration::from_secs(TIME_WAIT_LASTS.as_secs() + 7);
/// In FIN_WAIT2 without a full socket, one lasts a minute at most, and a remote peer's FIN makes it a TIME_WAIT socket without an event.
const FIN_WAIT2_AT_LATEST: Duration = Duration::from_secs(TIME_WAIT_LASTS.as_secs() + AT_LATEST.as_secs());
/// Where the beginnings of two sockets in one row of the table are further apart, they are two: the row was used again.
const SAME: u32 = 2;
/// More than this, and than twice as many as there are sockets, are mostly of sockets that ended otherwise.
const FEW: usize = 4_096;

/// When minisocks began, in seconds of `CLOCK_MONOTONIC`, with their rows in the table; nearly in this order.
#[derive(Default)]
struct Beginnings(VecDeque<(u32, u32)>);

impl Beginnings {
    /// Forgets those that `is_left` does not name, if they have become many.
    fn tidy(&mut self, sockets: usize, is_left: impl Fn(u32, u32) -> bool) {
        if self.0.len() > FEW + 2 * sockets {
            self.0.retain(|(began_s, index)| is_left(*began_s, *index));
            self.0.shrink_to(2 * self.0.len());
        }
    }

    fn next_before(&mut self, began_s: u32) -> Option<(u32, u32)> {
        self.0.pop_front_if(|(began, _)| *began < began_s)
    }
}

/// What is to end.
#[derive(Default)]
pub(super) struct MinisockEnds {
    time_wait: Beginnings,
    fin_wait2: Beginnings,
}

impl MinisockEnds {
    /// Takes note of one that is new, or in another state than before, at `now` of `CLOCK_MONOTONIC`. If a scan shows one that should
    /// have ended, its timer was started again: scans alone show how long it stays.
    pub(super) fn add(&mut self, index: u32, minisock: &Minisock, now: Duration) {
        let (beginnings, lasts) = match minisock.state {
            TcpState::TimeWait => (&mut self.time_wait, AT_LATEST),
            TcpState::FinWait2 => (&mut self.fin_wait2, FIN_WAIT2_AT_LATEST),
            _ => return,
        };
        if minisock.began().is_some_and(|began| now < began + lasts) {
            beginnings.0.push_back((minisock.began_s, index));
        }
    }

    /// One whose timer has ended by `now` of `CLOCK_MONOTONIC` at the latest: its state, when it began, and its row in the table.
    fn next_ended(&mut self, now: Duration) -> Option<(TcpState, u32, u32)> {
        let before = |lasts: Duration| u32::try_from(now.saturating_sub(lasts).as_secs()).unwrap_or(u32::MAX);
        let of = |state| move |(began_s, index)| (state, began_s, index);
        let time_wait = self.time_wait.next_before(before(AT_LATEST)).map(of(TcpState::TimeWait));
        time_wait.or_else(|| self.fin_wait2.next_before(before(FIN_WAIT2_AT_LATEST)).map(of(TcpState::FinWait2)))
    }

    /// Once a second. `find` gives a row of the table of `sockets`.
    pub(super) fn tidy<'a>(&mut self, sockets: usize, find: impl Fn(u32) -> Option<&'a Minisock>) {
        let is_left = |state| {
            let find = &find;
            move |began_s, index| find(index).is_some_and(|it| is_that(it, state, began_s))
        };
        self.time_wait.tidy(sockets, is_left(TcpState::TimeWait));
        self.fin_wait2.tidy(sockets, is_left(TcpState::FinWait2));
    }
}

/// Whether a row of the table has the socket that began then.
const fn is_that(minisock: &Minisock, state: TcpState, began_s: u32) -> bool {
    minisock.state as u8 == state as u8 && minisock.began_s <= began_s.saturating_add(SAME)
}

impl Model {
    /// Once a second: removes what the kernel's timer has ended. A segment that came meanwhile may have started the timer again: then
    /// a scan adds the socket again.
    pub(super) fn end_old_minisocks(&mut self) {
        if self.basis.started_at.is_none() {
            return;
        }
        let now = self.basis.monotonic(self.now);
        let mut has_ended = false;
        while let Some((state, began_s, index)) = self.minisock_ends.next_ended(now) {
            has_ended |= self.end_minisock(index, state, began_s);
        }
        if has_ended {
            self.shrink_minisocks();
        }
        let Self { minisocks, minisock_ends, .. } = self;
        minisock_ends.tidy(minisocks.len(), |index| minisocks.find_row(index));
    }

    /// Ends it, if it is still there.
    fn end_minisock(&mut self, index: u32, state: TcpState, began_s: u32) -> bool {
        let is_there = self.minisocks.get_mut(index).is_some_and(|it| is_that(it, state, began_s));
        if is_there {
            self.remove_minisock(index);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Basis,
        device::Device,
        event::{Binding, Event, Found, Identity},
        namespace::NamespaceReading,
        units::{FourTuple, NetnsId, SocketId},
    };

    const NETNS: NetnsId = NetnsId(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn client(port: u16) -> Identity {
        let ip = |last| [10, 0, 0, last].into();
        let tuple = FourTuple { local_ip: ip(5), local_port: port, remote_ip: ip(9), remote_port: 81 };
        Identity { id: SocketId(port.into()), netns: NETNS, tuple, device: Device::NONE, cgroup: None }
    }

    /// A client's whole life at a time. `is_orphan`: its process closes before its peer.
    fn live_and_close(model: &mut Model, port: u16, at: Duration, is_orphan: bool) {
        use TcpState::{Closed, Established, FinWait1, FinWait2, SynSent};
        for (old, new) in [(Closed, SynSent), (SynSent, Established), (Established, FinWait1), (FinWait1, FinWait2)] {
            model.apply(&Event::change(client(port), at, old, new, None), at);
        }
        if is_orphan {
            model.set_orphan(client(port).id);
        }
        model.apply(&Event::change(client(port), at, FinWait2, Closed, None), at);
    }

    fn model() -> Model {
        let mut model = Model::new(Vec::new(), Basis { started_at: Some(Duration::ZERO), ..Basis::default() });
        model.set_namespace(NETNS, NamespaceReading::default());
        model.begin_scan(NETNS, Duration::ZERO);
        model.end_scan(Duration::ZERO);
        model
    }

    /// How many there are after the tick of this second.
    fn left(model: &mut Model, at: u64) -> u32 {
        model.tick(seconds(at));
        model.kernel_totals().get(&NETNS).map_or(0, |totals| totals[1])
    }

    #[test]
    fn a_time_wait_socket_ends_when_the_kernels_timer_has_ended_it_for_certain() {
        let mut model = model();
        live_and_close(&mut model, 40_000, seconds(10), false);
        assert_eq!((left(&mut model, 76), left(&mut model, 78)), (1, 0));
    }

    #[test]
    fn in_fin_wait_2_the_end_of_the_peer_may_have_come_unseen() {
        let mut model = model();
        live_and_close(&mut model, 40_000, seconds(10), true);
        assert_eq!((left(&mut model, 136), left(&mut model, 138)), (1, 0));
    }

    #[test]
    fn whoever_follows_in_the_row_of_the_table_has_its_own_time() {
        let mut model = model();
        live_and_close(&mut model, 40_000, seconds(10), false);
        // The same four-tuple, and then another in the same row.
        model.apply(
            &Event::change(client(40_000), seconds(40), TcpState::SynSent, TcpState::Established, None),
            seconds(40),
        );
        assert_eq!(left(&mut model, 40), 0);
        live_and_close(&mut model, 40_001, seconds(41), false);
        assert_eq!((left(&mut model, 80), left(&mut model, 107), left(&mut model, 109)), (1, 1, 0));
    }

    #[test]
    fn one_that_a_scan_still_shows_then_stays_until_a_scan_does_not() {
        let mut model = model();
        let began = Some(seconds(10));
        for (at, is_shown) in [(20, true), (90, true), (95, false)] {
            model.begin_scan(NETNS, seconds(at));
            let state = Found::TimeWait { substate: TcpState::TimeWait, since: began, began };
            let found = Event::Scanned { socket: client(40_000), state, binding: Binding::default(), orphan: false };
            if is_shown {
                model.apply(&found, seconds(at));
            }
            model.end_scan(seconds(at));
            assert_eq!(left(&mut model, at + 1), u32::from(is_shown), "after the scan at {at}");
            if at == 20 {
                assert_eq!(left(&mut model, 78), 0);
            }
        }
    }

    #[test]
    fn where_the_kernels_clock_is_not_known_scans_alone_end_them() {
        let mut model = Model::new(Vec::new(), Basis::default());
        live_and_close(&mut model, 40_000, seconds(10), false);
        assert_eq!(left(&mut model, 1_000), 1);
    }

    #[test]
    fn what_is_kept_of_sockets_that_ended_otherwise_is_bounded() {
        let mut model = model();
        for round in 0..5 {
            for port in 0..2_000 {
                live_and_close(&mut model, 40_000 + port, seconds(10 + round), false);
                let taken_over = Event::change(
                    client(40_000 + port),
                    seconds(10 + round),
                    TcpState::SynSent,
                    TcpState::Established,
                    None,
                );
                model.apply(&taken_over, seconds(10 + round));
            }
            assert_eq!(left(&mut model, 10 + round), 0);
            assert!(model.minisock_ends.time_wait.0.len() <= FEW, "after round {round}");
        }
    }
}
