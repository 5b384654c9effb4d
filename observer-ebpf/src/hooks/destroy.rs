//! `tcp_destroy_sock(sk)`: the last word on a socket, after which its address may be used anew. It repairs a change to
//! CLOSE that was lost. Tracepoint since 4.16.
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/tcp.h>

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use observer_ebpf::abi::Kind;

use crate::{emit::emit, sock::Sock};

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
fn destroy_raw_tp(ctx: RawTracePointContext) -> i32 {
    on_destroy(ctx.arg(0));
    0
}

#[inline(always)]
fn on_destroy(sock: u64) {
    let Some(sock) = Sock::full(sock) else { return };
    let mut header = sock.header(Kind::Destroy);
    // SAFETY: the helper takes no argument and has no failure.
    header.at_ns = unsafe { bpf_ktime_get_ns() };
    emit(header);
}
