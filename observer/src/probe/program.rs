//! Loads and attaches the BPF programs of one attach method, all of them or none.

use std::{borrow::Cow, os::fd::OwnedFd};

use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, KProbe, ProgramError, RawTracePoint, TracePoint, links::FdLink,
        trace_point::TracePointLink,
    },
    sys::Stats,
};

use super::{
    calls::{self, Call},
    error::reason,
    iterator::IteratorLink,
    kernel::Kernel,
    probe_link::ProbeLink,
    tracefs,
};
use crate::{
    errno::{self, Refusal},
    model::hook::{AttachMethod, MethodSpec, ProgramSpec, Target},
};

/// The prefix of a system call's function: <https://docs.kernel.org/process/adding-syscalls.html>.
#[cfg(target_arch = "x86_64")]
const PREFIX: &str = "__x64_sys_";
#[cfg(target_arch = "aarch64")]
const PREFIX: &str = "__arm64_sys_";

/// Attaches programs of a loaded object.
pub(super) struct Loader<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) kernel: &'a Kernel,
    pub(super) trace_all_fd_syscalls: bool,
    /// Links of the kprobes and kretprobes attached so far: the kernel reports their missed runs there.
    pub(super) probe_links: Vec<ProbeLink>,
    /// Links of the iterators.
    pub(super) iterators: Vec<IteratorLink>,
    /// Links to events of system calls, with the names of their programs.
    pub(super) call_links: Vec<(&'static str, TracePointLink)>,
}

impl Loader<'_> {
    /// Loads and attaches the programs of a method that fit this kernel. If one fails, it unloads all of them: a program that
    /// is loaded and attached nowhere only costs memory.
    pub(super) fn attach(&mut self, spec: &MethodSpec) -> Result<(), Refusal> {
        let programs = self.kernel.programs(spec)?;
        let calls = programs.iter().filter_map(|program| match program.target {
            Target::Syscall(call) => Some((program.name, call)),
            _ => None,
        });
        let calls: Vec<_> = calls.collect();
        if self.trace_all_fd_syscalls && !calls.is_empty() {
            return Err("--trace-all-fd-syscalls needs the exits of system calls".to_owned().into());
        }
        let attached = programs.iter().try_for_each(|program| self.attach_program(spec.method, *program));
        let attached = attached.and_then(|()| require_calls_to_be_seen(self.ebpf, &calls));
        if attached.is_err() {
            self.call_links.retain(|(name, _)| programs.iter().all(|program| program.name != *name));
            for program in programs {
                unload(self.ebpf, program.name, spec.method);
            }
        }
        attached
    }

    fn attach_program(
        &mut self,
        method: AttachMethod,
        ProgramSpec { name, target }: ProgramSpec,
    ) -> Result<(), Refusal> {
        let (ebpf, btf) = (&mut *self.ebpf, &self.kernel.btf);
        let function = name_of(target);
        match method {
            AttachMethod::BtfTracepoint => {
                let program: &mut BtfTracePoint = program(ebpf, name)?;
                done(program.load(&function, btf).and_then(|()| program.attach()))
            }
            AttachMethod::RawTracepoint => {
                let program: &mut RawTracePoint = program(ebpf, name)?;
                done(program.load().and_then(|()| program.attach(&function)))
            }
            AttachMethod::Fentry => {
                let program: &mut FEntry = program(ebpf, name)?;
                done(program.load(&function, btf).and_then(|()| program.attach()))
            }
            AttachMethod::Fexit => {
                let program: &mut FExit = program(ebpf, name)?;
                done(program.load(&function, btf).and_then(|()| program.attach()))
            }
            AttachMethod::Kprobe | AttachMethod::Kretprobe => {
                let link = attach_probe(ebpf, name, &function)?;
                self.probe_links.extend(link);
                Ok(())
            }
            AttachMethod::SyscallTracepoint => {
                attach_to_syscalls(ebpf, name, &events_of(target, self.trace_all_fd_syscalls), &mut self.call_links)
            }
            AttachMethod::Iterator => {
                let program: &mut Iter = program(ebpf, name)?;
                done(program.load(&function, btf))?;
                let link = IteratorLink::new(name, program)?;
                link.start_pass()?;
                self.iterators.push(link);
                Ok(())
            }
            AttachMethod::StateHook => Ok(()),
        }
    }
}

