//! The hooks and the attach methods of each: one table that attach, plan, doctor, the quality panel, the help of `--attach`
//! and the kernel-support page read. A new hook is a variant of [`Hook`] and a row of [`HOOKS`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// What observer watches in the kernel. Recordings keep the position of the variant: add new ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hook {
    /// Every TCP state change.
    State,
    /// The end of a socket.
    Destroy,
    /// The process and the four-tuple of a connect().
    Connect,
    /// The process that takes a connection from an accept queue.
    Accept,
    /// System calls that fail because no descriptor, address or port is available.
    Failures,
    /// The kernel's socket table.
    Scan,
    /// The processes that have a file descriptor of a socket.
    FdOwners,
}

/// A way to attach a hook. Recordings keep the position of the variant: add new ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttachMethod {
    /// Raw tracepoint.
    RawTracepoint,
    /// Tracepoint at the entry or exit of a system call. It slows every system call of the host.
    SyscallTracepoint,
    /// Entry of a kernel function, via a BPF trampoline.
    Fentry,
    /// Return of a kernel function, via a BPF trampoline.
    Fexit,
    /// Entry of a kernel function, via a breakpoint or ftrace.
    Kprobe,
    /// Return of a kernel function, via a replaced return address.
    Kretprobe,
    /// No program of its own: records of the state hook show the same.
    StateHook,
    /// BPF iterator.
    Iterator,
    /// Raw tracepoint whose arguments have types that the verifier knows: fields are read with plain loads.
    BtfTracepoint,
}

/// What observer knows of one hook before it attaches it.
#[derive(Debug)]
pub struct HookSpec {
    /// The hook.
    pub hook: Hook,
    /// Its name on screens, in JSON and in `--attach`.
    pub name: &'static str,
    /// What it reports.
    pub purpose: &'static str,
    /// What is unknown without it.
    pub if_missing: &'static str,
    /// What a kernel without it lacks; `None` where every supported kernel has it.
    pub remedy: Option<&'static str>,
    /// Without it observer does not start.
    pub is_vital: bool,
    /// In order of preference.
    pub methods: &'static [MethodSpec],
}

/// One attach method of a hook.
#[derive(Debug)]
pub struct MethodSpec {
    /// The method.
    pub method: AttachMethod,
    /// The BPF programs that it loads. All of them attach, or the method fails.
    pub programs: &'static [ProgramSpec],
}

/// A program of the BPF object, and where it attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSpec {
    /// Its name in the object.
    pub name: &'static str,
    /// Where it attaches.
    pub target: Target,
}

