//! `int tcp_connect(struct sock *sk)`: the SYN is about to be sent, the local port is chosen, and the current task is
//! the one that called connect(). Where it cannot be hooked, the state hook's CLOSE>SYN_SENT record has the process.
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_output.c#L4103>

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use observer_ebpf::abi::Kind;

use crate::{
    emit::emit_by_task,
    kernel::{Fields, Typed},
    maps::is_suspended,
    sock::{Sock, state},
};

#[fentry(function = "tcp_connect")]
fn connect_fentry(ctx: FEntryContext) -> i32 {
    if !is_suspended()
        // SAFETY: the first parameter is a `struct sock *`.
        && let Some(sock) = unsafe { Typed::given(ctx.arg(0)) }.and_then(Sock::full)
    {
        on_connect(&ctx, sock);
    }
    0
}

#[kprobe]
fn connect_kprobe(ctx: ProbeContext) -> u32 {
    if !is_suspended() {
        Sock::copied(ctx.arg(0).unwrap_or(0), |sock| on_connect(&ctx, sock));
    }
    0
}

#[inline(always)]
fn on_connect<C: EbpfContext, F: Fields>(ctx: &C, sock: Sock<F>) {
    let Some(mut record) = sock.record(Kind::Connect, ctx) else { return };
    record.header.new_state = state::SYN_SENT;
    emit_by_task(record);
}
