//! System calls that fail for want of a descriptor or of a port: told as they return to their process. What connect()
//! cannot get shows in the state hook.
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/syscalls.h>

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_user},
    macros::{fexit, tracepoint},
    programs::{FExitContext, TracePointContext},
};
use observer_ebpf::abi::{CallRecord, Kind, Loss, RecordHeader};

use super::accept::{sock_of_fd, sys_exit_ret};
use crate::{
    emit::{count, emit},
    kernel::{Fields as _, KernelPtr, Typed},
    maps::{BINDS, offset, setting},
    sock::{AF_INET, AF_INET6, IPPROTO_MPTCP, IPPROTO_TCP, Sock, v4_mapped},
    task::Process,
};

/// Where the format of every `syscalls:*` event keeps `__syscall_nr`.
const SYSCALL_NR: usize = 8;
/// Where the format of `syscalls:sys_enter_bind` keeps `fd` and `umyaddr`.
const BIND_FD: usize = 16;
const BIND_ADDRESS: usize = 24;

const ENFILE: u32 = 23;
const EMFILE: u32 = 24;
const EADDRINUSE: u32 = 98;

/// What a process has asked bind() for.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Bind {
    fd: u64,
    address: SockAddr,
}

/// `struct sockaddr_in6`, which `struct sockaddr_in` begins like.
#[repr(C)]
#[derive(Clone, Copy)]
struct SockAddr {
    family: u16,
    /// Network order.
    port: u16,
    /// The address, of IPv4.
    flow_or_v4: u32,
    v6: [u8; 16],
}

/// Attached to the function of socket() itself. One parameter: the registers that the process has called with.
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

/// Attached to the function of bind().
#[fexit]
fn failures_bind_fexit(ctx: FExitContext) -> i32 {
    on_bind_return(&ctx);
    0
}

/// Attached to the exits of the calls that make descriptors.
#[tracepoint]
fn failures_fd_sys_exit(ctx: TracePointContext) -> u32 {
    if let Some(errno @ (EMFILE | ENFILE)) = errno(sys_exit_ret(&ctx)) {
        tell(number(&ctx), errno, None);
    }
    0
}

/// Attached to `syscalls:sys_enter_bind`.
#[tracepoint]
fn failures_bind_sys_enter(ctx: TracePointContext) -> u32 {
    note_bind(&ctx);
    0
}

/// Attached to `syscalls:sys_exit_bind`.
#[tracepoint]
fn failures_bind_sys_exit(ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if let Some(EADDRINUSE) = errno(sys_exit_ret(&ctx))
        // SAFETY: the entry is this thread's own, and the thread is here.
        && let Some(bind) = unsafe { BINDS.get(thread) }
    {
        tell(number(&ctx), EADDRINUSE, Some(*bind));
    }
    // Absent where the entry was not seen.
    let _ = BINDS.remove(thread);
    0
}

#[inline(always)]
fn on_fd_return(ctx: &FExitContext) {
    if let Some(errno @ (EMFILE | ENFILE)) = errno(ctx.arg(1))
        && let Some(registers) = registers(ctx)
    {
        tell(registers.read(offset!(regs_call)).unwrap_or(0), errno, None);
    }
}

#[inline(always)]
fn on_bind_return(ctx: &FExitContext) {
    if let Some(EADDRINUSE) = errno(ctx.arg(1))
        && let Some(registers) = registers(ctx)
    {
        let arguments = (registers.read(offset!(regs_argument_1)), registers.read(offset!(regs_argument_2)));
        let bind = if let (Some(fd), Some(address)) = arguments { Bind::read(fd, address) } else { None };
        match bind {
            Some(bind) => tell(registers.read(offset!(regs_call)).unwrap_or(0), EADDRINUSE, Some(bind)),
            None => count(Loss::ReadFailed),
        }
    }
}

#[inline(always)]
fn registers(ctx: &FExitContext) -> Option<Typed> {
    // SAFETY: the parameter of these functions is a `struct pt_regs *`.
    unsafe { Typed::given(ctx.arg(0)) }
}

/// What the call failed with, if it did.
#[inline(always)]
fn errno(ret: i64) -> Option<u32> {
    u32::try_from(ret.unsigned_abs()).ok().filter(|_| ret < 0)
}

/// The number of the system call that an event is about.
#[inline(always)]
fn number(ctx: &TracePointContext) -> u32 {
    // SAFETY: the helper checks the address.
    unsafe { ctx.read_at(SYSCALL_NR) }.unwrap_or(0)
}

impl Bind {
    /// What a call of bind() with these arguments asks for; `None` if the process has no such memory at hand.
    #[inline(always)]
    fn read(fd: u64, address: u64) -> Option<Self> {
        // SAFETY: the helper checks the address.
        let address = unsafe { bpf_probe_read_user(address as *const SockAddr) }.ok()?;
        Some(Self { fd, address })
    }
}

#[inline(always)]
fn note_bind(ctx: &TracePointContext) {
    // SAFETY: the helper checks the address.
    let (Ok(fd), Ok(address)) = (unsafe { ctx.read_at(BIND_FD) }, unsafe { ctx.read_at(BIND_ADDRESS) }) else { return };
    let Some(bind) = Bind::read(fd, address) else { return };
    if BINDS.insert(bpf_get_current_pid_tgid(), bind, 0).is_err() {
        count(Loss::ReadFailed);
    }
}

#[inline(always)]
fn tell(call: u32, errno: u32, bind: Option<Bind>) {
    let (mut header, local) = match bind {
        None => (of_current_namespace(), [0; 16]),
        Some(bind) => {
            // Sockets other than of TCP have ports of their own.
            let Some(sock) = sock_of_fd(bind.fd).and_then(bound) else { return };
            let local = match bind.address.family {
                AF_INET => v4_mapped(bind.address.flow_or_v4),
                AF_INET6 => bind.address.v6,
                _ => return,
            };
            let mut header = sock.header(Kind::CallFailed);
            header.local_port = u16::from_be(bind.address.port);
            (Some(header), local)
        }
    };
    let Some(header) = &mut header else { return };
    let Process { pid, comm } = Process::current();
    header.pid = pid;
    emit(CallRecord { header: *header, local, comm, call, errno });
}

/// The TCP socket that a process has bound, MPTCP's included.
#[inline(always)]
fn bound(sock: KernelPtr) -> Option<Sock<KernelPtr>> {
    match sock.read(offset!(sk_protocol))? {
        IPPROTO_TCP => Sock::of_tcp(sock),
        IPPROTO_MPTCP => Sock::first_subflow(sock),
        _ => None,
    }
}

/// The start of a record about no socket, if the current task's namespace is watched.
#[inline(always)]
fn of_current_namespace() -> Option<RecordHeader> {
    // SAFETY: the helper takes no argument and has no failure.
    let task = KernelPtr::new(unsafe { bpf_get_current_task() })?;
    let net = task.follow(offset!(task_nsproxy))?.follow(offset!(nsproxy_net_ns))?;
    let netns: u32 = net.read(offset!(net_inum))?;
    let watched = setting!(netns);
    (watched == 0 || watched == netns).then_some(RecordHeader {
        sock: 0,
        at_ns: 0,
        netns,
        pid: 0,
        local_port: 0,
        remote_port: 0,
        kind: Kind::CallFailed as u8,
        flags: 0,
        old_state: 0,
        new_state: 0,
    })
}
