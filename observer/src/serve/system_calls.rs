//! The system calls that the HTTP process may make. Every other one fails with EPERM: none opens a file, makes a socket or a
//! process, or reaches BPF. EPERM and not a signal, because a newer libc may try a call that it can do without.

use std::{collections::BTreeMap, env::consts::ARCH, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Allowed with all arguments: they act on descriptors and memory that the process has.
const ANY_ARGUMENTS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_getsockopt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Restricts this thread, the only one of its process.
pub(super) fn allow_few() -> io::Result<()> {
    let filter = program().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    seccompiler::apply_filter(&filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other),
    })
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let not_executable =
        || condition(2, SeccompCmpOp::MaskedEq(number(libc::PROT_EXEC)), 0).and_then(|it| SeccompRule::new(vec![it]));
    let tcp_nodelay = SeccompRule::new(vec![
        condition(1, SeccompCmpOp::Eq, number(libc::IPPROTO_TCP))?,
        condition(2, SeccompCmpOp::Eq, number(libc::TCP_NODELAY))?,
    ])?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ANY_ARGUMENTS.iter().map(|call| (*call, Vec::new())).collect();
    // No code of a client becomes executable.
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    rules.insert(libc::SYS_setsockopt, vec![tcp_nodelay]);
    // Debug builds of tokio make sure that a socket that they are given does not block.
    let flags = SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, number(libc::F_GETFL))?])?;
    rules.insert(libc::SYS_fcntl, vec![flags]);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, denied, SeccompAction::Allow, ARCH.try_into()?)?.try_into()
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Dword, op, value)
}

fn number(constant: libc::c_int) -> u64 {
    u64::from(constant.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener, process::Command, thread};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn a_filtered_thread_gets_no_file_no_socket_and_no_process() {
        let filtered = thread::spawn(|| {
            let before = TcpListener::bind("127.0.0.1:0").unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            allow_few().unwrap();
            let refusals = [
                fs::metadata("/proc/self/status").map(drop),
                fs::write("/dev/null", "x"),
                TcpListener::bind("127.0.0.1:0").map(drop),
                memfd_create("x", MemfdFlags::CLOEXEC).map(drop).map_err(Into::into),
                Command::new("/bin/true").spawn().map(drop),
                // Of what it has, too, it changes nothing.
                before.set_ttl(1),
            ];
            refusals.map(|refusal| refusal.unwrap_err().raw_os_error())
        });
        assert_eq!(filtered.join().unwrap(), [Some(libc::EPERM); 6]);
    }

    #[test]
    fn the_filter_compiles_for_this_architecture() {
        assert!(program().unwrap().len() > ANY_ARGUMENTS.len());
    }
}