/// The function, tracepoint or iterator of a target, by its name in the kernel.
fn name_of(target: Target) -> Cow<'static, str> {
    match target {
        Target::Tracepoint(name) | Target::Function(name) | Target::FunctionWith(name, _) | Target::Iterator(name) => {
            name.into()
        }
        Target::Syscall(call) => format!("{PREFIX}{call}").into(),
        Target::SyscallEvents(_) | Target::FdSyscallExits => "".into(),
    }
}

/// The events of a target, in the group `syscalls`.
fn events_of(target: Target, trace_all_fd_syscalls: bool) -> Vec<String> {
    match target {
        Target::SyscallEvents(events) => events.iter().map(|&event| event.to_owned()).collect(),
        Target::FdSyscallExits => {
            let others: [&[Call]; 2] =
                if trace_all_fd_syscalls { [calls::OF_OTHER_FILES, calls::OLDER] } else { [&[], &[]] };
            let all = calls::OF_SOCKETS.iter().chain(others.into_iter().flatten());
            all.map(|call| format!("sys_exit_{}", call.name)).collect()
        }
        _ => Vec::new(),
    }
}

/// Loads a program and attaches it to each of these events of system calls.
fn attach_to_syscalls(
    ebpf: &mut Ebpf,
    name: &'static str,
    events: &[String],
    links: &mut Vec<(&'static str, TracePointLink)>,
) -> Result<(), Refusal> {
    if let Some(errno) = tracefs::refusal() {
        return Err(Refusal {
            operation: "look into tracefs".to_owned(),
            errno: Some(errno),
            cause: errno::describe_number(errno),
        });
    }
    let program: &mut TracePoint = program(ebpf, name)?;
    done(program.load())?;
    events.iter().try_for_each(|event| {
        let link = program.attach("syscalls", event).and_then(|id| program.take_link(id));
        links.push((name, link.map_err(|error| reason(&error))?));
        Ok(())
    })
}

/// The link of a kprobe, where the kernel has links of probes (since 5.15). On older kernels the program itself keeps the
/// probe attached.
fn attach_probe(ebpf: &mut Ebpf, name: &str, function: &str) -> Result<Option<ProbeLink>, Refusal> {
    let program: &mut KProbe = program(ebpf, name)?;
    let attached = program.load().and_then(|()| program.attach(function, 0)).and_then(|id| program.take_link(id));
    match FdLink::try_from(attached.map_err(|error| reason(&error))?) {
        Ok(link) => Ok(Some(ProbeLink::new(link))),
        // The failed conversion dropped the link, which detached the probe.
        Err(_) => done(program.attach(function, 0)).map(|()| None),
    }
}

/// Makes each system call once, with arguments that the kernel refuses, and fails unless its program ran. A compiler may
/// inline a function into its callers (link-time optimisation does), and then a program that is attached to it never runs.
fn require_calls_to_be_seen(ebpf: &mut Ebpf, calls: &[(&str, &str)]) -> Result<(), Refusal> {
    if calls.is_empty() {
        return Ok(());
    }
    let _counting: OwnedFd =
        aya::sys::enable_stats(Stats::RunTime).map_err(|error| Refusal::new("count the runs of programs", &error))?;
    for (name, call) in calls {
        calls::by_name(call).ok_or_else(|| format!("the system call {call} is not known"))?.fail();
        let program: &mut FExit = program(ebpf, name)?;
        let seen = program.info().map_err(|error| reason(&error))?.run_count();
        if seen == 0 {
            return Err(format!("{PREFIX}{call} is not what this kernel calls").into());
        }
    }
    Ok(())
}

/// Unloads a program. The error that this ignores says that the program was not loaded.
fn unload(ebpf: &mut Ebpf, name: &str, method: AttachMethod) {
    match method {
        AttachMethod::BtfTracepoint => drop(program::<BtfTracePoint>(ebpf, name).map(BtfTracePoint::unload)),
        AttachMethod::Fentry => drop(program::<FEntry>(ebpf, name).map(FEntry::unload)),
        AttachMethod::Fexit => drop(program::<FExit>(ebpf, name).map(FExit::unload)),
        AttachMethod::Kprobe | AttachMethod::Kretprobe => drop(program::<KProbe>(ebpf, name).map(KProbe::unload)),
        AttachMethod::SyscallTracepoint => drop(program::<TracePoint>(ebpf, name).map(TracePoint::unload)),
        AttachMethod::RawTracepoint | AttachMethod::Iterator | AttachMethod::StateHook => {}
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Refusal>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the embedded object has no program {name}"))?;
    program.try_into().map_err(|error: ProgramError| reason(&error))
}

fn done<T>(result: Result<T, ProgramError>) -> Result<(), Refusal> {
    result.map(drop).map_err(|error| reason(&error))
}
