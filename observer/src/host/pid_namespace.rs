//! In which pid namespace processes are numbered. The kernel side knows each process by all of its numbers, /proc by that
//! of the pid namespace for which it was mounted, and an iterator over open files shows the processes of the pid namespace
//! that its maker is in: inside a container these are three different things.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{proc, text};
use crate::model::quality::ProcessScope;

/// `PROC_PID_INIT_INO` of include/linux/proc_ns.h: the same on every kernel.
const INITIAL: u32 = 0xEFFF_FFFC;

/// How the processes of the kernel side and those of /proc become the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidView {
    /// The pid namespace of this process.
    own: u32,
    /// That for which the process table was mounted.
    table: u32,
}

impl PidView {
    /// Of this process and the table that it reads. What cannot be read is taken for the initial pid namespace.
    #[must_use]
    pub fn read() -> Self {
        let own = inode(Path::new("/proc/self/ns/pid")).unwrap_or(INITIAL);
        let first = || inode(&proc::root().join("1/ns/pid"));
        // Another user's process 1 shows its namespaces to nobody without CAP_SYS_PTRACE. A process that has one number in
        // a table is in the pid namespace of that table.
        let table = first().or_else(|| has_one_number().then_some(own));
        Self { own, table: table.unwrap_or(INITIAL) }
    }

    /// The pid namespace by whose numbers the kernel side is to name processes; `None` for the initial one.
    #[must_use]
    pub fn numbering(self) -> Option<u32> {
        (self.table != INITIAL).then_some(self.table)
    }

    /// Whether an iterator over open files leaves out processes that the table has: these are looked for there.
    #[must_use]
    pub fn needs_walk(self) -> bool {
        self.own != INITIAL && self.table != self.own
    }

    /// Whether system calls know processes by the numbers of the table.
    #[must_use]
    pub fn is_own(self) -> bool {
        self.own == self.table
    }

    /// Whose open files are found.
    #[must_use]
    pub fn scope(self) -> ProcessScope {
        // A table shows the processes of its pid namespace and of those inside it, whoever reads it.
        if self.table == INITIAL { ProcessScope::All } else { ProcessScope::PidNamespace }
    }
}

fn inode(link: &Path) -> Option<u32> {
    u32::try_from(fs::metadata(link).ok()?.ino()).ok()
}

/// `NSpid` of /proc/PID/status: the process's numbers from the pid namespace of that /proc on inwards.
fn has_one_number() -> bool {
    has_one_number_in(&text::string(proc::root().join("self/status")).unwrap_or_default())
}

pub(super) fn has_one_number_in(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_depends_on_both_namespaces() {
        const CONTAINER: u32 = 4_026_532_567;
        let view = |own, table| {
            let view = PidView { own, table };
            (view.numbering(), view.needs_walk(), view.is_own(), view.scope())
        };
        assert_eq!(view(INITIAL, INITIAL), (None, false, true, ProcessScope::All));
        assert_eq!(view(CONTAINER, CONTAINER), (Some(CONTAINER), false, true, ProcessScope::PidNamespace));
        // The host's /proc, mounted in a container.
        assert_eq!(view(CONTAINER, INITIAL), (None, true, false, ProcessScope::All));
        // The /proc of a container, read outside of it.
        assert_eq!(view(INITIAL, CONTAINER), (Some(CONTAINER), false, false, ProcessScope::PidNamespace));
    }

    #[test]
    fn the_tests_run_by_the_numbers_of_their_own_table() {
        assert!(PidView::read().is_own());
    }
}
