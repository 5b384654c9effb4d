//! `inet_sock_set_state(sk, oldstate, newstate)`: every change of a full TCP socket's state. Tracepoint since 4.16.
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sock.h#L131>

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use observer_ebpf::abi::Kind;

use crate::{
    emit::{emit, emit_by_task},
    sock::{Sock, state},
};

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_tp(ctx: RawTracePointContext) -> i32 {
    on_set_state(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn on_set_state(ctx: &RawTracePointContext, sock: u64, old: u8, new: u8) {
    // CLOSE>CLOSE says nothing. LISTEN>SYN_RECV comes before the clone has its addresses (up to 6.12);
    // SYN_RECV>ESTABLISHED follows and has them.
    if (old == state::CLOSE && new == state::CLOSE) || new == state::SYN_RECV && old == state::LISTEN {
        return;
    }
    let Some(sock) = Sock::full(sock) else { return };
    // connect() gives up a socket that it found no port for.
    let unsent = if old == state::SYN_SENT && new == state::CLOSE { sock.unsent_flag() } else { 0 };
    // connect() and listen() run in the context of their process. Other changes may come from any softirq.
    let by_task = unsent != 0 || old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN);
    let kind = if by_task { Kind::StateByTask } else { Kind::State };
    let Some(mut record) = sock.record(kind, ctx) else {
        return;
    };
    if new == state::CLOSE && record.header.local_port == 0 {
        record.header.local_port = sock.released_port();
    }
    // SAFETY: the helper takes no argument and has no failure.
    record.header.at_ns = unsafe { bpf_ktime_get_ns() };
    record.header.old_state = old;
    record.header.new_state = new;
    record.header.flags |= unsent;
    // The peer's answer to a close() that is over: whoever held the socket has let go of it by now.
    if new == state::FIN_WAIT2 || new == state::CLOSING {
        record.header.flags |= sock.orphan_flag();
    }
    if by_task {
        emit_by_task(record);
    } else {
        emit(record);
    }
}
