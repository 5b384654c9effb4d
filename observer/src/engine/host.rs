//! When the host is read: what is cheap every second, all of its processes more rarely.

use std::time::{Duration, Instant};

use crate::{
    host::{clock, files, memory, processes},
    model::{
        snapshot::{Host, Memory, OwnUse},
        units::Pid,
    },
};

/// Between two walks over all processes. The nearest to their limits are looked at every second in between.
const WALK: Duration = Duration::from_secs(5);
/// Processes that are listed.
const LISTED: usize = 16;

/// What is remembered between two readings.
pub(super) struct HostReader {
    kernel: String,
    /// Bytes a socket takes: the kernel does not change them.
    per_socket: Option<u64>,
    nearest: Vec<Pid>,
    next_walk: Instant,
}

impl HostReader {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            per_socket: memory::per_socket(),
            nearest: Vec::new(),
            next_walk: now,
        }
    }

    /// Kernel release (`uname -r`).
    pub(super) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// `conspicuous` processes are asked too, however far they are from their limits.
    pub(super) fn read(&mut self, now: Instant, conspicuous: &[Pid]) -> Host {
        if now >= self.next_walk {
            self.next_walk = now + WALK;
            let nearest = processes::nearest_to_limit(LISTED);
            self.nearest = nearest.iter().map(|files| files.process.pid).collect();
        }
        let mut asked: Vec<Pid> = self.nearest.iter().chain(conspicuous).copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let processes = processes::read(&asked);
        Host {
            kernel: self.kernel.clone(),
            files: files::read(),
            nr_open: files::nr_open(),
            processes,
            memory: memory::available()
                .zip(self.per_socket)
                .map(|(available, per_socket)| Memory { available, per_socket }),
            own: memory::resident().map(|resident| OwnUse { cpu: clock::own_cpu(), resident }),
        }
    }
}
