//! `tcp_destroy_sock(sk)`: the end of a socket, after which the kernel may reuse its address. The hook reports it unless this
//! CPU has just reported the change to CLOSE: the record repairs one that was lost. Tracepoint since 4.16.
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/tcp.h>

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use observer_ebpf::abi::Kind;

use crate::{
    emit::emit,
    kernel::{Fields, KernelPtr, Typed},
    maps::{is_suspended, was_just_closed},
    sock::Sock,
};

#[btf_tracepoint(function = "tcp_destroy_sock")]
fn destroy_tp_btf(ctx: BtfTracePointContext) -> i32 {
    if !is_suspended()
        && !was_just_closed(ctx.arg(0))
        // SAFETY: the first argument of this tracepoint is a `struct sock *`.
        && let Some(sock) = unsafe { Typed::given(ctx.arg(0)) }
        && let Some(sock) = Sock::full(sock)
    {
        on_destroy(sock);
    }
    0
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
fn destroy_raw_tp(ctx: RawTracePointContext) -> i32 {
    if !is_suspended()
        && !was_just_closed(ctx.arg(0))
        && let Some(sock) = KernelPtr::new(ctx.arg(0)).and_then(Sock::full)
    {
        on_destroy(sock);
    }
    0
}

#[inline(always)]
fn on_destroy<F: Fields>(sock: Sock<F>) {
    emit(sock.header(Kind::Destroy));
}
