//! `inet_sock_set_state(sk, oldstate, newstate)`: every change of a full TCP socket's state. Tracepoint since 4.16.
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sock.h#L131>

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use observer_ebpf::abi::{Kind, Loss};

use crate::{
    emit::{count, emit, emit_by_task},
    kernel::{Fields, Typed},
    maps::{is_suspended, note_closed},
    sock::{Sock, state},
};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn state_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if is_reported(old, new)
        // SAFETY: the first argument of this tracepoint is a `struct sock *`.
        && let Some(sock) = unsafe { Typed::given(ctx.arg(0)) }
        && let Some(sock) = Sock::full(sock)
    {
        on_set_state(&ctx, sock, old, new);
    }
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn state_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if is_reported(old, new) {
        Sock::copied(ctx.arg(0), |sock| on_set_state(&ctx, sock, old, new));
    }
    0
}

/// CLOSE>CLOSE is no change. LISTEN>SYN_RECV comes before the clone has its addresses (up to 6.12); SYN_RECV>ESTABLISHED
/// follows and has them.
#[inline(always)]
const fn is_reported(old: u8, new: u8) -> bool {
    !(old == state::CLOSE && new == state::CLOSE || new == state::SYN_RECV && old == state::LISTEN)
}

#[inline(always)]
fn on_set_state<C: EbpfContext, F: Fields>(ctx: &C, sock: Sock<F>, old: u8, new: u8) {
    // Here and not before: what is counted is what would be recorded, of the namespaces that are watched.
    if is_suspended() {
        return count(Loss::Suspended);
    }
    // The first and the last change need fields beyond `struct sock_common`.
    let whole = if old == state::CLOSE || new == state::CLOSE { sock.tcp_sock() } else { None };
    // connect() may have given up: its errno shows why.
    let unsent = match whole {
        Some(whole) if old == state::SYN_SENT && new == state::CLOSE => whole.unsent_flag(),
        _ => 0,
    };
    // connect() and listen() run in the context of their process. Other changes may come from any softirq.
    let by_task = unsent != 0 || old == state::CLOSE && (new == state::SYN_SENT || new == state::LISTEN);
    let kind = if by_task { Kind::StateByTask } else { Kind::State };
    let Some(mut record) = sock.record(kind, ctx) else {
        return;
    };
    // The port outlives the connection: the destruction of the socket has to be reported too.
    let keeps_port = new == state::CLOSE && record.header.local_port != 0;
    // A socket that has a port before connect() was bound before; one that keeps its port after its end was bound to that
    // number. Nobody else can use such a port.
    if record.header.local_port != 0
        && (by_task || new == state::CLOSE)
        && let Some(whole) = whole
    {
        record.header.flags = whole.flags();
    }
    if new == state::CLOSE {
        if record.header.local_port == 0 {
            record.header.local_port = whole.map_or(0, Sock::released_port);
        }
        // Only the start of a TIME_WAIT and the end of the peer's wait depend on the time. To read the clock costs a quarter
        // of a run.
        record.header.at_ns_or_cgroup = match whole {
            Some(whole) if unsent != 0 => u64::from(whole.own_range()),
            // SAFETY: the helper takes no argument and has no failure.
            _ => unsafe { bpf_ktime_get_ns() },
        };
        // Such a close may leave a TIME_WAIT socket behind.
        if old == state::FIN_WAIT2 || old == state::CLOSING {
            record.header.flags |= whole.map_or(0, Sock::timestamps) | sock.orphan_flag();
        }
        if old == state::LISTEN {
            record.header.flags |= whole.map_or(0, Sock::no_requests_flag);
        }
    }
    // It never changes: where a socket begins is enough.
    if old == state::CLOSE && by_task || old == state::SYN_RECV && new == state::ESTABLISHED {
        record.header.at_ns_or_cgroup = sock.cgroup();
    }
    record.header.old_state = old;
    record.header.new_state = new;
    record.header.flags |= unsent;
    // The peer answers a close() that has returned: no process owns the socket any more.
    if new == state::FIN_WAIT2 || new == state::CLOSING {
        record.header.flags |= sock.orphan_flag();
    }
    let was_emitted = if by_task { emit_by_task(record) } else { emit(record) };
    if new == state::CLOSE && was_emitted && !keeps_port {
        note_closed(sock.address());
    }
}
