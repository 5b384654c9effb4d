//! What listeners drop, and why. The kernel counts overflows of accept queues for a whole namespace
//! (`TcpExt: ListenOverflows`) and discarded segments for each listener (`sk_drops`), whatever the reason: a SYN that a
//! health check answers with RST is one, with empty queues. Only both together accuse a listener.
//!
//! The two are read at different moments. What the kernel has counted is therefore kept until a scan that began after
//! the reading has shown which listeners discarded segments since the reading before.

use std::time::Duration;

use super::{
    Diagnosis, Model,
    address::Local,
    failure::{Failed, FailureKey, FailureKind},
    reading::ListenCounters,
    units::{NetnsId, Queues, SocketId},
};

/// Of one listener.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListenerDrops {
    /// Seen by scans since the last reading of the namespace.
    recent: Seen,
    /// Seen by scans before it, and not settled yet.
    earlier: Seen,
    /// Overflows of its accept queue since observer started.
    pub(super) overflows: u64,
    /// SYNs that found its SYN queue full since observer started: dropped, or answered with a cookie.
    pub(super) syn_queue_full: u64,
    /// When its accept queue was last known to overflow.
    pub(super) overflowed_at: Option<Duration>,
}

/// What scans have seen of a listener.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Segments that it discarded.
    discarded: u64,
    /// Its accept queue was above its limit.
    accept_full: bool,
    /// Its SYN queue was at its limit.
    syn_full: bool,
    /// Its SYN queue was at what `tcp_max_syn_backlog` allows without cookies, and not at its own limit.
    syn_capped: bool,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.discarded += other.discarded;
        self.accept_full |= other.accept_full;
        self.syn_full |= other.syn_full;
        self.syn_capped |= other.syn_capped;
    }
}

impl ListenerDrops {
    fn seen(&self) -> Seen {
        let mut seen = self.earlier;
        seen.add(self.recent);
        seen
    }

    /// `count` of the discarded segments are explained.
    fn settle(&mut self, count: u64) {
        let from_earlier = count.min(self.earlier.discarded);
        self.earlier.discarded -= from_earlier;
        self.recent.discarded = self.recent.discarded.saturating_sub(count - from_earlier);
    }

    /// Takes note of what a scan has found, given what the one before had found.
    fn note(&mut self, queues: Queues, discarded: u64, most_unproven: Option<u64>) {
        // The kernel asks whether the accept queue is above its limit (`sk_acceptq_is_full`); the SYN queue is full at its
        // limit, and above it since 6.13 (`inet_csk_reqsk_queue_is_full`).
        let (accept_full, syn_full) = (queues.accept > queues.limit, queues.syn >= queues.limit);
        let syn_capped = !syn_full && most_unproven.is_some_and(|most| u64::from(queues.syn) >= most);
        self.recent.add(Seen { discarded, accept_full, syn_full, syn_capped });
    }
}

/// Of a namespace: what the kernel has counted and no listener answers for yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsettled {
    overflows: u64,
    syn_queue_drops: u64,
    /// Without cookies: dropped segments that only `ListenDrops` counts.
    other_drops: u64,
    syn_cookies: u64,
    /// It was read since the last settlement.
    is_read: bool,
    /// A listener ended since the reading before the last one, and what it discarded is not known.
    ended_recently: bool,
    ended_earlier: bool,
}

/// What a listener dropped segments for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// `ListenOverflows`
    AcceptQueue,
    /// `TCPReqQFullDrop`
    SynQueue,
    /// `tcp_max_syn_backlog`, without cookies: the rest of `ListenDrops`.
    SynBacklog,
}

/// One of those that may be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    discarded: u64,
    was_full: bool,
}

/// Shares `counted` out among listeners: to the only one that discarded segments, else to those whose queue was seen
/// full, and never more than each has discarded. `others` may be the cause too, and cannot be asked.
fn share(counted: u64, suspects: &[Suspect], others: bool) -> Vec<u64> {
    let mut with_discards = suspects.iter().filter(|it| it.discarded > 0);
    let is_alone = with_discards.next().is_some() && with_discards.next().is_none() && !others;
    let weights = suspects.iter().map(|it| if is_alone || it.was_full { it.discarded } else { 0 });
    let weights: Vec<u64> = weights.collect();
    let total: u64 = weights.iter().sum();
    let mut rest = counted.min(total);
    let given = rest;
    let mut shares: Vec<u64> = weights.iter().map(|weight| part(*weight, given, total)).collect();
    rest -= shares.iter().sum::<u64>();
    // What rounding down has left over.
    for (share, weight) in shares.iter_mut().zip(&weights) {
        let more = rest.min(weight - *share).min(1);
        *share += more;
        rest -= more;
    }
    shares
}

