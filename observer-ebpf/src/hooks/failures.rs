//! Reports bind(), connect() and listen() calls that get no address or port, with their errno, as they return. The state hook
//! reports what happened to the socket during connect().
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/syscalls.h>

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{fexit, map, tracepoint},
    maps::LruHashMap,
    programs::{FExitContext, TracePointContext},
};
use observer_ebpf::abi::{CallFlags, CallRecord, Kind, Loss};

use super::accept::{sock_of_fd, sys_exit_ret};
use crate::{
    emit::{count, emit},
    kernel::{Fields as _, KernelPtr, Typed},
    maps::offset,
    sock::{AF_INET, AF_INET6, IPPROTO_MPTCP, IPPROTO_TCP, Sock, v4_mapped},
    task::{Process, current_cgroup},
};

/// Where the format of every `syscalls:*` event keeps `__syscall_nr`.
const SYSCALL_NR: usize = 8;
/// Where the formats of `syscalls:sys_enter_*` keep the first two arguments: the descriptor in all three calls, the address in
/// bind() and connect().
const ARGUMENT_1: usize = 16;
const ARGUMENT_2: usize = 24;

const AF_UNSPEC: u16 = 0;
const EADDRINUSE: u32 = 98;
const EADDRNOTAVAIL: u32 = 99;

/// A call that a thread has entered.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    fd: u64,
    /// User pointer to the address; 0 for listen(), which has none. It is read only if the call fails.
    address: u64,
}

/// The last bind(), connect() or listen() of each thread, which it may still be in. Beyond this number of threads the map drops
/// the one that called longest ago.
#[map]
static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(4096, 0);

/// `struct sockaddr_in6`; `struct sockaddr_in` has the same first three fields.
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

/// Attached to the function of bind(). Its one parameter is the registers of the calling process.
#[fexit]
fn failures_bind_fexit(ctx: FExitContext) -> i32 {
    on_return(&ctx, Request::Bind);
    0
}

/// Attached to the function of connect().
#[fexit]
fn failures_connect_fexit(ctx: FExitContext) -> i32 {
    on_return(&ctx, Request::Connect);
    0
}

/// Attached to the function of listen().
#[fexit]
fn failures_listen_fexit(ctx: FExitContext) -> i32 {
    on_return(&ctx, Request::Listen);
    0
}

/// Attached to `syscalls:sys_enter_bind` and `syscalls:sys_enter_connect`.
#[tracepoint]
fn failures_address_sys_enter(ctx: TracePointContext) -> u32 {
    note_call(&ctx, argument::<ARGUMENT_2>(&ctx));
    0
}

/// Attached to `syscalls:sys_enter_listen`.
#[tracepoint]
fn failures_listen_sys_enter(ctx: TracePointContext) -> u32 {
    note_call(&ctx, 0);
    0
}

/// Attached to `syscalls:sys_exit_bind` and `syscalls:sys_exit_listen`.
#[tracepoint]
fn failures_bind_sys_exit(ctx: TracePointContext) -> u32 {
    on_sys_exit(&ctx, Request::Bind);
    0
}

/// Attached to `syscalls:sys_exit_connect`.
#[tracepoint]
fn failures_connect_sys_exit(ctx: TracePointContext) -> u32 {
    on_sys_exit(&ctx, Request::Connect);
    0
}

/// What a call asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Bind,
    Connect,
    Listen,
}

#[inline(always)]
fn on_sys_exit(ctx: &TracePointContext, request: Request) {
    if let Some(errno @ (EADDRINUSE | EADDRNOTAVAIL)) = errno(sys_exit_ret(ctx))
        // SAFETY: the entry is this thread's own, and the thread is here.
        && let Some(call) = unsafe { CALLS.get(bpf_get_current_pid_tgid()) }
    {
        let request = if call.address == 0 { Request::Listen } else { request };
        report(number(ctx), errno, *call, request);
    }
}

#[inline(always)]
fn on_return(ctx: &FExitContext, request: Request) {
    if let Some(errno @ (EADDRINUSE | EADDRNOTAVAIL)) = errno(ctx.arg(1))
        && let Some(registers) = registers(ctx)
    {
        let arguments = (registers.read(offset!(regs_argument_1)), registers.read(offset!(regs_argument_2)));
        let (Some(fd), Some(address)) = arguments else { return count(Loss::ReadFailed) };
        report(registers.read(offset!(regs_call)).unwrap_or(0), errno, Call { fd, address }, request);
    }
}

/// The registers of a system call whose function is hooked.
#[inline(always)]
pub(super) fn registers(ctx: &FExitContext) -> Option<Typed> {
    // SAFETY: the parameter of these functions is a `struct pt_regs *`.
    unsafe { Typed::given(ctx.arg(0)) }
}

