//! System calls whose failures observer reports: the names of their tracepoints and their numbers on this architecture.

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// As in `syscalls:sys_exit_<name>`.
    pub name: &'static str,
    number: libc::c_long,
}

impl Call {
    /// Makes the call with arguments that make it fail at once.
    pub(super) fn fail(self) {
        // SAFETY: there is no descriptor and no address family -1, and no memory is passed: the kernel refuses.
        unsafe { libc::syscall(self.number, -1_i64, 0_i64, 0_i64, 0_i64) };
    }
}

macro_rules! calls {
    ($($name:ident = $number:ident),* $(,)?) => {
        &[$(Call { name: stringify!($name), number: libc::$number }),*]
    };
}

/// Those that make the descriptors of sockets.
pub const OF_SOCKETS: &[Call] = calls![socket = SYS_socket, accept = SYS_accept, accept4 = SYS_accept4];

/// The others that make descriptors.
pub const OF_OTHER_FILES: &[Call] = calls![
    openat = SYS_openat,
    openat2 = SYS_openat2,
    open_by_handle_at = SYS_open_by_handle_at,
    dup = SYS_dup,
    dup3 = SYS_dup3,
    fcntl = SYS_fcntl,
    pipe2 = SYS_pipe2,
    socketpair = SYS_socketpair,
    epoll_create1 = SYS_epoll_create1,
    eventfd2 = SYS_eventfd2,
    signalfd4 = SYS_signalfd4,
    timerfd_create = SYS_timerfd_create,
    inotify_init1 = SYS_inotify_init1,
    fanotify_init = SYS_fanotify_init,
    memfd_create = SYS_memfd_create,
    userfaultfd = SYS_userfaultfd,
    perf_event_open = SYS_perf_event_open,
    pidfd_open = SYS_pidfd_open,
    pidfd_getfd = SYS_pidfd_getfd,
    io_uring_setup = SYS_io_uring_setup,
    bpf = SYS_bpf,
];

/// Older calls that make descriptors, which newer architectures lack.
#[cfg(target_arch = "x86_64")]
pub const OLDER: &[Call] = calls![
    open = SYS_open,
    creat = SYS_creat,
    dup2 = SYS_dup2,
    pipe = SYS_pipe,
    epoll_create = SYS_epoll_create,
    eventfd = SYS_eventfd,
    signalfd = SYS_signalfd,
    inotify_init = SYS_inotify_init,
];
/// Older calls that make descriptors: there is none.
#[cfg(not(target_arch = "x86_64"))]
pub const OLDER: &[Call] = &[];

/// Binds a socket to an address, or to a port of the range.
pub const BIND: Call = Call { name: "bind", number: libc::SYS_bind };
/// Needs a local address and a port.
pub const CONNECT: Call = Call { name: "connect", number: libc::SYS_connect };
/// Binds a socket that is not bound, and fails where another listens already.
pub const LISTEN: Call = Call { name: "listen", number: libc::SYS_listen };
/// All that fail because of an address.
pub const OF_ADDRESSES: &[Call] = &[BIND, CONNECT, LISTEN];

/// Every call that is watched.
fn watched() -> impl Iterator<Item = Call> {
    OF_SOCKETS.iter().chain(OF_OTHER_FILES).chain(OLDER).chain(OF_ADDRESSES).copied()
}

/// The name of a watched call with this number.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    watched().find(|call| call.number == libc::c_long::from(number)).map(|call| call.name)
}

/// The watched call with this name.
pub(super) fn by_name(name: &str) -> Option<Call> {
    watched().find(|call| call.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hook::{HOOKS, Target};

    #[test]
    fn calls_are_found_by_their_numbers() {
        assert_eq!(name(u32::try_from(libc::SYS_accept4).unwrap()), Some("accept4"));
        assert_eq!(name(u32::try_from(libc::SYS_getppid).unwrap()), None);
    }

    #[test]
    fn every_system_call_of_the_hook_table_is_watched() {
        let programs = HOOKS.iter().flat_map(|hook| hook.methods).flat_map(|method| method.programs);
        let calls: Vec<_> = programs
            .filter_map(|program| match program.target {
                Target::Syscall(call) => Some(call),
                _ => None,
            })
            .collect();
        let watched: Vec<_> = OF_SOCKETS.iter().chain(OF_ADDRESSES).map(|call| call.name).collect();
        assert_eq!(calls, watched);
    }
}
