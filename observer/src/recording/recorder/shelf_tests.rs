use proptest::prelude::*;

use super::*;

fn shelf(bytes: u64, keep: u64) -> Shelf {
    Shelf::new(RecorderBounds { keep: second(keep), bytes, incidents: 2 })
}

const fn second(second: u64) -> Duration {
    Duration::from_secs(second)
}

/// Carries out what has to go; returns it.
fn make_room(shelf: &mut Shelf, more: u64, now: u64) -> Vec<Removal> {
    let mut removed = Vec::new();
    while let Ok(Some(removal)) = shelf.next_removal(more, second(now)) {
        shelf.remove(removal);
        removed.push(removal);
    }
    removed
}

/// A segment of so many bytes, complete at once.
fn add(shelf: &mut Shelf, began: u64, bytes: u64) -> u64 {
    let number = shelf.next_number();
    shelf.open(number, second(began));
    shelf.add_bytes(number, bytes);
    shelf.close(number, second(began + 10));
    number
}

fn add_incident(shelf: &mut Shelf, at: u64) -> u64 {
    let number = shelf.next_incident();
    shelf.add_incident(IncidentName { number, at: second(at), words: "ports exhausted".to_owned() }, BTreeSet::new());
    for (incident, segment) in shelf.missing_links() {
        shelf.link(incident, segment);
    }
    number
}

#[test]
fn the_oldest_segment_goes_first_and_the_time_to_keep_stays_covered() {
    let mut shelf = shelf(1 << 20, 60);
    for began in (0..100).step_by(10) {
        add(&mut shelf, began, 1);
    }
    // At 100 s the last minute begins at 40 s, with the fifth segment.
    assert_eq!(make_room(&mut shelf, 0, 100), [1, 2, 3, 4].map(Removal::Segment));
    assert_eq!((shelf.oldest(), shelf.len()), (Some(second(40)), 6));
    // The bound on bytes comes first: two folders, and a block for each of the rest.
    let room = (1 << 20) - shelf.bytes();
    assert_eq!(make_room(&mut shelf, room, 100), []);
    assert_eq!(make_room(&mut shelf, room + 1, 100), [Removal::Segment(5)]);
    // Numbers never come again.
    assert_eq!(make_room(&mut shelf, 0, 1_000).last(), Some(&Removal::Segment(9)));
    assert_eq!((shelf.next_number(), shelf.len()), (11, 1));
}

#[test]
fn what_is_around_an_incident_outlives_the_history() {
    let mut shelf = shelf(1 << 20, 60);
    for began in (0..300).step_by(10) {
        add(&mut shelf, began, 1);
    }
    // A minute before 155 s to a minute after it: segments that end from 95 s on, and begin up to 215 s.
    let incident = add_incident(&mut shelf, 155);
    let around: Vec<u64> = shelf.segments_of(incident).into_iter().map(|(number, _)| number).collect();
    assert_eq!(around, (10..=22).collect::<Vec<u64>>());
    make_room(&mut shelf, 0, 10_000);
    assert_eq!((shelf.len(), shelf.segments_of(incident).len()), (1, 13));
    assert_eq!((shelf.incident_at(second(215)).is_some(), shelf.incident_at(second(216)).is_some()), (true, false));
    // The third incident is one too many.
    add_incident(&mut shelf, 290);
    add_incident(&mut shelf, 400);
    assert_eq!(make_room(&mut shelf, 0, 10_000), [Removal::Incident(incident)]);
    assert!(shelf.began(10).is_none() && shelf.incident_count() == 2);
}

proptest! {
    #[test]
    fn whatever_is_written_the_bound_holds_and_the_newest_stays(
        steps in prop::collection::vec((0_u8..10, 1_u64..40_000), 1..200),
    ) {
        let bound = 1 << 20;
        let (mut shelf, mut now) = (shelf(bound, 3_600), 0);
        let mut open = None;
        for (step, bytes) in steps {
            now += 7;
            match (step, open) {
                (0..3, _) | (_, None) => {
                    if let Some(number) = open {
                        shelf.close(number, second(now));
                    }
                    make_room(&mut shelf, 0, now);
                    let number = shelf.next_number();
                    shelf.open(number, second(now));
                    open = Some(number);
                }
                (3, _) => {
                    add_incident(&mut shelf, now);
                    make_room(&mut shelf, 0, now);
                }
                (_, Some(number)) => {
                    make_room(&mut shelf, bytes, now);
                    if shelf.next_removal(bytes, second(now)) == Ok(None) {
                        shelf.add_bytes(number, bytes);
                    }
                }
            }
            prop_assert!(shelf.bytes() <= bound + 2 * BLOCK, "{} bytes", shelf.bytes());
            make_room(&mut shelf, 0, now);
            prop_assert!(shelf.bytes() <= bound, "{} bytes", shelf.bytes());
            let newest = open.and_then(|number| shelf.began(number));
            prop_assert!(newest.is_some(), "the one that is being written is gone");
            prop_assert!(shelf.incident_count() <= 2);
        }
    }
}
