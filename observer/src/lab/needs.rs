//! The resources that a lab needs, and whether the host has them.

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::{
    host::{files, memory, text::Reads},
    model::units::grouped,
};

/// Fds that a process needs for itself: standard streams, channel, libraries.
const OWN_FILES: u64 = 64;
/// The most connections of one worker, even where its limit is higher: workers share the work.
const ROOM: u64 = 20_000;
/// Memory of observer for each socket that it counts, in bytes (measured at a million sockets).
const MODEL_BYTES: u64 = 512;
/// Kernel memory of an idle socket in bytes, where /proc/slabinfo is not readable (measured on 64-bit kernels).
const PER_SOCKET: u64 = 3_900;

/// What a lab uses while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Needs {
    /// Private network namespaces.
    pub(crate) namespaces: u32,
    /// Worker processes.
    pub(crate) processes: u32,
    /// Fds of all workers together.
    pub(crate) files: u64,
    /// TCP sockets.
    pub(crate) sockets: u64,
    /// Memory of kernel and observer for these sockets, in bytes.
    pub(crate) memory_bytes: u64,
}

/// How many sockets one worker process can hold.
pub(crate) fn room() -> u32 {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    u32::try_from(hard.saturating_sub(OWN_FILES).min(ROOM)).unwrap_or(u32::MAX)
}

impl Needs {
    /// Needs of a lab that holds both ends of `connections` at once.
    pub(crate) fn of_connections(connections: u32) -> Self {
        let sockets = 2 * u64::from(connections);
        let processes = 2 * connections.div_ceil(room().max(1)).max(1);
        let per_socket = memory::per_socket(&Reads::default()).unwrap_or(PER_SOCKET) + MODEL_BYTES;
        Self {
            namespaces: 1,
            processes,
            files: sockets + u64::from(processes) * OWN_FILES,
            sockets,
            memory_bytes: sockets * per_socket,
        }
    }

    /// Fails with one sentence where the host has too little.
    pub(crate) fn require(&self) -> anyhow::Result<()> {
        let room = room();
        ensure!(
            room >= 256,
            "a process may have only {room} sockets here: raise the hard fd limit (ulimit -Hn) to 1,024 or more"
        );
        if let Some(files) = files::read(&Reads::default()) {
            let left = files.max.saturating_sub(files.allocated);
            ensure!(
                left / 10 * 9 > self.files,
                "it would open {} files, and the host has {} left (fs.file-max): choose a smaller --scale",
                grouped(self.files),
                grouped(left)
            );
        }
        // Leave half to other programs.
        let available = memory::available(&Reads::default()).context("read MemAvailable of /proc/meminfo")?;
        ensure!(
            available / 2 > self.memory_bytes,
            "it would use {} of memory, more than half of the {} available (MemAvailable): choose a \
             smaller --scale",
            bytes(self.memory_bytes),
            bytes(available)
        );
        Ok(())
    }

    /// The needs in words.
    pub(crate) fn sentence(&self) -> String {
        let Self { namespaces, processes, files, sockets, memory_bytes } = *self;
        let many = |count: u64, one: &str| {
            if count == 1 { format!("1 {one}") } else { format!("{} {one}{}", grouped(count), plural(one)) }
        };
        format!(
            "{}, {}, {}, {}, about {} of memory",
            many(namespaces.into(), "private network namespace"),
            many(processes.into(), "worker process"),
            many(sockets, "TCP socket"),
            many(files, "file descriptor"),
            bytes(memory_bytes)
        )
    }
}

fn plural(one: &str) -> &'static str {
    if one.ends_with('s') { "es" } else { "s" }
}

/// `70 MiB`, `11 GiB`; at least `1 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => "1 MiB".to_owned(),
        1_048_576..10_737_418_240 => format!("{} MiB", grouped(bytes >> 20)),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_have_a_sentence_and_too_large_ones_are_refused() {
        let needs = Needs { namespaces: 1, processes: 12, files: 201_000, sockets: 200_000, memory_bytes: 900 << 20 };
        let words = "1 private network namespace, 12 worker processes, 200,000 TCP sockets, 201,000 file descriptors, \
            about 900 MiB of memory";
        assert_eq!(needs.sentence(), words);
        let refused = Needs { memory_bytes: 1 << 60, ..needs }.require().unwrap_err().to_string();
        assert!(refused.contains("--scale"), "{refused}");
    }
}