/// `weight` of `total`, as a part of `given`.
fn part(weight: u64, given: u64, total: u64) -> u64 {
    let part = u128::from(weight) * u128::from(given) / u128::from(total.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

fn grown(before: Option<u64>, after: Option<u64>) -> u64 {
    before.zip(after).map_or(0, |(before, after)| after.saturating_sub(before))
}

impl Model {
    /// What a scan has found of a listener's queues.
    pub(super) fn note_queues(&mut self, id: SocketId, netns: NetnsId, queues: Queues) {
        let most_unproven = self.readings.namespaces.get(&netns).and_then(|it| it.reading.most_unproven_requests());
        let Some(listener) = self.listeners.get_mut(id).filter(|listener| listener.netns == netns) else { return };
        let known = match listener.queues.replace(queues) {
            Some(before) => before.drops,
            // What it discarded before observer came is no news.
            None if listener.is_older => queues.drops,
            None => 0,
        };
        listener.drops.note(queues, queues.drops.wrapping_sub(known).into(), most_unproven);
    }

    /// What the kernel has counted at the listeners of a namespace since the reading before this one.
    pub(super) fn note_listen_counters(&mut self, netns: NetnsId, old: ListenCounters, cookies_before: Option<u8>) {
        let Some(namespace) = self.readings.namespaces.get_mut(&netns) else { return };
        let new = namespace.reading.listen;
        // With tcp_syncookies 2 every SYN is answered with a cookie: that says nothing of a queue.
        let cookies_mean_a_full_queue = namespace.reading.tcp_syncookies != Some(2) && cookies_before != Some(2);
        let has_no_cookies = cookies_before == Some(0) && namespace.reading.most_unproven_requests().is_some();
        let unsettled = &mut namespace.unsettled;
        let overflows = grown(old.overflows, new.overflows);
        let syn_queue_drops = grown(old.syn_queue_drops, new.syn_queue_drops);
        unsettled.overflows += overflows;
        unsettled.syn_queue_drops += syn_queue_drops;
        if has_no_cookies {
            unsettled.other_drops += grown(old.drops, new.drops).saturating_sub(overflows + syn_queue_drops);
        }
        if cookies_mean_a_full_queue {
            unsettled.syn_cookies += grown(old.syn_cookies, new.syn_cookies);
        }
        unsettled.is_read = true;
        unsettled.ended_earlier |= std::mem::take(&mut unsettled.ended_recently);
        let is_open = unsettled.overflows + unsettled.syn_queue_drops + unsettled.other_drops + unsettled.syn_cookies;
        if is_open > 0 {
            self.wanted_scans.insert(netns);
        }
        self.listeners.change_in_namespace(netns, |listener| {
            let recent = std::mem::take(&mut listener.drops.recent);
            listener.drops.earlier.add(recent);
        });
    }

    /// A listener is gone: what it discarded since the last scan will never be known.
    pub(super) fn note_end_of_listener(&mut self, netns: NetnsId) {
        if let Some(namespace) = self.readings.namespaces.get_mut(&netns) {
            namespace.unsettled.ended_recently = true;
        }
    }

    /// A scan has shown every listener of the namespace: what the kernel had counted by the last reading is theirs.
    pub(super) fn settle_listen_drops(&mut self, netns: NetnsId) {
        let Some(namespace) = self.readings.namespaces.get_mut(&netns) else { return };
        if !namespace.unsettled.is_read {
            return;
        }
        let Unsettled { overflows, syn_queue_drops, other_drops, syn_cookies, ended_recently, ended_earlier, .. } =
            namespace.unsettled;
        namespace.unsettled = Unsettled { ended_recently, ..Unsettled::default() };
        let others = ended_recently || ended_earlier;
        self.settle_kind(netns, overflows, Cause::AcceptQueue, others);
        self.settle_kind(netns, syn_queue_drops, Cause::SynQueue, others);
        self.settle_kind(netns, other_drops, Cause::SynBacklog, others);
        self.settle_cookies(netns, syn_cookies, others);
        self.listeners.change_in_namespace(netns, |listener| listener.drops.earlier = Seen::default());
    }

    fn settle_kind(&mut self, netns: NetnsId, counted: u64, cause: Cause, others: bool) {
        if counted == 0 {
            return;
        }
        let Self { listeners, ledger, diagnosis: Diagnosis { failures, .. }, now, .. } = self;
        let is_accept = cause == Cause::AcceptQueue;
        let kind = if is_accept { FailureKind::AcceptQueue } else { FailureKind::SynQueue };
        // A listener drops segments for many reasons: without a full queue these are no news.
        let is_vague = cause == Cause::SynBacklog;
        let suspect = |seen: Seen| {
            let Seen { discarded, accept_full, syn_full, syn_capped } = seen;
            let was_full = match cause {
                Cause::AcceptQueue => accept_full,
                Cause::SynQueue => syn_full,
                Cause::SynBacklog => syn_capped,
            };
            Suspect { discarded, was_full }
        };
        let all = listeners.of_namespace(netns);
        let (all, suspects): (Vec<_>, Vec<_>) = all.map(|(id, listener)| (id, suspect(listener.drops.seen()))).unzip();
        let shares = share(counted, &suspects, others || is_vague);
        for (id, share) in all.into_iter().zip(&shares).filter(|(_, share)| **share > 0) {
            let Some(listener) = listeners.get_mut(id) else { continue };
            listener.drops.settle(*share);
            if is_accept {
                listener.drops.overflows += share;
                listener.drops.overflowed_at = Some(*now);
            } else {
                listener.drops.syn_queue_full += share;
            }
            let key = FailureKey {
                process: listener.process,
                member: ledger.members().member(listener.member),
                local: Some(Local { ip: listener.ip, port: listener.port, device: listener.device }),
                ..FailureKey::by_kernel(kind, netns)
            };
            ledger.note_failures(listener.member, *share, *now);
            failures.add(key, *share, *now, listener.queues.map_or(Failed::Unknown, Failed::Queues));
        }
        let rest = if is_vague { 0 } else { counted - shares.iter().sum::<u64>() };
        failures.add(FailureKey::by_kernel(kind, netns), rest, *now, Failed::Unknown);
    }

    /// A cookie discards nothing: only the queue itself shows whose it was. It refuses nobody, and is no failure.
    fn settle_cookies(&mut self, netns: NetnsId, cookies: u64, others: bool) {
        if cookies == 0 {
            return;
        }
        let is_only = self.listeners.of_namespace(netns).count() == 1 && !others;
        let suspects = self.listeners.of_namespace(netns);
        let suspects = suspects.filter(|(_, listener)| is_only || listener.drops.seen().syn_full);
        let suspects: Vec<SocketId> = suspects.map(|(id, _)| id).collect();
        if let [id] = suspects[..]
            && let Some(listener) = self.listeners.get_mut(id)
        {
            listener.drops.syn_queue_full += cookies;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspects(all: &[(u64, bool)]) -> Vec<Suspect> {
        all.iter().map(|(discarded, was_full)| Suspect { discarded: *discarded, was_full: *was_full }).collect()
    }

    #[test]
    fn the_only_listener_that_discarded_segments_overflowed() {
        assert_eq!(share(5, &suspects(&[(0, false), (7, false), (0, true)]), false), [0, 5, 0]);
        assert_eq!(share(5, &suspects(&[(3, false)]), false), [3], "the rest is somebody else's");
        assert_eq!(share(5, &suspects(&[(7, false)]), true), [0], "one that is gone may be the cause");
        assert_eq!(share(5, &suspects(&[(7, true)]), true), [5]);
    }

    #[test]
    fn of_several_those_overflowed_whose_queue_was_full() {
        assert_eq!(share(5, &suspects(&[(9, false), (7, true)]), false), [0, 5]);
        assert_eq!(share(5, &suspects(&[(9, false), (7, false)]), false), [0, 0], "nobody is accused");
    }

    #[test]
    fn never_more_is_shared_out_than_was_counted() {
        for counted in 0..40 {
            for all in [
                [(3, true), (5, true), (7, true)],
                [(1, true), (1, true), (1, true)],
                [(0, true), (9, false), (2, true)],
            ] {
                let shares = share(counted, &suspects(&all), false);
                assert!(shares.iter().sum::<u64>() <= counted, "{counted}: {shares:?}");
                assert!(shares.iter().zip(&all).all(|(share, (discarded, _))| share <= discarded), "{shares:?}");
                let most: u64 = all.iter().filter(|it| it.1).map(|it| it.0).sum();
                assert_eq!(shares.iter().sum::<u64>(), counted.min(most));
            }
        }
    }
}
