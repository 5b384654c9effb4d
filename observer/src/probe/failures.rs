//! The failures hook, which takes several programs: one for each function or for each kind of system call.

use std::os::fd::OwnedFd;

use aya::{Ebpf, programs::FExit, sys::Stats};

use super::{
    attach::{attach_to_syscalls, done, program, unload},
    calls::{self, Call},
    error::reason,
};
use crate::{errno::Refusal, model::quality::AttachMethod};

/// What the name of a system call's function begins with: <https://docs.kernel.org/process/adding-syscalls.html>.
#[cfg(target_arch = "x86_64")]
const PREFIX: &str = "__x64_sys_";
#[cfg(target_arch = "aarch64")]
const PREFIX: &str = "__arm64_sys_";

/// Programs at the return of the functions themselves: other system calls cost what they cost without `observer`.
pub(super) fn by_functions(ebpf: &mut Ebpf, btf: &aya::Btf, trace_all_fd_syscalls: bool) -> Result<(), Refusal> {
    if trace_all_fd_syscalls {
        return Err("every call that makes descriptors is told by the exits of system calls".to_owned().into());
    }
    let attached = calls_by_function().try_for_each(|call| attach(ebpf, btf, call));
    let attached = attached.and_then(|()| require_calls_to_be_seen(ebpf));
    if attached.is_err() {
        for call in calls_by_function() {
            unload(ebpf, &name_of(call), AttachMethod::Fexit);
        }
    }
    attached
}

fn calls_by_function() -> impl Iterator<Item = Call> {
    calls::OF_SOCKETS.iter().copied().chain(calls::OF_ADDRESSES.iter().copied())
}

/// The program for a call's function.
fn name_of(call: Call) -> String {
    format!("failures_{}_fexit", call.name)
}

fn attach(ebpf: &mut Ebpf, btf: &aya::Btf, call: Call) -> Result<(), Refusal> {
    let program: &mut FExit = program(ebpf, &name_of(call))?;
    done(program.load(&format!("{PREFIX}{}", call.name), btf).and_then(|()| program.attach()))
}

/// A compiler may put a function into its callers (link-time optimisation does): then what is attached to it never runs.
/// So each is called once, in a way that must fail, and has to be seen.
fn require_calls_to_be_seen(ebpf: &mut Ebpf) -> Result<(), Refusal> {
    let _counting: OwnedFd =
        aya::sys::enable_stats(Stats::RunTime).map_err(|error| Refusal::new("count the runs of programs", &error))?;
    for call in calls_by_function() {
        call.fail();
        let program: &mut FExit = program(ebpf, &name_of(call))?;
        let seen = program.info().map_err(|error| reason(&error))?.run_count();
        if seen == 0 {
            return Err(format!("{PREFIX}{} is not what this kernel calls", call.name).into());
        }
    }
    Ok(())
}

/// Programs at the exits of system calls.
pub(super) fn by_system_calls(ebpf: &mut Ebpf, trace_all_fd_syscalls: bool) -> Result<(), Refusal> {
    let fd_calls = if trace_all_fd_syscalls {
        [calls::OF_SOCKETS, calls::OF_OTHER_FILES, calls::OLDER].concat()
    } else {
        calls::OF_SOCKETS.to_vec()
    };
    let exits: Vec<String> = fd_calls.iter().map(|call| format!("sys_exit_{}", call.name)).collect();
    let programs: [(&str, &[String]); 5] = [
        ("failures_fd_sys_exit", &exits),
        ("failures_bind_sys_exit", &["sys_exit_bind".to_owned(), "sys_exit_listen".to_owned()]),
        ("failures_connect_sys_exit", &["sys_exit_connect".to_owned()]),
        ("failures_address_sys_enter", &["sys_enter_bind".to_owned(), "sys_enter_connect".to_owned()]),
        ("failures_listen_sys_enter", &["sys_enter_listen".to_owned()]),
    ];
    let attached = programs.iter().try_for_each(|(name, events)| attach_to_syscalls(ebpf, name, events));
    if attached.is_err() {
        for (name, _) in programs {
            unload(ebpf, name, AttachMethod::SyscallTracepoint);
        }
    }
    attached
}
