//! `iter/tcp`: listeners, full sockets, TIME_WAIT and request sockets of the network namespace in which the iterator
//! was made. The kernel shows full sockets under their lock (since 5.15), where all state changes are made. Therefore records
//! of scans and hooks stand in their true order.
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_ipv4.c#L3104>

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use observer_ebpf::abi::{Kind, Loss, RecordHeader};

use super::IterMeta;
use crate::{
    emit::{count, emit_found},
    kernel::{Fields, Typed},
    maps::setting,
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
    // SAFETY: `sock` is the `sk_common` of the running program's context.
    let Some(shown) = (unsafe { Typed::given(sock) }) else {
        debug!(ctx, "end of the socket table");
        // SAFETY: `meta` is that of the running program's context.
        unsafe { meta.end() };
        return;
    };
    let Some(sock) = Sock::of_tcp(shown) else { return };
    let Some(mut record) = sock.four_tuple(Kind::Scanned) else {
        count(Loss::ReadFailed);
        return;
    };
    record.header.new_state = sock.state();
    match record.header.new_state {
        state::TIME_WAIT => match shown.tcp_timewait_sock() {
            Some(fields) => describe_time_wait(sock.by(fields), &mut record.header),
            None => describe_time_wait(sock.untyped(), &mut record.header),
        },
        state::NEW_SYN_RECV => {}
        _ => match shown.tcp_sock() {
            Some(fields) => describe_full(sock.by(fields), &mut record.header),
            None => describe_full(sock.untyped(), &mut record.header),
        },
    }
    emit_found(record);
    if record.header.new_state == state::LISTEN
        && let Some(queues) = sock.untyped().queues()
    {
        emit_found(queues);
    }
    if setting!(inodes) != 0
        && !matches!(record.header.new_state, state::TIME_WAIT | state::NEW_SYN_RECV)
        && let Some(inode) = sock.untyped().inode()
    {
        emit_found(inode);
    }
    // SAFETY: `meta` is that of the running program's context.
    unsafe { meta.pace() };
}

#[inline(always)]
fn describe_full<F: Fields>(sock: Sock<F>, header: &mut RecordHeader) {
    header.flags = sock.flags();
    header.at_ns_or_cgroup = sock.cgroup();
}

#[inline(always)]
fn describe_time_wait<F: Fields>(sock: Sock<F>, header: &mut RecordHeader) {
    header.old_state = sock.time_wait_substate();
    header.flags = sock.time_wait_flags();
    header.at_ns_or_cgroup = sock.time_wait_since_ns();
}
