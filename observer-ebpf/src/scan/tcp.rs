//! `iter/tcp`: listeners, full sockets, TIME_WAIT and request sockets of the network namespace in which the iterator
//! was made. Full sockets are shown under their lock (since 5.15), where all state changes are made: so the records of
//! scan and hooks stand in their true order.
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_ipv4.c#L3104>

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use observer_ebpf::abi::{Kind, Loss};

use super::IterMeta;
use crate::{
    emit::{count, emit_found},
    kernel::Fields as _,
    maps::offset,
    sock::{Sock, state},
};

/// `struct bpf_iter__tcp`
#[repr(C)]
struct IterTcp {
    meta: *const IterMeta,
    sk_common: *const c_void,
    uid: u64,
}

struct IterContext(*mut IterTcp);

impl EbpfContext for IterContext {
    fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }
}

#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
extern "C" fn scan_tcp(ctx: *mut IterTcp) -> i32 {
    on_socket(&IterContext(ctx));
    0
}

#[inline(always)]
fn on_socket(ctx: &IterContext) {
    // SAFETY: the kernel passes a valid context; the verifier checks each of these loads.
    let (meta, sock) = unsafe { (&*(*ctx.0).meta, (*ctx.0).sk_common as u64) };
    if sock == 0 {
        debug!(ctx, "end of the socket table");
        return;
    }
    // SAFETY: `sock` is the `sk_common` of the running program's context.
    let Some((sock, fields)) = (unsafe { Sock::shown(sock) }) else { return };
    let Some(mut record) = sock.record_from(Kind::Scanned, &fields) else {
        count(Loss::ReadFailed);
        return;
    };
    record.header.new_state = fields.read(offset!(skc_state)).unwrap_or(0);
    match record.header.new_state {
        state::TIME_WAIT => {
            record.header.old_state = sock.time_wait_substate();
            record.header.flags = sock.time_wait_flags();
            record.header.at_ns = sock.time_wait_since_ns();
        }
        state::NEW_SYN_RECV => {}
        _ => record.header.flags = sock.flags(),
    }
    emit_found(record);
    if record.header.new_state == state::LISTEN
        && let Some(queues) = sock.queues()
    {
        emit_found(queues);
    }
    // SAFETY: `meta` is that of the running program's context.
    unsafe { meta.pace() };
}
