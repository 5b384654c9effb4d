//! From the ring buffer to the model.

use std::time::Duration;

use zerocopy::IntoBytes as _;

use super::{Engine, feed::Feed};
use crate::{
    decode,
    input::{Input, Outcome},
    model::event::Event,
    source::records::in_ring,
};

/// What was in the ring.
#[derive(Clone, Copy, Default)]
pub(super) struct Drained {
    pub(super) records: u32,
    /// Of these, sockets that a scan found.
    pub(super) found: u32,
    /// The pass of an iterator whose last record was among them.
    pub(super) ended: Option<u64>,
}

impl Drained {
    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.found += other.found;
        self.ended = other.ended.or(self.ended);
    }
}

impl Engine {
    /// Applies every record in the ring buffer.
    pub(super) fn drain(&mut self) -> Drained {
        let Self { live, feed, namespaces, schedule, proofs, walk, undecodable, uptime, fullest, .. } = self;
        let now = uptime.elapsed();
        let mut drained = Drained::default();
        let mut bytes = 0;
        live.drain(|records| {
            feed.model().look_ahead(records.iter().filter_map(decode::socket));
            let records: Vec<&[u8]> = records.iter().collect();
            let shortcuts = decode::shortcuts(&records);
            for (place, &record) in records.iter().enumerate() {
                drained.records += 1;
                bytes += in_ring(record);
                if let Some(pass) = decode::pass_end(record) {
                    drained.ended = Some(pass);
                    continue;
                }
                if shortcuts.leave_out(place) {
                    // The other record of its socket says what is to be noted.
                    feed.leave_out_at(now, record);
                    continue;
                }
                if let Some(listener) = decode::listener(record)
                    && let Outcome::Record(Ok(event)) = feed.take_at(now, Input::Record(listener.as_bytes()))
                {
                    proofs.note(listener.as_bytes(), &event);
                }
                let next = shortcuts.joined_to(place).and_then(|next| records.get(next).copied());
                // By reference: an event is large.
                match &take(feed, now, record, next) {
                    Outcome::Record(Ok(event)) => {
                        drained.found += u32::from(matches!(event, Event::Scanned { .. }));
                        match event.netns_of_change() {
                            Some(netns) => schedule.note_event(netns),
                            None => match event {
                                Event::Held { netns, .. } => schedule.note_held(*netns),
                                // What is refused at a full queue makes no event.
                                Event::Queues { netns, queues, .. } if queues.are_nearly_full() => {
                                    schedule.note_event(*netns);
                                }
                                _ => {}
                            },
                        }
                        namespaces.note(event);
                        walk.note(event);
                        proofs.note(record, event);
                    }
                    Outcome::Record(Err(error)) => {
                        *undecodable += 1;
                        tracing::warn!(%error, "record");
                    }
                    Outcome::Done | Outcome::NewLosses => {}
                }
            }
        });
        *fullest = bytes.max(*fullest);
        drained
    }
}

fn take(feed: &mut Feed, now: Duration, record: &[u8], next: Option<&[u8]>) -> Outcome {
    match next {
        Some(next) => feed.take_joined_at(now, record, next),
        None => feed.take_at(now, Input::Record(record)),
    }
}
