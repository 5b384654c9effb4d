//! `int tcp_connect(struct sock *sk)`: the SYN is about to be sent, the local port is chosen, and the current task is
//! the one that called connect(). Where it cannot be hooked, the state hook's CLOSE>SYN_SENT names the process.
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_output.c#L4103>

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use observer_ebpf::abi::Kind;

use crate::{
    emit::emit_by_task,
    sock::{Sock, state},
};

#[fentry(function = "tcp_connect")]
fn connect_fentry(ctx: FEntryContext) -> i32 {
    on_connect(&ctx, ctx.arg(0));
    0
}

#[kprobe]
fn connect_kprobe(ctx: ProbeContext) -> u32 {
    on_connect(&ctx, ctx.arg(0).unwrap_or(0));
    0
}

#[inline(always)]
fn on_connect<C: EbpfContext>(ctx: &C, sock: u64) {
    Sock::full_copied(sock, |sock, fields| {
        let Some(mut record) = sock.record(Kind::Connect, fields, ctx) else { return };
        record.header.new_state = state::SYN_SENT;
        emit_by_task(record);
    });
}
