//! When the host is read: what is cheap every second, all of its processes more rarely, and in parts where there are many.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    FirstLook, READ_HOST,
    schedule::{Stopwatch, WALKS},
};
use crate::{
    errno::Refusal,
    host::{
        clock, files, memory,
        processes::{self, Walker},
        text::Reads,
    },
    model::{
        gaps::{Gap, Gaps, Unread},
        snapshot::{Host, Memory, OwnUse},
        units::Pid,
    },
};

/// Between the beginnings of two walks over all processes. The nearest to their limits are looked at every second in
/// between.
const WALK: Duration = Duration::from_secs(5);
/// CPU time of each part of a first walk that nobody waits for: about a thousand processes.
const FIRST_SHARE: Duration = Duration::from_millis(30);
/// Processes that are listed.
const LISTED: usize = 16;

/// What is remembered between two readings.
pub(super) struct HostReader {
    kernel: String,
    /// Bytes a socket takes: the kernel does not change them.
    per_socket: Option<u64>,
    nearest: Vec<Pid>,
    next_walk: Instant,
    /// The walk that is under way.
    walker: Option<Walker>,
    has_walked: bool,
    /// CPU time of one part of the first walk.
    first_share: Duration,
    /// Files that are read once and were refused.
    unread_at_start: Gap,
    unread_processes: Gap,
}

impl HostReader {
    /// Who waits for the first frame of a screen waits for no walk over all processes.
    pub(super) fn new(now: Instant, first: FirstLook) -> Self {
        let first_share = match first {
            FirstLook::All => Duration::MAX,
            FirstLook::Own => FIRST_SHARE,
        };
        let files = Reads::default();
        let per_socket = memory::per_socket(&files);
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            per_socket,
            nearest: Vec::new(),
            next_walk: now,
            walker: None,
            has_walked: false,
            first_share,
            unread_at_start: files.gap(),
            unread_processes: Gap::default(),
        }
    }

    /// Kernel release (`uname -r`).
    pub(super) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Walks on over all processes: the first time as far as a first look goes, then for its share of a CPU.
    fn walk(&mut self, now: Instant, gaps: &mut Gaps) -> io::Result<()> {
        if self.walker.is_none() && now >= self.next_walk {
            self.walker = Some(Walker::start(LISTED)?);
            self.next_walk = now + WALK;
        }
        let Some(walker) = &mut self.walker else { return Ok(()) };
        let part = Stopwatch::start();
        let share = if self.has_walked { READ_HOST / WALKS } else { self.first_share };
        let Some(walk) = walker.walk(|| part.cpu() < share)? else { return Ok(()) };
        self.walker = None;
        self.has_walked = true;
        self.nearest = walk.nearest.iter().map(|files| files.process.pid).collect();
        self.unread_processes = walk.unread;
        let hidden = Gap { count: u32::from(processes::are_hidden()), errno: None };
        gaps.set(Unread::HiddenProcesses, hidden);
        Ok(())
    }

    /// `conspicuous` processes are asked too, however far they are from their limits. Fails where descriptors or memory
    /// are short; other refusals are noted in `gaps`, with those of the namespaces' files in `unread_files`.
    pub(super) fn read(
        &mut self,
        now: Instant,
        conspicuous: &[Pid],
        gaps: &mut Gaps,
        unread_files: Gap,
    ) -> Result<Host, Refusal> {
        self.walk(now, gaps).map_err(|error| Refusal::new("read processes", &error))?;
        gaps.set(Unread::Processes, self.unread_processes);
        let found_now = self.walker.iter_mut().flat_map(Walker::nearest_so_far);
        let mut asked: Vec<Pid> = self.nearest.iter().chain(conspicuous).copied().chain(found_now).collect();
        asked.sort_unstable();
        asked.dedup();
        let processes = processes::read(&asked);
        let files = Reads::default();
        let host = Host {
            kernel: self.kernel.clone(),
            files: files::read(&files),
            nr_open: files::nr_open(&files),
            processes,
            memory: memory::available(&files)
                .zip(self.per_socket)
                .map(|(available, per_socket)| Memory { available, per_socket }),
            own: memory::resident().map(|resident| OwnUse { cpu: clock::own_cpu(), resident }),
        };
        let unread = self.unread_at_start.and(files.gap()).and(unread_files);
        let scarcity = files.scarcity();
        // What this round did not reach is as unread as it was.
        let known = if scarcity.is_some() { gaps.get(Unread::Files) } else { Gap::default() };
        gaps.set(Unread::Files, known.or_larger(unread));
        scarcity.map_or(Ok(host), Err)
    }
}
