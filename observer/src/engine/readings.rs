//! Readings of network namespaces: which there are, their sysctls and counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use super::{
    Engine, SEARCH, WALK, Watched,
    namespaces::WORTH_A_MOUNT,
    rounds::refused_entry,
    schedule::{self, Extent, SLICE, Stopwatch},
};
use crate::{
    errno::{self, Refusal},
    host::{handle, netns::Reading},
    input::Input,
    model::{
        gaps::{Gap, Unread},
        namespace::NamespaceReading,
        units::NetnsId,
    },
};

/// After a reading that was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// Namespaces that are read before their budget is looked at again: as many as are worth a mount of procfs.
const READ_AT_ONCE: usize = WORTH_A_MOUNT;
/// The same where there is none. The ring has to be read in between.
const READ_AT_ONCE_AT_START: usize = 64;

/// The result of reading a namespace.
pub(super) enum Looked {
    /// Read, except these files.
    Read(Gap),
    /// The kernel refuses to let observer enter it.
    NotEntered(Option<i32>),
    /// It has no handle any more.
    Gone,
}

impl Engine {
    pub(super) fn read_namespaces_or_skip(&mut self) {
        if let Err(refusal) = self.read_namespaces(Extent::Due) {
            self.skip(refusal);
            let later = Instant::now() + PAUSE;
            (self.next_namespaces, self.next_search) = (later, later);
        }
        self.publish_gaps();
    }

    /// Finds namespaces when that is due or one was named, reads those whose turn has come, and forgets those that are gone.
    pub(super) fn read_namespaces(&mut self, extent: Extent) -> Result<(), Refusal> {
        let began = Instant::now();
        let may_search = extent != Extent::Due || began >= self.next_search;
        let is_named = may_search && self.options.watched == Watched::All && self.has_unknown_namespaces();
        if began >= self.next_walk || is_named {
            let walk = Stopwatch::start();
            self.next_search = began + SEARCH;
            self.find_namespaces(began)?;
            self.next_walk = began + WALK.max(walk.cpu() * schedule::WALKS);
        }
        let known = self.namespaces.ids();
        let wanted = self.feed.model().with_unread_devices();
        let due: Vec<NetnsId> = match extent {
            Extent::Whole => known,
            Extent::Due => {
                let due = self.schedule.due_readings(&known, began);
                wanted.iter().copied().chain(due.into_iter().filter(|netns| !wanted.contains(netns))).collect()
            }
        };
        // This is asked many times a second.
        if due.is_empty() {
            return Ok(());
        }
        let devices = self.feed.model().devices_in_use();
        let mut refused = None;
        let is_regular = extent == Extent::Due && !self.schedule.is_starting();
        for part in due.chunks(if is_regular { READ_AT_ONCE } else { READ_AT_ONCE_AT_START }) {
            let now = Instant::now();
            let is_over = extent == Extent::Due && now - began >= SLICE;
            let mut may_read = |netns: &NetnsId| {
                extent != Extent::Due || wanted.contains(netns) || (!is_over && self.schedule.may_read(*netns, now))
            };
            let part: Vec<NetnsId> = part.iter().copied().take_while(|netns| may_read(netns)).collect();
            if part.is_empty() {
                break;
            }
            let read = self.read_at_once(&part, &devices);
            refused = refused.or(read.err());
        }
        self.sum_up_readings();
        self.next_search = Instant::now() + SEARCH;
        refused.map_or(Ok(()), Err)
    }

    /// Reads those of these that were never read.
    pub(super) fn read_unread(&mut self, namespaces: &[NetnsId]) -> Result<(), Refusal> {
        let is_unread = |netns: &NetnsId| self.schedule.is_unread(*netns);
        let unread: Vec<NetnsId> = namespaces.iter().copied().filter(is_unread).collect();
        unread.chunks(READ_AT_ONCE_AT_START).try_for_each(|part| self.read_at_once(part, &BTreeMap::new()))
    }

