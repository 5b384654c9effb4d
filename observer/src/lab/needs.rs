//! What a lab takes of the host, and whether the host has that much.

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::{
    host::{files, memory, text::Reads},
    model::units::grouped,
};

/// Descriptors that a process needs for itself: its standard streams, its line, the libraries.
const OWN_FILES: u64 = 64;
/// No worker holds more connections than this, even where it may: the work is to be shared out.
const ROOM: u64 = 20_000;
/// What observer itself takes for each socket that it counts, in bytes (measured at a million sockets).
const MODEL_BYTES: u64 = 512;
/// Where /proc/slabinfo is not to be read: what an idle socket took on the 64-bit kernels that were looked at.
const PER_SOCKET: u64 = 3_900;

/// What a lab takes while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Needs {
    /// Private network namespaces.
    pub(crate) namespaces: u32,
    /// Worker processes.
    pub(crate) processes: u32,
    /// Descriptors of all of them together.
    pub(crate) files: u64,
    /// TCP sockets.
    pub(crate) sockets: u64,
    /// Memory of kernel and observer for these, in bytes.
    pub(crate) memory_bytes: u64,
}

/// How many connections' ends one worker process can hold.
pub(crate) fn room() -> u32 {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    u32::try_from(hard.saturating_sub(OWN_FILES).min(ROOM)).unwrap_or(u32::MAX)
}

impl Needs {
    /// Of labs that hold `connections` at once, both ends of each.
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
            "a process may have {room} sockets here: raise the hard limit of descriptors (ulimit -Hn) to 1,024 or more"
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
        // Half of it stays for everybody else.
        let available = memory::available(&Reads::default()).context("read MemAvailable of /proc/meminfo")?;
        ensure!(
            available / 2 > self.memory_bytes,
            "it would take {} of memory, and no more than half of the {} that are available is left to it: choose a \
             smaller --scale",
            bytes(self.memory_bytes),
            bytes(available)
        );
        Ok(())
    }

    /// In words.
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

/// `1.4 GiB`, `70 MiB`; never nothing.
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
    fn tells_in_words_and_refuses_what_no_host_has() {
        let needs = Needs { namespaces: 1, processes: 12, files: 201_000, sockets: 200_000, memory_bytes: 900 << 20 };
        let words = "1 private network namespace, 12 worker processes, 200,000 TCP sockets, 201,000 file descriptors, \
            about 900 MiB of memory";
        assert_eq!(needs.sentence(), words);
        let refused = Needs { memory_bytes: 1 << 60, ..needs }.require().unwrap_err().to_string();
        assert!(refused.contains("--scale"), "{refused}");
    }
}
