//! What counts and an fd scan prove.

use super::*;

/// What the fd scan, the counts and the model say of a namespace.
struct Namespace {
    candidate: Candidate,
    known: KnownSockets,
    states: FxHashMap<SocketId, TcpState>,
    is_rid: bool,
}

/// What they say together of a namespace with listeners that have these SYN queues, and other sockets in these states, 100 and
/// following. All is shown, counted and known, and no socket of another family is there. `change` says what is different.
fn judged(syn_queues: &[Option<u32>], states: &[TcpState], change: impl FnOnce(&mut Namespace)) -> Verdict {
    let shown = |queue: &Option<u32>| Shown { listener: vec![1], queues: vec![1], syn_queue: *queue };
    let listeners = (0..).map(SocketId).zip(syn_queues.iter().map(shown)).collect();
    let states: FxHashMap<SocketId, TcpState> = (100..).map(SocketId).zip(states.iter().copied()).collect();
    let [listening, connected] = [syn_queues.len(), states.len()].map(|count| u32::try_from(count).unwrap());
    let known = KnownSockets { listeners: listening, others: connected, requests: 0 };
    let hashed = u64::from(listening + connected);
    let totals = Totals { hashed, allocated: hashed, ..Totals::default() };
    let candidate = Candidate { totals, events: 0, listeners, others: states.clone() };
    let mut namespace = Namespace { candidate, known, states, is_rid: false };
    change(&mut namespace);
    let Namespace { candidate, known, states, is_rid } = namespace;
    candidate.judge(is_rid, known, |id| states.get(&id).copied())
}

#[test]
fn nothing_but_the_listeners_that_were_shown_is_a_proof() {
    let is_proven = |hashed, time_wait, allocated, syn_queues: &[Option<u32>], is_rid| {
        let verdict = judged(syn_queues, &[], |it| {
            it.candidate.totals = Totals { hashed, time_wait, allocated, ..Totals::default() };
            it.is_rid = is_rid;
        });
        verdict == Verdict::OnlyListeners
    };
    assert!(is_proven(0, 0, 0, &[], false));
    assert!(is_proven(2, 0, 2, &[Some(0), Some(0)], false));
    assert!(is_proven(1, 0, 9, &[Some(0)], true), "sockets of other families");
    assert!(!is_proven(1, 0, 2, &[Some(0)], false), "a closed listener may be among them");
    assert!(!is_proven(2, 0, 2, &[Some(0)], true), "no file leads to the other");
    assert!(!is_proven(1, 0, 2, &[Some(0), Some(0)], true), "one has ended");
    assert!(!is_proven(1, 1, 1, &[Some(0)], true), "TIME_WAIT");
    assert!(!is_proven(1, 0, 1, &[Some(1)], true), "a request socket");
    assert!(!is_proven(1, 0, 1, &[None], true), "this kernel shows no SYN queue");
}

const LISTENER: &[Option<u32>] = &[Some(0)];
const STATES: &[TcpState] = &[TcpState::Established, TcpState::CloseWait, TcpState::SynSent];

#[test]
fn sockets_that_are_all_shown_and_all_known_in_their_states_are_unchanged() {
    assert_eq!(judged(LISTENER, STATES, |_| {}), Verdict::Unchanged);
    assert_eq!(judged(&[], STATES, |_| {}), Verdict::Unchanged, "clients alone");
    let with_others = |it: &mut Namespace| it.candidate.totals.allocated = 9;
    assert_eq!(judged(LISTENER, STATES, with_others), Verdict::Unchanged, "the walk has shown no request socket");
    let long_ago = |it: &mut Namespace| {
        (it.candidate.totals.allocated, it.known.requests, it.is_rid) = (9, 1, true);
    };
    assert_eq!(judged(LISTENER, STATES, long_ago), Verdict::Unchanged, "it has shown one, which has ended");
}

#[test]
fn what_the_model_does_not_know_or_knows_otherwise_makes_it_wrong() {
    type Change = fn(&mut Namespace);
    let changes: [(&str, Change); 5] = [
        ("an unknown socket that is shown", |it| {
            it.states.remove(&SocketId(101));
        }),
        ("another state", |it| {
            it.states.insert(SocketId(101), TcpState::LastAck);
        }),
        ("an unknown socket that no file leads to", |it| it.candidate.totals.hashed += 1),
        ("a listener that has ended", |it| it.known.listeners += 1),
        ("a socket that has ended", |it| it.known.others += 1),
    ];
    for (what, change) in changes {
        assert_eq!(judged(LISTENER, STATES, change), Verdict::Differs, "{what}");
    }
    let swapped = judged(LISTENER, STATES, |it| {
        it.states.remove(&SocketId(101));
        it.states.insert(SocketId(200), TcpState::CloseWait);
    });
    assert_eq!(swapped, Verdict::Differs, "one has ended and another one came");
}

#[test]
fn what_the_fd_scan_does_not_show_leaves_a_namespace_to_walks() {
    type Change = fn(&mut Namespace);
    let changes: [(&str, Change); 5] = [
        ("a known socket that no file leads to", |it| {
            it.candidate.others.remove(&SocketId(101));
        }),
        ("an unknown listener in the place of a known socket", |it| {
            it.candidate.others.remove(&SocketId(101));
            it.candidate.listeners.insert(SocketId(7), Shown { syn_queue: Some(0), ..Shown::default() });
        }),
        ("TIME_WAIT", |it| it.candidate.totals.time_wait = 1),
        ("a request socket whose listener is closed", |it| {
            (it.candidate.totals.allocated, it.known.requests) = (it.candidate.totals.allocated + 1, 1);
        }),
        ("a request socket", |it| it.candidate.listeners.values_mut().for_each(|shown| shown.syn_queue = Some(1))),
    ];
    for (what, change) in changes {
        assert_eq!(judged(LISTENER, STATES, change), Verdict::Inconclusive, "{what}");
    }
}

#[test]
fn a_listener_that_was_closed_leaves_doubt_while_its_request_sockets_may_live() {
    let start = Instant::now();
    let mut proofs = Proofs::new(start);
    let netns = NetnsId(1);
    assert!(!proofs.is_rid_of_requests(netns, start + REQUEST_TIMER / 2));
    assert!(proofs.is_rid_of_requests(netns, start + REQUEST_TIMER));
    proofs.ended.insert(netns, start + REQUEST_TIMER);
    assert!(!proofs.is_rid_of_requests(netns, start + REQUEST_TIMER + REQUEST_TIMER / 2));
    assert!(proofs.is_rid_of_requests(NetnsId(2), start + REQUEST_TIMER), "one of another namespace");
    assert!(proofs.is_rid_of_requests(netns, start + 2 * REQUEST_TIMER));
}
