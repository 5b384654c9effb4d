//! `iter/task_file`: every open file of every task, in all network namespaces. The program reports the TCP sockets among them:
//! it finds the owners of sockets older than the hooks, and of those that were inherited or passed on, and listeners with their
//! queues.
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/bpf/task_iter.c#L374>

use core::ffi::c_void;

use observer_ebpf::abi::{BoundRecord, FdOwnerRecord, Kind, RecordHeader};

use super::IterMeta;
use crate::{
    emit::emit_found,
    hooks::sock_of_file,
    kernel::{Fields, KernelPtr, Typed, forget},
    maps::{offset, setting},
    sock::{IPPROTO_MPTCP, IPPROTO_TCP, Sock, Subflows, cgroup_of, is_dead, state},
    task::Process,
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
    // SAFETY: the kernel passes a valid context; the verifier checks each of these loads, and knows the types.
    let (meta, task, fd, file) =
        unsafe { (&*(*ctx).meta, Typed::given((*ctx).task as u64), (*ctx).fd, Typed::given((*ctx).file as u64)) };
    let (Some(task), Some(file)) = (task, file) else {
        // SAFETY: `meta` is that of the running program's context.
        unsafe { meta.end() };
        return;
    };
    let fd_owner = FdOwner { meta, task, fd };
    if setting!(typed_files) == 0 {
        if let Some(sock) = sock_of_file(file.untyped()) {
            fd_owner.report(sock);
        }
    } else if let Some(sock) = file.socket().and_then(|socket| socket.follow(offset!(socket_sk))) {
        fd_owner.report(sock);
    }
}

/// What the loop over subflows starts with.
#[derive(Clone, Copy)]
struct OtherSubflows {
    record: FdOwnerRecord,
    first: u64,
    others: Subflows,
}

/// A task and its descriptor of a file that is a socket.
struct FdOwner<'a> {
    meta: &'a IterMeta,
    task: Typed,
    fd: u32,
}

impl FdOwner<'_> {
    #[inline(always)]
    fn report<F: Fields>(&self, sock: F) {
        let protocol: u16 = sock.read(offset!(sk_protocol)).unwrap_or(0);
        if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
            return;
        }
        // Once, and not for each subflow: the verifier walks a loop within a loop step by step.
        let by = Process::of(self.task);
        let Some(held) = Sock::of_tcp(sock) else { return };
        if protocol == IPPROTO_TCP {
            self.emit(held, by);
            return;
        }
        let first = Sock::first_subflow(sock.untyped());
        if let Some(subflow) = first {
            self.emit(subflow, by);
        }
        self.emit_others(sock.untyped(), held.header(Kind::FdOwner), first.map_or(0, Sock::address), by);
    }

    /// The subflows of an MPTCP socket beside the first.
    #[inline(always)]
    fn emit_others(&self, mptcp: KernelPtr, mut header: RecordHeader, first: u64, Process { pid, comm }: Process) {
        header.pid = pid;
        let others = Subflows::of(mptcp);
        let mut it = OtherSubflows { record: FdOwnerRecord { header, comm, fd: self.fd, device: 0 }, first, others };
        forget(&mut it);
        for _ in 0..Subflows::MOST {
            let Some(subflow) = it.others.step() else { break };
            // The MPTCP socket outlives a subflow that it has closed.
            if subflow.address() != it.first && !is_dead(subflow) {
                it.record.header.sock = subflow.address();
                emit_found(it.record);
            }
        }
    }

    #[inline(always)]
    fn emit<F: Fields>(&self, sock: Sock<F>, Process { pid, comm }: Process) {
        let mut header = sock.header(Kind::FdOwner);
        let mut device = 0;
        header.new_state = sock.state();
        // Bound and neither connected nor listening: no scan of the socket table shows it. Listening: one pass shows the
        // listeners of all namespaces, where `iter/tcp` walks the whole hash table for each. The iterator holds the file:
        // close() by its process comes later.
        if matches!(header.new_state, state::CLOSE | state::LISTEN) {
            header.local_port = sock.local_port();
            device = sock.device();
            header.flags = sock.untyped().flags();
            header.at_ns_or_cgroup = cgroup_of(sock.address());
        }
        header.pid = pid;
        let mut fd_owner = FdOwnerRecord { header, comm, fd: self.fd, device };
        let local = if header.local_port == 0 { None } else { sock.untyped().local_ip() };
        match local {
            None => emit_found(fd_owner),
            Some(local) => {
                fd_owner.header.kind = Kind::Bound as u8;
                emit_found(BoundRecord { fd_owner, local });
            }
        }
        if header.new_state == state::LISTEN
            && let Some(queues) = sock.untyped().queues()
        {
            emit_found(queues);
        }
        // SAFETY: `meta` is that of the running program's context.
        unsafe { self.meta.pace() };
    }
}
