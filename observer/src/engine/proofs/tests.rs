//! What doubt listeners leave that have ended.

use super::*;

#[test]
fn a_listener_that_was_closed_leaves_doubt_while_its_request_sockets_may_live() {
    let start = Instant::now();
    let mut proofs = Proofs::new(start);
    let netns = NetnsId(1);
    let is_rid = |proofs: &Proofs, netns, after| proofs.is_rid_of_requests(netns, false, Some(start), start + after);
    assert!(!is_rid(&proofs, netns, REQUEST_TIMER / 2));
    assert!(is_rid(&proofs, netns, REQUEST_TIMER));
    proofs.ended.insert(netns, start + REQUEST_TIMER);
    assert!(!is_rid(&proofs, netns, REQUEST_TIMER + REQUEST_TIMER / 2));
    assert!(is_rid(&proofs, NetnsId(2), REQUEST_TIMER), "one of another namespace");
    assert!(is_rid(&proofs, netns, 2 * REQUEST_TIMER));
}

#[test]
fn a_walk_that_showed_no_request_socket_leaves_no_doubt_unless_a_listener_left_some_since() {
    let start = Instant::now();
    let mut proofs = Proofs::new(start);
    let (netns, second) = (NetnsId(1), Duration::from_secs(1));
    let is_rid = |proofs: &Proofs, is_without, walked_at| {
        proofs.is_rid_of_requests(netns, is_without, walked_at, start + 10 * second)
    };
    assert!(is_rid(&proofs, true, Some(start + second)));
    assert!(!is_rid(&proofs, false, Some(start + second)), "it showed some");
    assert!(!is_rid(&proofs, true, None), "none has come");
    proofs.ended.insert(netns, start + 2 * second);
    assert!(!is_rid(&proofs, true, Some(start + second)), "a listener left some since");
    assert!(is_rid(&proofs, true, Some(start + 3 * second)));
    proofs.complete_since = start + 4 * second;
    assert!(!is_rid(&proofs, true, Some(start + 3 * second)), "records were lost since");
}