    /// Reads these namespaces, several at the same time, and accounts for each.
    fn read_at_once(
        &mut self,
        namespaces: &[NetnsId],
        devices: &BTreeMap<NetnsId, BTreeSet<u32>>,
    ) -> Result<(), Refusal> {
        let turn = Stopwatch::start();
        let read = self.namespaces.read_each(namespaces, devices);
        self.drain();
        let known = self.feed.model().kernel_totals();
        let mut refused = None;
        for (netns, read) in read {
            match self.take_reading(netns, read, known.get(&netns).copied().unwrap_or_default()) {
                Ok(looked) => drop(self.looked.insert(netns, looked)),
                // What is known of earlier rounds stays.
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        let (now, share) = (Instant::now(), turn.cpu() / u32::try_from(namespaces.len()).unwrap_or(u32::MAX));
        for netns in namespaces {
            self.schedule.end_reading(*netns, now, share);
        }
        refused.map_or(Ok(()), Err)
    }

    /// What the last reading of each namespace could not reach.
    fn sum_up_readings(&mut self) {
        let memberships = self.gaps.get(Unread::Memberships);
        let (mut unread_files, mut not_entered) = (Gap::default(), Gap::default());
        for (netns, looked) in &self.looked {
            match looked {
                Looked::Read(unread) => unread_files = unread_files.and(*unread),
                Looked::NotEntered(errno) => not_entered.add(*errno),
                // Its sockets exist; its handle may belong to a process that observer cannot read.
                Looked::Gone if memberships.count > 0 && !self.feed.model().is_empty(*netns) => {
                    not_entered.add(memberships.errno);
                }
                Looked::Gone => {}
            }
        }
        self.unread_files = unread_files;
        self.gaps.set(Unread::Namespaces, not_entered);
    }

    /// Whether events or open files have named a namespace that was not looked for yet.
    pub(super) fn has_unknown_namespaces(&self) -> bool {
        self.feed.model().unread_namespaces().any(|netns| !self.namespaces.knows(netns))
    }

    pub(super) fn has_unread_devices(&self) -> bool {
        self.feed.model().has_unread_devices()
    }

    /// Finds namespaces and their names, and forgets those that are gone.
    pub(super) fn find_namespaces(&mut self, now: Instant) -> Result<(), Refusal> {
        let refusal = |error| Refusal::new("look for network namespaces", &error);
        if self.options.watched == Watched::Own {
            return self.namespaces.refresh_own(&mut self.resolver).map_err(refusal);
        }
        let unread =
            self.namespaces.refresh(&mut self.resolver, self.feed.model().unread_namespaces(), now).map_err(refusal)?;
        self.gaps.set(Unread::Memberships, unread);
        for netns in self.namespaces.take_gone(now, |netns| self.feed.model().is_empty(netns)) {
            self.feed.take(Input::ForgetNamespace(netns));
            self.looked.remove(&netns);
        }
        self.schedule.keep(|netns| self.namespaces.knows(netns));
        self.walk.keep(|netns| self.namespaces.knows(netns));
        Ok(())
    }

    /// Its last reading, with the name that it has now.
    pub(super) fn rename(&mut self, netns: NetnsId) {
        let Some(reading) = self.feed.model().namespace_reading(netns) else { return };
        let reading = self.namespaces.with_name(netns, reading.clone());
        self.feed.take(Input::Namespace(netns, Box::new(reading)));
    }

    /// The kernel gave the number of a namespace to another one: nothing of the first belongs to the second.
    pub(super) fn replace(&mut self, netns: NetnsId) -> Result<(), Refusal> {
        tracing::debug!(netns = netns.0, "another namespace has this number now");
        self.feed.take(Input::ForgetNamespace(netns));
        // Sockets that the second one made in the meantime come back with the scan.
        self.schedule.ask_for(netns);
        self.find_namespaces(Instant::now())
    }

    /// Reads one namespace. While descriptors or memory are short the model keeps its last reading.
    pub(super) fn read_namespace(&mut self, netns: NetnsId, devices: &BTreeSet<u32>) -> Result<Looked, Refusal> {
        let read = self.namespaces.read(netns, devices);
        self.drain();
        let known = self.feed.model().kernel_totals();
        self.take_reading(netns, read, known.get(&netns).copied().unwrap_or_default())
    }

    /// What was read of a namespace, for the model, which has `known` of what the kernel counts there.
    fn take_reading(
        &mut self,
        netns: NetnsId,
        mut read: io::Result<Reading>,
        mut known: [u32; 2],
    ) -> Result<Looked, Refusal> {
        if let Ok(Reading { identity, .. }) = read
            && self.namespaces.is_replaced(netns, identity)
        {
            self.replace(netns)?;
            known = [0, 0];
            read = self.namespaces.read(netns, &BTreeSet::new());
        }
        let (looked, reading) = match read {
            Ok(Reading { scarcity: Some(refusal), .. }) => return Err(refusal),
            Ok(Reading { namespace, unread, .. }) => (Looked::Read(unread), namespace),
            Err(error) if errno::is_scarce(&error) => return Err(refused_entry(netns, &error)),
            Err(error) => {
                let is_gone = handle::is_absence(&error);
                let looked = if is_gone { Looked::Gone } else { Looked::NotEntered(error.raw_os_error()) };
                (looked, NamespaceReading { name: self.namespaces.name(netns), ..NamespaceReading::default() })
            }
        };
        if let (Some(established), Some(time_wait)) = (reading.established_or_close_wait, reading.time_wait) {
            let difference = [i64::from(established) - i64::from(known[0]), i64::from(time_wait) - i64::from(known[1])];
            self.schedule.compare(netns, difference);
        }
        self.feed.take(Input::Namespace(netns, Box::new(reading)));
        Ok(looked)
    }
}
