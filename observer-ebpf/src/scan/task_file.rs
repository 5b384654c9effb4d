//! `iter/task_file`: every open file of every task, of all network namespaces; of these the TCP sockets. It tells which
//! process holds a socket that was there before the hooks, and which got one by fork or by passing.
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/bpf/task_iter.c#L374>

use core::ffi::c_void;

use observer_ebpf::abi::{COMM_LEN, HolderRecord, Kind};

use super::IterMeta;
use crate::{
    emit::emit_found,
    hooks::sock_of_file,
    kernel::KernelPtr,
    maps::offset,
    sock::{Sock, state},
};

/// `struct bpf_iter__task_file`
#[repr(C)]
struct IterTaskFile {
    meta: *const IterMeta,
    task: *const c_void,
    fd: u32,
    _padding: u32,
    file: *const c_void,
}

#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
extern "C" fn scan_task_file(ctx: *mut IterTaskFile) -> i32 {
    on_file(ctx);
    0
}

#[inline(always)]
fn on_file(ctx: *mut IterTaskFile) {
    // SAFETY: the kernel passes a valid context; the verifier checks each of these loads.
    let (meta, task, fd, file) = unsafe { (&*(*ctx).meta, (*ctx).task as u64, (*ctx).fd, (*ctx).file as u64) };
    let (Some(task), Some(file)) = (KernelPtr::new(task), KernelPtr::new(file)) else {
        return;
    };
    let Some(sock) = sock_of_file(file).and_then(Sock::of_process) else {
        return;
    };
    let mut header = sock.header(Kind::Holder);
    header.new_state = sock.state();
    // Bound and neither connected nor listening: no scan of the socket table shows it.
    if header.new_state == state::CLOSE {
        header.local_port = sock.local_port();
        header.flags = sock.flags();
    }
    header.pid = task.read(offset!(task_tgid)).unwrap_or(0);
    let leader = task.follow(offset!(task_group_leader)).unwrap_or(task);
    let comm = leader.read(offset!(task_comm)).unwrap_or([0; COMM_LEN]);
    emit_found(HolderRecord { header, comm, fd, padding: 0 });
    // SAFETY: `meta` is that of the running program's context.
    unsafe { meta.pace() };
}
