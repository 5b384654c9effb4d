//! `inet_sock_set_state(sk, oldstate, newstate)`: every change of a full TCP socket's state. Tracepoint since 4.16.
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sock.h#L131>

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use observer_ebpf::abi::Kind;

use crate::{
    emit::{emit, emit_by_task},
    kernel::Fields,
    maps::note_closed,
    sock::{Sock, orphan_flag, state},
};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if is_told(old, new)
        // SAFETY: the first argument of this tracepoint is a `struct sock *`.
        && let Some((sock, fields)) = unsafe { Sock::full_typed(ctx.arg(0)) }
    {
        on_set_state(&ctx, sock, &fields, old, new);
    }
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if is_told(old, new) {
        Sock::full_copied(ctx.arg(0), |sock, fields| on_set_state(&ctx, sock, fields, old, new));
    }
    0
}

/// CLOSE>CLOSE says nothing. LISTEN>SYN_RECV comes before the clone has its addresses (up to 6.12); SYN_RECV>ESTABLISHED
/// follows and has them.
#[inline(always)]
const fn is_told(old: u8, new: u8) -> bool {
    !(old == state::CLOSE && new == state::CLOSE || new == state::SYN_RECV && old == state::LISTEN)
}

#[inline(always)]
fn on_set_state<C: EbpfContext, F: Fields>(ctx: &C, sock: Sock, fields: &F, old: u8, new: u8) {
    // connect() gives up a socket that it found no port for.
    let unsent = if old == state::SYN_SENT && new == state::CLOSE { sock.unsent_flag() } else { 0 };
    // connect() and listen() run in the context of their process. Other changes may come from any softirq.
    let by_task = unsent != 0 || old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN);
    let kind = if by_task { Kind::StateByTask } else { Kind::State };
    let Some(mut record) = sock.record(kind, fields, ctx) else {
        return;
    };
    // Then its port outlives its connection, and its destruction is news.
    let keeps_port = new == state::CLOSE && record.header.local_port != 0;
    // A socket that has its port before connect() has bound it, and one that keeps it beyond its end has bound it by
    // name: such a port is nobody else's.
    if record.header.local_port != 0 && (by_task || new == state::CLOSE) {
        record.header.flags = sock.flags();
    }
    if new == state::CLOSE {
        if record.header.local_port == 0 {
            record.header.local_port = sock.released_port();
        }
        // The beginning of a TIME_WAIT, and the end of what its peer waits for, hang on the time. Nothing else does: to
        // read the clock costs a quarter of what a run does.
        // SAFETY: the helper takes no argument and has no failure.
        record.header.at_ns = unsafe { bpf_ktime_get_ns() };
        // What may leave a TIME_WAIT socket behind.
        if old == state::FIN_WAIT2 || old == state::CLOSING {
            record.header.flags |= sock.timestamps();
        }
    }
    record.header.old_state = old;
    record.header.new_state = new;
    record.header.flags |= unsent;
    // The peer's answer to a close() that is over: whoever held the socket has let go of it by now.
    if new == state::FIN_WAIT2 || new == state::CLOSING {
        record.header.flags |= orphan_flag(fields);
    }
    let was_told = if by_task { emit_by_task(record) } else { emit(record) };
    if new == state::CLOSE && was_told && !keeps_port {
        note_closed(sock.address());
    }
}