/// The errno of a call that failed.
#[inline(always)]
pub(super) fn errno(ret: i64) -> Option<u32> {
    u32::try_from(ret.unsigned_abs()).ok().filter(|_| ret < 0)
}

/// The number of the system call that an event is about.
#[inline(always)]
pub(super) fn number(ctx: &TracePointContext) -> u32 {
    // SAFETY: the helper checks the address.
    unsafe { ctx.read_at(SYSCALL_NR) }.unwrap_or(0)
}

/// The argument of a system call that its event keeps `AT` bytes from its start.
#[inline(always)]
fn argument<const AT: usize>(ctx: &TracePointContext) -> u64 {
    // SAFETY: the verifier checks loads from the context; a helper would cost more than the rest.
    unsafe { ctx.as_ptr().add(AT).cast::<u64>().read() }
}

#[inline(always)]
fn note_call(ctx: &TracePointContext, address: u64) {
    let (thread, call) = (bpf_get_current_pid_tgid(), Call { fd: argument::<ARGUMENT_1>(ctx), address });
    // Every connect() comes here. To overwrite a slot costs a third of an insertion, and the thread's next call needs the slot
    // again.
    if let Some(slot) = CALLS.get_ptr_mut(thread) {
        // SAFETY: the map lookup returned a live slot, which is this thread's own.
        unsafe { *slot = call };
    } else if CALLS.insert(thread, call, 0).is_err() {
        count(Loss::ReadFailed);
    }
}

impl SockAddr {
    /// The address, as records have it.
    #[inline(always)]
    fn ip(&self) -> Option<[u8; 16]> {
        match self.family {
            // bind() treats AF_UNSPEC as AF_INET.
            AF_INET | AF_UNSPEC => Some(v4_mapped(self.flow_or_v4)),
            AF_INET6 => Some(self.v6),
            _ => None,
        }
    }
}

#[inline(always)]
fn report(number: u32, errno: u32, call: Call, request: Request) {
    // Other protocols have ports of their own.
    let Some(sock) = sock_of_fd(call.fd).and_then(tcp) else { return };
    // What the socket is bound to, if it is.
    let Some(bound) = sock.four_tuple(Kind::CallFailed) else { return count(Loss::ReadFailed) };
    let Process { pid, comm } = Process::current();
    let mut record = CallRecord {
        header: bound.header,
        local: bound.local,
        remote: [0; 16],
        comm,
        call: number,
        errno,
        own_range: sock.own_range(),
        flags: ipv6_flags(sock),
        device: sock.device(),
        padding: 0,
    };
    record.header.pid = pid;
    record.header.at_ns_or_cgroup = current_cgroup();
    record.header.remote_port = 0;
    if request != Request::Listen {
        // SAFETY: the helper checks the address.
        let asked = unsafe { bpf_probe_read_user(call.address as *const SockAddr) };
        let Ok(asked) = asked else { return count(Loss::ReadFailed) };
        let Some(ip) = asked.ip() else { return };
        let port = u16::from_be(asked.port);
        if request == Request::Connect {
            (record.remote, record.header.remote_port) = (ip, port);
        } else {
            (record.local, record.header.local_port) = (ip, port);
        }
    }
    emit(record);
}

/// [`CallFlags`] of the socket's namespace.
#[inline(always)]
fn ipv6_flags(sock: Sock<KernelPtr>) -> u32 {
    let is_disabled = |conf: KernelPtr| conf.read(offset!(disable_ipv6)).is_some_and(|value: i32| value != 0);
    let Some(net) = sock.net() else { return 0 };
    let mut flags = 0;
    if net.follow(offset!(net_ipv6_all)).is_some_and(is_disabled) {
        flags |= CallFlags::IPV6_DISABLED;
    }
    let loopback = net.follow(offset!(net_loopback)).and_then(|device| device.follow(offset!(dev_ip6)));
    if loopback.is_some_and(|ip6| is_disabled(ip6.add(u64::from(offset!(ip6_conf))))) {
        flags |= CallFlags::IPV6_DISABLED_ON_LOOPBACK;
    }
    flags
}

/// The TCP socket behind a socket that a process owns; of an MPTCP socket, its first subflow.
#[inline(always)]
fn tcp(sock: KernelPtr) -> Option<Sock<KernelPtr>> {
    match sock.read(offset!(sk_protocol))? {
        IPPROTO_TCP => Sock::of_tcp(sock),
        IPPROTO_MPTCP => Sock::first_subflow(sock),
        _ => None,
    }
}
