//! `struct sock *inet_csk_accept(...)`: a connection leaves the accept queue in the context of the process that accepts
//! it. Its parameters changed in 6.10 (commit 92ef0fd55ac8), and with them the slot of an fexit program's return value.
//! Where it cannot be hooked, the exit of the accept system calls gives a file descriptor, which leads to the socket.
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
    kernel::{Fields, Head, KernelPtr, Typed},
    maps::{is_suspended, offset, setting},
    sock::Sock,
};

/// From 6.10: `(sk, struct proto_accept_arg *)`.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit_2_args(ctx: FExitContext) -> i32 {
    on_return(&ctx, ctx.arg(2));
    0
}

/// Up to 6.9: `(sk, flags, err, kern)`.
#[fexit(function = "inet_csk_accept")]
fn accept_fexit_4_args(ctx: FExitContext) -> i32 {
    on_return(&ctx, ctx.arg(4));
    0
}

#[kretprobe]
fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    if !is_suspended() {
        Sock::copied(ctx.ret(), |sock| on_accept(&ctx, sock));
    }
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

/// What the system call returns.
#[inline(always)]
pub(super) fn sys_exit_ret(ctx: &TracePointContext) -> i64 {
    // SAFETY: the verifier checks loads from the context; a helper would cost more than the rest of most runs.
    unsafe { ctx.as_ptr().add(SYS_EXIT_RET).cast::<i64>().read() }
}

#[inline(always)]
fn on_return(ctx: &FExitContext, sock: u64) {
    if !is_suspended()
        // SAFETY: what the function returns is a `struct sock *`.
        && let Some(sock) = unsafe { Typed::given(sock) }.and_then(Sock::full)
    {
        on_accept(ctx, sock);
    }
}

#[inline(always)]
fn on_sys_exit(ctx: &TracePointContext) {
    let fd = sys_exit_ret(ctx);
    if fd < 0 || is_suspended() {
        return;
    }
    if let Some(sock) = sock_of_fd(fd.cast_unsigned()) {
        Sock::copied(sock.address(), |sock| on_accept(ctx, sock));
    }
}

/// The `struct sock` behind a file descriptor of the current task, if that is a socket.
#[inline(always)]
pub(super) fn sock_of_fd(fd: u64) -> Option<KernelPtr> {
    let files = if setting!(typed_files) == 0 {
        // SAFETY: the helper takes no argument and has no failure.
        files_of(KernelPtr::new(unsafe { bpf_get_current_task() })?)
    } else {
        files_of(Typed::current_task()?)
    };
    sock_of_file(files?.add(fd * 8).follow(0)?)
}

/// The array of a task's files, by descriptor.
#[inline(always)]
fn files_of<F: Fields>(task: F) -> Option<KernelPtr> {
    task.follow(offset!(task_files))?.follow(offset!(files_fdt))?.read(offset!(fdt_fd)).and_then(KernelPtr::new)
}

/// The `struct sock` behind a `struct file`, if that is a socket.
#[inline(always)]
pub(crate) fn sock_of_file(file: KernelPtr) -> Option<KernelPtr> {
    let socket = SocketHead::of(file.follow(offset!(file_private_data))?)?;
    // The private data of other files is no socket that points back to the file.
    ((&socket).read(offset!(socket_file)) == Some(file.address())).then(|| (&socket).follow(offset!(socket_sk)))?
}

/// Holds the file and the sock of `struct socket` on every kernel seen.
type SocketHead = Head<48>;

#[inline(always)]
fn on_accept<C: EbpfContext, F: Fields>(ctx: &C, sock: Sock<F>) {
    let Some(mut record) = sock.record(Kind::Accept, ctx) else { return };
    record.header.new_state = sock.state();
    emit_by_task(record);
}
