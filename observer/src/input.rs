//! All that goes into the model, as one closed type: what a live engine takes in is what a recording keeps and what a
//! replay takes in.
//!
//! **Invariant**: [`apply`] is the only way by which an engine or a replay changes its model.

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

/// Something that the model takes in. A change here changes the format of recordings: raise
/// [`crate::recording::FORMAT`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// A record of the ring buffer as the kernel side wrote it (`observer_ebpf::abi`).
    Record(&'a [u8]),
    /// A scan of this namespace's table begins.
    BeginScan(NetnsId),
    /// The scan has shown all of it.
    EndScan,
    /// The scan could not be finished.
    AbandonScan,
    /// Every namespace was scanned.
    EndRound(ScanSummary),
    /// A pass over all open files begins.
    BeginFdScan,
    /// The pass has shown all of them.
    EndFdScan,
    /// A namespace was read.
    Namespace(NetnsId, Box<NamespaceReading>),
    /// A namespace is gone.
    ForgetNamespace(NetnsId),
    /// The host was read.
    Host(Box<Host>),
    /// Losses counted so far.
    Losses(Losses),
    /// What could not be read so far, and rounds that were skipped.
    Gaps(Box<Gaps>),
    /// A second has gone by.
    Tick,
    /// Reset totals and peaks.
    RestartTotals,
    /// The service of a cgroup or a process, asked for because sockets named it; `None` where it names none.
    Service(Member, Option<Box<Service>>),
}

/// What the owner of the model may have to act on.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// A record reported this.
    Event(Event),
    /// A record made no sense and has changed nothing.
    Undecodable(DecodeError),
    /// More records are lost than the model knew of.
    NewLosses,
}

/// Lets the model take in `input`. `now` is time since start and never goes back.
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
