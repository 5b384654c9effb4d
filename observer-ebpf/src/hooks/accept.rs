//! `struct sock *inet_csk_accept(...)`: a connection leaves the accept queue in the context of the process that takes
//! it. Its parameters changed in 6.10 (commit 92ef0fd55ac8), and with them the slot of an fexit program's return value.
//! Where it cannot be hooked, the exit of the accept system calls gives a file descriptor, and that the socket.
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_connection_sock.c#L660>

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_task,
    macros::{fexit, kretprobe, tracepoint},
    programs::{FExitContext, RetProbeContext, TracePointContext},
};
use observer_ebpf::abi::Kind;

use crate::{
    emit::emit_by_task,
    kernel::{Fields as _, Head, KernelPtr},
    maps::offset,
    sock::Sock,
};

/// From 6.10: `(sk, struct proto_accept_arg *)`.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit_2_args(ctx: FExitContext) -> i32 {
    on_accept(&ctx, ctx.arg(2));
    0
}

/// Up to 6.9: `(sk, flags, err, kern)`.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit_4_args(ctx: FExitContext) -> i32 {
    on_accept(&ctx, ctx.arg(4));
    0
}

#[kretprobe]
fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    on_accept(&ctx, ctx.ret());
    0
}

/// Attached to `syscalls:sys_exit_accept` and `syscalls:sys_exit_accept4`.
#[tracepoint]
fn accept_sys_exit(ctx: TracePointContext) -> u32 {
    on_sys_exit(&ctx);
    0
}

/// Where the format of every `syscalls:sys_exit_*` event keeps `ret`.
const SYS_EXIT_RET: usize = 16;
/// `S_IFMT` and `S_IFSOCK` of include/uapi/linux/stat.h.
const FILE_TYPE: u16 = 0o170_000;
const FILE_TYPE_SOCKET: u16 = 0o140_000;

/// What the system call returns.
#[inline(always)]
pub(super) fn sys_exit_ret(ctx: &TracePointContext) -> i64 {
    // SAFETY: the verifier checks loads from the context; a helper would cost more than the rest of most runs.
    unsafe { ctx.as_ptr().add(SYS_EXIT_RET).cast::<i64>().read() }
}

#[inline(always)]
fn on_sys_exit(ctx: &TracePointContext) {
    let fd = sys_exit_ret(ctx);
    if fd < 0 {
        return;
    }
    if let Some(sock) = sock_of_fd(fd.cast_unsigned()) {
        on_accept(ctx, sock);
    }
}

/// The `struct sock` behind a file descriptor of the current task.
#[inline(always)]
pub(super) fn sock_of_fd(fd: u64) -> Option<u64> {
    // SAFETY: the helper takes no argument and has no failure.
    let task = KernelPtr::new(unsafe { bpf_get_current_task() })?;
    let table = task.follow(offset!(task_files))?.follow(offset!(files_fdt))?;
    let file = table.follow(offset!(fdt_fd))?.add(fd * 8).follow(0)?;
    sock_of_file(file)
}

/// The `struct sock` behind a `struct file`, if that is a socket.
#[inline(always)]
pub(crate) fn sock_of_file(file: KernelPtr) -> Option<u64> {
    let file = Head::of(file)?;
    let mode: u16 = KernelPtr::new(file.read(offset!(file_inode))?)?.read(offset!(inode_mode))?;
    if mode & FILE_TYPE != FILE_TYPE_SOCKET {
        return None;
    }
    let sock = KernelPtr::new(file.read(offset!(file_private_data))?)?.follow(offset!(socket_sk))?;
    Some(sock.address())
}

#[inline(always)]
fn on_accept<C: EbpfContext>(ctx: &C, sock: u64) {
    Sock::full_copied(sock, |sock, fields| {
        let Some(mut record) = sock.record(Kind::Accept, fields, ctx) else { return };
        record.header.new_state = fields.read(offset!(skc_state)).unwrap_or(0);
        emit_by_task(record);
    });
}
