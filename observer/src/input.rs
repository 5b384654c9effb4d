//! Everything that goes into the model, as one closed type. A live engine applies these inputs, a recording keeps them,
//! and a replay applies them again.
//!
//! **Invariant**: an engine or a replay changes its model only through [`apply`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    decode::{self, DecodeError},
    model::{
        Model,
        event::Event,
        gaps::Gaps,
        member::Member,
        namespace::NamespaceReading,
        quality::{Losses, ScanSummary},
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
    Record(&'a [u8]),
    /// A scan of this namespace's table begins.
    BeginScan(NetnsId),
    /// The scan reached the end of the table.
    EndScan,
    /// The scan failed, or lost records of its own.
    AbandonScan,
    /// This round has scanned every namespace.
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
}

/// What an input did, where the model's owner may have to act on it.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// A record gave this event.
    Event(Event),
    /// `decode` rejected a record, and the model is unchanged.
    Undecodable(DecodeError),
    /// More records are lost than the model knew of.
    NewLosses,
}

/// Applies `input` to the model. `now` is time since start and never goes back.
pub fn apply(model: &mut Model, now: Duration, input: Input<'_>) -> Outcome {
    match input {
        Input::Record(bytes) => match decode::event(bytes) {
            Ok(event) => {
                model.apply(&event, now);
                return Outcome::Event(event);
            }
            Err(error) => return Outcome::Undecodable(error),
        },
        Input::BeginScan(netns) => model.begin_scan(netns),
        Input::EndScan => model.end_scan(now),
        Input::AbandonScan => model.abandon_scan(),
        Input::EndRound(summary) => model.end_round(summary),
        Input::BeginFdScan => model.begin_fd_scan(),
        Input::EndFdScan => model.end_fd_scan(),
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
    }
    Outcome::Done
}
