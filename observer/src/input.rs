//! Everything that goes into the model, as one closed type. A live engine applies these inputs, a recording keeps them,
//! and a replay applies them again.
//!
//! **Invariant**: an engine or a replay changes its model only through this module.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    decode::{self, DecodeError},
    model::{
        Model,
        cost::Cost,
        event::Event,
        gaps::Gaps,
        member::Member,
        namespace::NamespaceReading,
        quality::{Losses, ScanSummary, StreamLoss},
        service::Service,
        snapshot::Host,
        units::NetnsId,
    },
};

/// One input of the model. A change here changes the format of recordings: raise
/// [`crate::recording::FORMAT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// A record of the ring buffer, as a BPF program wrote it (`observer_ebpf::abi`).
    Record(#[serde(serialize_with = "as_bytes")] &'a [u8]),
    /// A scan of this namespace's table begins.
    BeginScan(NetnsId),
    /// The scan reached the end of the table.
    EndScan,
    /// The scan failed, or lost records of its own.
    AbandonScan,
    /// This round has scanned every namespace that was due.
    EndRound(ScanSummary),
    /// An fd scan, over all open files, begins.
    BeginFdScan,
    /// The fd scan reached the end.
    EndFdScan,
    /// A reading of a namespace.
    Namespace(NetnsId, Box<NamespaceReading>),
    /// A namespace is gone.
    ForgetNamespace(NetnsId),
    /// A reading of the host.
    Host(Box<Host>),
    /// Losses counted so far.
    Losses(Losses),
    /// What the engine could not read so far, and the rounds that it skipped.
    Gaps(Box<Gaps>),
    /// One second has passed.
    Tick,
    /// Reset totals and peaks.
    RestartTotals,
    /// The service of a cgroup or a process, asked for because sockets named it; `None` where it names none.
    Service(Member, Option<Box<Service>>),
    /// This stream lost inputs here: its reader took less than came. Readings and a round of scans follow.
    StreamLoss(Box<StreamLoss>),
    /// What observer costs, and whether its hooks are suspended.
    Cost(Cost),
    /// The fd scan that has just ended and the kernel's counts show that this namespace has the full sockets that the model
    /// knows there, in these states, and no other socket.
    Unchanged(NetnsId),
}

/// In one piece: of itself serde takes a slice byte by byte, which took half of what a recording costs. The encoding is the same.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What an input did, where the model's owner may have to act on it.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// A record gave this event; if `decode` rejected it, the model is unchanged.
    Record(Result<Event, DecodeError>),
    /// More records are lost than the model knew of.
    NewLosses,
}

/// Applies `input` to the model. `now` is time since start and never goes back.
pub fn apply(model: &mut Model, now: Duration, input: Input<'_>) -> Outcome {
    match input {
        Input::Record(bytes) => {
            let event = decode::event(bytes);
            if let Ok(event) = &event {
                model.apply(event, now);
            }
            // In one piece: an event is large, and to move it takes a good part of what it costs.
            return Outcome::Record(event);
        }
        Input::BeginScan(netns) => model.begin_scan(netns, now),
        Input::EndScan => model.end_scan(now),
        Input::AbandonScan => model.abandon_scan(),
        Input::EndRound(summary) => model.end_round(summary),
        Input::BeginFdScan => model.begin_fd_scan(now),
        Input::EndFdScan => model.end_fd_scan(now),
        Input::Namespace(netns, reading) => model.set_namespace(netns, *reading),
        Input::ForgetNamespace(netns) => model.forget_namespace(netns),
        Input::Host(host) => model.set_host(*host),
        Input::Losses(losses) => {
            if model.set_losses(losses, now) {
                return Outcome::NewLosses;
            }
        }
        Input::Gaps(gaps) => model.set_gaps(*gaps, now),
        Input::Tick => model.tick(now),
        Input::Service(member, service) => model.set_service(member, service.map(|service| *service)),
        Input::RestartTotals => model.restart_totals(now),
        Input::StreamLoss(loss) => model.note_stream_loss(&loss, now),
        Input::Cost(cost) => model.set_cost(cost, now),
        Input::Unchanged(netns) => model.end_scan_by_counts(netns, now),
    }
    Outcome::Done
}

/// As [`apply`] of a record that is applied with a later one of its socket: see [`decode::joined`].
pub fn apply_joined(model: &mut Model, now: Duration, record: &[u8], next: &[u8]) -> Outcome {
    let event = decode::joined(record, next);
    if let Ok(event) = &event {
        model.apply(event, now);
    }
    Outcome::Record(event)
}

/// Takes note of a record that need not be applied, as [`decode::shortcuts`] says. It counts as an event.
pub const fn leave_out(model: &mut Model) {
    model.note_event();
}

/// What a model that begins with the next round of scans has to know before it: the readings that this one has.
#[must_use]
pub fn readings(model: &Model) -> Vec<Input<'static>> {
    let namespaces = model.namespace_readings();
    let mut inputs: Vec<Input<'static>> =
        namespaces.map(|(netns, reading)| Input::Namespace(netns, Box::new(reading.clone()))).collect();
    inputs.extend(model.host().map(|host| Input::Host(Box::new(host.clone()))));
    inputs.push(Input::Losses(model.losses()));
    inputs.push(Input::Gaps(Box::new(model.gaps().clone())));
    inputs.extend(model.cost().map(Input::Cost));
    inputs
}

/// Whether it is of the kinds that [`readings`] gives.
#[must_use]
pub const fn is_reading(input: &Input<'_>) -> bool {
    matches!(input, Input::Namespace(..) | Input::Host(_) | Input::Losses(_) | Input::Gaps(_) | Input::Cost(_))
}

/// What such a model has to know after that round: the services of the cgroups and processes that sockets have named.
#[must_use]
pub fn services(model: &Model) -> Vec<Input<'static>> {
    let named = model.named_members();
    named.map(|(member, service)| Input::Service(member, service.map(|service| Box::new(service.clone())))).collect()
}
