//! Processes: the number and the name that user space knows them by.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
};
use observer_ebpf::abi::{COMM_LEN, Offsets, PID_OUTSIDE};

use crate::{
    kernel::{Fields, KernelPtr, Typed},
    maps::{offset, setting},
};

/// Members of `struct upid` (include/linux/pid.h): `int nr; struct pid_namespace *ns`.
const UPID_NR: u16 = 0;
const UPID_NS: u16 = 8;
const UPID_SIZE: u64 = 16;
/// `MAX_PID_NS_LEVEL` of include/linux/pid_namespace.h.
const MAX_PID_NS_LEVEL: u32 = 32;

/// A process, by its main thread: threads have names of their own.
#[derive(Clone, Copy)]
pub(crate) struct Process {
    /// As `RecordHeader::pid`.
    pub(crate) pid: u32,
    pub(crate) comm: [u8; COMM_LEN],
}

impl Process {
    /// The current one.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        let leader = if setting!(typed_files) == 0 {
            // SAFETY: the helper takes no argument and has no failure.
            KernelPtr::new(unsafe { bpf_get_current_task() }).and_then(|task| task.follow(offset!(task_group_leader)))
        } else {
            Typed::current_task().and_then(|task| task.follow(offset!(task_group_leader))).map(Typed::untyped)
        };
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        match leader {
            Some(leader) => Self::led_by(leader, tgid),
            None => Self { pid: tgid, comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]) },
        }
    }

    /// That of a task.
    #[inline(always)]
    pub(crate) fn of(task: Typed) -> Self {
        let leader = task.follow(offset!(task_group_leader)).unwrap_or(task);
        Self::led_by(leader.untyped(), task.read(offset!(task_tgid)).unwrap_or(0))
    }

    #[inline(always)]
    fn led_by(leader: KernelPtr, tgid: u32) -> Self {
        let pid = if setting!(pidns) == 0 { tgid } else { number(leader.address(), tgid) };
        Self { pid, comm: leader.read(offset!(task_comm)).unwrap_or([0; COMM_LEN]) }
    }
}

/// Id of the current task's cgroup in cgroup2; 0 where it is not known.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // A kernel without cgroups has no such helper.
    if offset!(cgroup_kn) == Offsets::ABSENT {
        return 0;
    }
    // SAFETY: the helper takes no argument and has no failure.
    unsafe { bpf_get_current_cgroup_id() }
}

/// The number of the process in the pid namespace that user space has chosen: `pid_nr_ns()` of kernel/pid.c. A function,
/// so that its loop is not in every program twice.
#[inline(never)]
fn number(leader: u64, tgid: u32) -> u32 {
    let wanted = setting!(pidns);
    let Some(pid) = KernelPtr::new(leader).and_then(|leader| leader.follow(offset!(task_thread_pid))) else {
        return tgid | PID_OUTSIDE;
    };
    let depth: u32 = pid.read(offset!(pid_level)).unwrap_or(0);
    let mut at = pid.add(u64::from(offset!(pid_numbers)));
    for level in 0..MAX_PID_NS_LEVEL {
        if level > depth {
            break;
        }
        if at.follow(UPID_NS).and_then(|ns| ns.read::<u32>(offset!(pidns_inum))) == Some(wanted) {
            return at.read(UPID_NR).unwrap_or(0);
        }
        at = at.add(UPID_SIZE);
    }
    tgid | PID_OUTSIDE
}
