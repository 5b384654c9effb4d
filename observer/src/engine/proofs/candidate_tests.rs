//! What counts, an fd scan and the model say together.

use super::*;

/// What the fd scan, the counts and the model say of a namespace.
struct Namespace {
    candidate: Candidate,
    unlike: Unlike,
    is_rid: bool,
}

/// What they say together of a namespace with listeners that have these SYN queues, and other sockets. All is shown, counted and
/// known, and no socket of another family is there. `change` says what is different.
fn judged(syn_queues: &[Option<u32>], others: u32, change: impl FnOnce(&mut Namespace)) -> Verdict {
    let shown = |queue: &Option<u32>| Shown { listener: vec![1], queues: vec![1], syn_queue: *queue };
    let listeners: FxHashMap<SocketId, Shown> = (0..).map(SocketId).zip(syn_queues.iter().map(shown)).collect();
    let known = KnownSockets { listeners: u32::try_from(listeners.len()).unwrap(), others, ..KnownSockets::default() };
    let hashed = u64::from(known.listeners + others);
    let totals = Totals { hashed, allocated: hashed, ..Totals::default() };
    let candidate = Candidate { listeners, has_others: others > 0, ..Candidate::new(totals, known, 0) };
    let mut namespace = Namespace { candidate, unlike: Unlike::default(), is_rid: false };
    change(&mut namespace);
    namespace.candidate.judge(namespace.is_rid, namespace.unlike)
}

#[test]
fn nothing_but_the_listeners_that_were_shown_is_a_proof() {
    let is_proven = |hashed, time_wait, allocated, syn_queues: &[Option<u32>], is_rid| {
        let verdict = judged(syn_queues, 0, |it| {
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

#[test]
fn sockets_that_are_all_shown_and_all_known_in_their_states_are_unchanged() {
    assert_eq!(judged(LISTENER, 3, |_| {}), Verdict::Unchanged);
    assert_eq!(judged(&[], 3, |_| {}), Verdict::Unchanged, "clients alone");
    let with_others = |it: &mut Namespace| (it.candidate.totals.allocated, it.is_rid) = (9, true);
    assert_eq!(judged(LISTENER, 3, with_others), Verdict::Unchanged, "sockets of other families");
}

/// Something that is different, and what it is.
type Change = (&'static str, fn(&mut Namespace));

#[test]
fn what_the_model_does_not_know_or_knows_otherwise_makes_it_wrong() {
    let changes: [Change; 5] = [
        ("an unknown socket that is shown, or another state", |it| it.unlike.is_other = true),
        ("an unknown socket that no file leads to", |it| it.candidate.totals.hashed += 1),
        ("a listener that has ended", |it| it.candidate.known.listeners += 1),
        ("a socket that has ended", |it| it.candidate.known.others += 1),
        ("one has ended and another one came", |it| (it.unlike.is_other, it.unlike.hidden) = (true, 1)),
    ];
    for (what, change) in changes {
        assert_eq!(judged(LISTENER, 3, change), Verdict::Differs, "{what}");
    }
}

#[test]
fn what_is_not_known_of_other_sockets_says_nothing_against_the_full_ones() {
    let changes: [Change; 4] = [
        ("a few known sockets that no file leads to", |it| it.unlike.hidden = 2),
        ("TIME_WAIT", |it| it.candidate.totals.time_wait = 1),
        ("a request socket whose listener is closed", |it| it.candidate.totals.allocated += 1),
        ("a request socket", |it| it.candidate.listeners.values_mut().for_each(|shown| shown.syn_queue = Some(1))),
    ];
    for (what, change) in changes {
        assert_eq!(judged(LISTENER, 20, change), Verdict::FullUnchanged, "{what}");
    }
}

#[test]
fn what_the_fd_scan_does_not_show_leaves_a_namespace_to_walks() {
    let changes: [Change; 4] = [
        ("a known socket that its process has no more", |it| {
            (it.unlike.hidden, it.unlike.is_missed) = (1, true);
        }),
        ("an unknown listener in the place of a known socket", |it| {
            it.unlike.hidden = 1;
            it.candidate.listeners.insert(SocketId(7), Shown { syn_queue: Some(0), ..Shown::default() });
        }),
        ("a listener that no file leads to", |it| it.candidate.listeners.clear()),
        ("many known sockets that no file leads to", |it| it.unlike.hidden = 3),
    ];
    for (what, change) in changes {
        assert_eq!(judged(LISTENER, 20, change), Verdict::Inconclusive, "{what}");
    }
}
