//! Reports system calls that get no descriptor (EMFILE) or no file (ENFILE). The program reads the limit and the descriptors
//! while the call returns: EMFILE has other causes than `RLIMIT_NOFILE`, and only that moment distinguishes them.
//! <https://elixir.bootlin.com/linux/v6.12/source/fs/file.c#L542>

use aya_ebpf::{
    helpers::bpf_get_current_task,
    macros::{fexit, tracepoint},
    programs::{FExitContext, TracePointContext},
};
use observer_ebpf::abi::{FdCallRecord, Kind, Offsets, RecordHeader};

use super::{
    accept::sys_exit_ret,
    failures::{errno, number, registers},
};
use crate::{
    emit::emit,
    kernel::{Fields as _, KernelPtr, forget},
    maps::{offset, setting},
    task::{Process, current_cgroup},
};

const ENFILE: u32 = 23;
const EMFILE: u32 = 24;
/// `RLIMIT_NOFILE` of include/uapi/asm-generic/resource.h.
const RLIMIT_NOFILE: u16 = 7;
/// `struct rlimit` is two unsigned longs.
const RLIMIT_SIZE: u16 = 16;
/// How many words of 64 descriptors the search for a free one looks at.
const WORDS: u32 = 64;

/// Attached to the function of socket() itself. Its one parameter is the registers of the calling process.
#[fexit]
fn failures_socket_fexit(ctx: FExitContext) -> i32 {
    on_fd_return(&ctx);
    0
}

/// Attached to the function of accept().
#[fexit]
fn failures_accept_fexit(ctx: FExitContext) -> i32 {
    on_fd_return(&ctx);
    0
}

/// Attached to the function of accept4().
#[fexit]
fn failures_accept4_fexit(ctx: FExitContext) -> i32 {
    on_fd_return(&ctx);
    0
}

/// Attached to the exits of the calls that make descriptors.
#[tracepoint]
fn failures_fd_sys_exit(ctx: TracePointContext) -> u32 {
    if let Some(errno @ (EMFILE | ENFILE)) = errno(sys_exit_ret(&ctx)) {
        report(number(&ctx), errno);
    }
    0
}

#[inline(always)]
fn on_fd_return(ctx: &FExitContext) {
    if let Some(errno @ (EMFILE | ENFILE)) = errno(ctx.arg(1))
        && let Some(registers) = registers(ctx)
    {
        report(registers.read(offset!(regs_call)).unwrap_or(0), errno);
    }
}

#[inline(always)]
fn report(call: u32, errno: u32) {
    // SAFETY: the helper takes no argument and has no failure.
    let Some(task) = KernelPtr::new(unsafe { bpf_get_current_task() }) else { return };
    let Some(mut header) = of_namespace(task) else { return };
    let Process { pid, comm } = Process::current();
    header.pid = pid;
    let limit = nofile(task);
    let unknown =
        FdCallRecord { limit: FdCallRecord::UNKNOWN_LIMIT, open: 0, first: 0, header, comm, call, errno, padding: 0 };
    // Without the descriptors, the limit alone could name the wrong cause.
    let Some(known) = limit.zip(OpenDescriptors::of(task)) else {
        emit(unknown);
        return;
    };
    let mut start = (unknown, known);
    forget(&mut start);
    let (record, (limit, table)) = start;
    emit(match table.first_free() {
        Some((first, open)) => FdCallRecord { limit, first, open, ..record },
        None => record,
    });
}

/// The task's soft `RLIMIT_NOFILE`.
#[inline(always)]
fn nofile(task: KernelPtr) -> Option<u64> {
    if offset!(signal_rlim) == Offsets::ABSENT {
        return None;
    }
    task.follow(offset!(task_signal))?.read(offset!(signal_rlim) + RLIMIT_NOFILE * RLIMIT_SIZE)
}

/// The open descriptors of a process: a bit for each.
#[derive(Clone, Copy)]
struct OpenDescriptors {
    bits: u64,
    /// How many bits there are.
    end: u32,
    /// Where `alloc_fd` begins its search.
    next: u32,
}

impl OpenDescriptors {
    #[inline(always)]
    fn of(task: KernelPtr) -> Option<Self> {
        let files = task.follow(offset!(task_files))?;
        let next = files.read(offset!(files_next_fd))?;
        let table = files.follow(offset!(files_fdt))?;
        let end = table.read(offset!(fdt_max_fds))?;
        Some(Self { bits: table.follow(offset!(fdt_open_fds))?.address(), end, next })
    }

    /// The first 64 descriptors that are not all open, as the number of the first and a bit for each.
    #[inline(always)]
    fn first_free(self) -> Option<(u32, u64)> {
        let bits = KernelPtr::new(self.bits)?;
        let mut first = self.next & !63;
        for _ in 0..WORDS {
            // Beyond its table a process has nothing open.
            if first >= self.end {
                return Some((first, 0));
            }
            let open: u64 = bits.add(u64::from(first / 8)).read(0)?;
            if open != u64::MAX {
                return Some((first, open));
            }
            first += 64;
        }
        Some((first, 0))
    }
}

/// The start of a record about no socket, if the task's namespace is watched.
#[inline(always)]
fn of_namespace(task: KernelPtr) -> Option<RecordHeader> {
    let net = task.follow(offset!(task_nsproxy))?.follow(offset!(nsproxy_net_ns))?;
    let netns: u32 = net.read(offset!(net_inum))?;
    let watched = setting!(netns);
    (watched == 0 || watched == netns).then_some(RecordHeader {
        sock: 0,
        at_ns_or_cgroup: current_cgroup(),
        netns,
        pid: 0,
        local_port: 0,
        remote_port: 0,
        kind: Kind::FdCallFailed as u8,
        flags: 0,
        old_state: 0,
        new_state: 0,
    })
}