/// What a program attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A tracepoint of the kernel.
    Tracepoint(&'static str),
    /// A kernel function.
    Function(&'static str),
    /// A kernel function that has so many parameters. On other kernels the program is not loaded; one program of a method
    /// must fit.
    FunctionWith(&'static str, u32),
    /// The function of a system call, named without the prefix of the architecture.
    Syscall(&'static str),
    /// Events of the tracepoint group `syscalls`.
    SyscallEvents(&'static [&'static str]),
    /// The exits of socket(), accept() and accept4(); with `--trace-all-fd-syscalls` those of every call that makes
    /// descriptors.
    FdSyscallExits,
    /// An iterator of this type.
    Iterator(&'static str),
}

const fn program(name: &'static str, target: Target) -> ProgramSpec {
    ProgramSpec { name, target }
}

const fn method(method: AttachMethod, programs: &'static [ProgramSpec]) -> MethodSpec {
    MethodSpec { method, programs }
}

/// Every hook, in the order in which hooks are attached and shown.
pub const HOOKS: &[HookSpec] = &[
    HookSpec {
        hook: Hook::State,
        name: "state",
        purpose: "every change of a TCP socket's state",
        if_missing: "what happens between two scans is not seen",
        remedy: Some("use a kernel with the tracepoint inet_sock_set_state (4.16 or later)"),
        is_vital: true,
        methods: &[
            method(AttachMethod::BtfTracepoint, &[program("state_tp_btf", Target::Tracepoint("inet_sock_set_state"))]),
            method(AttachMethod::RawTracepoint, &[program("state_raw_tp", Target::Tracepoint("inet_sock_set_state"))]),
        ],
    },
    HookSpec {
        hook: Hook::Destroy,
        name: "destroy",
        purpose: "the end of a socket, if its last state change was lost",
        if_missing: "only the next scan finds a close that was lost",
        remedy: None,
        is_vital: false,
        methods: &[
            method(AttachMethod::BtfTracepoint, &[program("destroy_tp_btf", Target::Tracepoint("tcp_destroy_sock"))]),
            method(AttachMethod::RawTracepoint, &[program("destroy_raw_tp", Target::Tracepoint("tcp_destroy_sock"))]),
        ],
    },
    HookSpec {
        hook: Hook::Connect,
        name: "connect",
        purpose: "the process and the four-tuple of a connect()",
        if_missing: "only scans find the process of an outgoing connection",
        remedy: None,
        is_vital: false,
        methods: &[
            method(AttachMethod::Fentry, &[program("connect_fentry", Target::Function("tcp_connect"))]),
            method(AttachMethod::Kprobe, &[program("connect_kprobe", Target::Function("tcp_connect"))]),
            method(AttachMethod::StateHook, &[]),
        ],
    },
    HookSpec {
        hook: Hook::Accept,
        name: "accept",
        purpose: "the process that accepts a connection",
        if_missing: "an accepted connection shows its listener's process until a scan",
        remedy: None,
        is_vital: false,
        methods: &[
            method(
                AttachMethod::Fexit,
                &[
                    program("accept_fexit_2_args", Target::FunctionWith("inet_csk_accept", 2)),
                    program("accept_fexit_4_args", Target::FunctionWith("inet_csk_accept", 4)),
                ],
            ),
            method(AttachMethod::Kretprobe, &[program("accept_kretprobe", Target::Function("inet_csk_accept"))]),
            method(
                AttachMethod::SyscallTracepoint,
                &[program("accept_sys_exit", Target::SyscallEvents(&["sys_exit_accept", "sys_exit_accept4"]))],
            ),
        ],
    },
    HookSpec {
        hook: Hook::Failures,
        name: "failures",
        purpose: "calls that get no descriptor, address or port",
        if_missing: "calls that get no descriptor, address or port are not reported",
        remedy: None,
        is_vital: false,
        methods: &[
            method(
                AttachMethod::Fexit,
                &[
                    program("failures_socket_fexit", Target::Syscall("socket")),
                    program("failures_accept_fexit", Target::Syscall("accept")),
                    program("failures_accept4_fexit", Target::Syscall("accept4")),
                    program("failures_bind_fexit", Target::Syscall("bind")),
                    program("failures_connect_fexit", Target::Syscall("connect")),
                    program("failures_listen_fexit", Target::Syscall("listen")),
                ],
            ),
            method(
                AttachMethod::SyscallTracepoint,
                &[
                    program("failures_fd_sys_exit", Target::FdSyscallExits),
                    program("failures_bind_sys_exit", Target::SyscallEvents(&["sys_exit_bind", "sys_exit_listen"])),
                    program("failures_connect_sys_exit", Target::SyscallEvents(&["sys_exit_connect"])),
                    program(
                        "failures_address_sys_enter",
                        Target::SyscallEvents(&["sys_enter_bind", "sys_enter_connect"]),
                    ),
                    program("failures_listen_sys_enter", Target::SyscallEvents(&["sys_enter_listen"])),
                ],
            ),
        ],
    },
    HookSpec {
        hook: Hook::Scan,
        name: "scan",
        purpose: "all sockets that exist now",
        if_missing: "sockets older than observer are not counted, and counts are never corrected",
        remedy: Some("use a kernel with BPF iterators (5.9 or later)"),
        is_vital: true,
        methods: &[method(AttachMethod::Iterator, &[program("scan_tcp", Target::Iterator("tcp"))])],
    },
    HookSpec {
        hook: Hook::FdOwners,
        name: "fd_owners",
        purpose: "the processes that own each socket's descriptors",
        if_missing: "the processes of sockets older than observer are unknown",
        remedy: None,
        is_vital: false,
        methods: &[method(AttachMethod::Iterator, &[program("scan_task_file", Target::Iterator("task_file"))])],
    },
];

impl Hook {
    /// In the order in which they are shown.
    pub const ALL: [Self; HOOKS.len()] = {
        let mut all = [Self::State; HOOKS.len()];
        let mut row = 0;
        while row < HOOKS.len() {
            assert!(HOOKS[row].hook as usize == row, "rows of HOOKS stand in the order of Hook");
            all[row] = HOOKS[row].hook;
            row += 1;
        }
        all
    };

    /// Its row of the table.
    #[must_use]
    pub const fn spec(self) -> &'static HookSpec {
        &HOOKS[self as usize]
    }
}

impl HookSpec {
    /// A method of this hook.
    #[must_use]
    pub fn method(&self, wanted: AttachMethod) -> Option<&'static MethodSpec> {
        self.methods.iter().find(|spec| spec.method == wanted)
    }

    /// Whether one of its methods needs tracefs, where the kernel lists the events of system calls.
    #[must_use]
    pub fn uses_tracefs(&self) -> bool {
        let programs = self.methods.iter().flat_map(|spec| spec.programs);
        programs.into_iter().any(|it| matches!(it.target, Target::SyscallEvents(_) | Target::FdSyscallExits))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.spec().name)
    }
}

impl AttachMethod {
    /// In JSON and in `--attach`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw_tp",
            Self::SyscallTracepoint => "syscall_tp",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::StateHook => "state_hook",
            Self::Iterator => "iter",
            Self::BtfTracepoint => "tp_btf",
        }
    }
}

impl fmt::Display for AttachMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_hooks_and_programs_are_unique() {
        let names: BTreeSet<_> = HOOKS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), HOOKS.len());
        let programs: Vec<_> = HOOKS.iter().flat_map(|spec| spec.methods).flat_map(|spec| spec.programs).collect();
        let names: BTreeSet<_> = programs.iter().map(|program| program.name).collect();
        assert_eq!(names.len(), programs.len());
    }

    #[test]
    fn hooks_that_may_need_tracefs_are_those_with_events_of_system_calls() {
        let hooks: Vec<_> = Hook::ALL.into_iter().filter(|hook| hook.spec().uses_tracefs()).collect();
        assert_eq!(hooks, [Hook::Accept, Hook::Failures]);
    }

    #[test]
    fn every_hook_has_a_method_that_needs_no_function_hooking() {
        for spec in HOOKS {
            let last = spec.methods.last().unwrap().method;
            assert!(
                matches!(
                    last,
                    AttachMethod::RawTracepoint
                        | AttachMethod::SyscallTracepoint
                        | AttachMethod::StateHook
                        | AttachMethod::Iterator
                ),
                "{} ends in {last}",
                spec.hook
            );
        }
    }
}
