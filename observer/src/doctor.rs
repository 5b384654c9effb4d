//! `observer doctor`: what this kernel can do for observer, what it cannot, and what to do about it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    engine::require_rights,
    errno,
    host::{
        clock, files, handle, memory, namespaces, netns, pid_namespace::PidView, proc, processes, rights, text::Reads,
    },
    model::{
        gaps::{Gap, Gaps, Unread},
        quality::{AttachMethod, Hook, HookStatus, ProcessScope},
    },
    probe::{
        attach::{self, Attached, Kernel, LoadOptions},
        error::{self, KERNEL_BTF, ProbeError},
        offsets,
        plan::ForcedMethods,
    },
};

/// Tries everything for real, tells how it went, and lets go of it again.
pub fn run(methods: ForcedMethods, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match examine(methods, out)? {
        Ok(()) => {
            writeln!(out, "\nverdict       observer can do its job here")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(out, "\nverdict       observer cannot do its job here: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The smallest ring there can be: nothing is read from it.
const RING_BYTES: u32 = 64 << 10;

fn examine(methods: ForcedMethods, out: &mut impl Write) -> io::Result<Result<(), ProbeError>> {
    let kernel = rustix::system::uname();
    writeln!(out, "kernel        {} {}", kernel.release().to_string_lossy(), kernel.machine().to_string_lossy())?;
    let rights = require_rights();
    match &rights {
        Ok(()) => writeln!(out, "capabilities  enough for BPF (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN)")?,
        Err(error) => writeln!(out, "capabilities  {error}")?,
    }
    if let Err(error) = proc::require() {
        writeln!(out, "proc          {error}")?;
        return Ok(Err(error.into()));
    }
    let kernel = match Kernel::read() {
        Ok(kernel) => kernel,
        Err(error) => {
            writeln!(out, "btf           not usable: {error}")?;
            return Ok(Err(error));
        }
    };
    writeln!(out, "btf           {KERNEL_BTF}")?;
    if clock::kernel().is_none() {
        let advice = "start observer outside of it, or where /proc is not hidden";
        writeln!(
            out,
            "clock         the kernel's is not known in this time namespace: the age of TIME_WAITs is not; {advice}"
        )?;
    }
    let processes = PidView::read();
    match processes.scope().missing() {
        None => writeln!(out, "processes     all of the host, by {}", errno::printable(proc::root()))?,
        Some(missing) => writeln!(out, "processes     not visible: {missing}")?,
    }
    print_offsets(out, &kernel)?;
    if rights.is_err() {
        return Ok(rights);
    }
    let options = LoadOptions {
        ring_bytes: RING_BYTES,
        netns: None,
        processes,
        diagnostics: false,
        methods,
        trace_all_fd_syscalls: false,
    };
    let attached = match attach::attach(&kernel, options) {
        Ok(attached) => attached,
        Err(error) => return Ok(Err(error)),
    };
    writeln!(out, "\nhooks         what carries each of them, and what better ones answered")?;
    for status in &attached.hooks {
        print_hook(out, status)?;
    }
    let misses = match attached.missed() {
        Some(_) => "told by the kernel: runs of a hook that it left out are counted as lost",
        None => "not told by this kernel (from 5.12 on): what a hook left out shows only as drift of the next scan",
    };
    writeln!(out, "\nmisses        {misses}")?;
    print_gaps(out, processes.scope(), attached.tracefs)?;
    print_advice(out, &attached)?;
    Ok(attached.require_vital_hooks().and_then(|()| attached.require_no_scarcity()))
}

/// What this user cannot read here, and what would help.
fn print_gaps(out: &mut impl Write, scope: ProcessScope, tracefs: Gap) -> io::Result<()> {
    let mut gaps = Gaps::of(rights::effective()).within(scope);
    gaps.set(Unread::Tracefs, tracefs);
    let files = Reads::default();
    match processes::nearest_to_limit(0) {
        Ok(walk) => gaps.set(Unread::Processes, walk.unread),
        Err(error) => gaps.set(Unread::Processes, Gap { count: 1, errno: error.raw_os_error() }),
    }
    gaps.set(Unread::HiddenProcesses, Gap { count: u32::from(processes::are_hidden()), errno: None });
    match namespaces::discover() {
        Ok(found) => {
            gaps.set(Unread::Memberships, found.unread);
            let mut closed = Gap::default();
            for (netns, found) in found.namespaces {
                match handle::enter(netns, &found.handles, || netns::read(&std::collections::BTreeSet::new())) {
                    Ok(reading) => gaps.set(Unread::Files, gaps.get(Unread::Files).and(reading.unread)),
                    Err(error) if handle::is_absence(&error) => {}
                    Err(error) => closed.add(error.raw_os_error()),
                }
            }
            gaps.set(Unread::Namespaces, closed);
        }
        Err(error) => gaps.set(Unread::Namespaces, Gap { count: 1, errno: error.raw_os_error() }),
    }
    let _ = (files::read(&files), files::nr_open(&files), memory::available(&files), memory::per_socket(&files));
    gaps.set(Unread::Files, gaps.get(Unread::Files).and(files.gap()));
    writeln!(out, "\nreadings      what of the host this user cannot read, and why")?;
    if gaps.unread().next().is_none() {
        writeln!(out, "  everything is read")?;
    }
    for ((kind, _), words) in gaps.unread().zip(gaps.advice()) {
        writeln!(out, "  {words}: {}", kind.consequence())?;
    }
    Ok(())
}

fn print_advice(out: &mut impl Write, attached: &Attached) -> io::Result<()> {
    writeln!(out, "\nadvice")?;
    let mut nothing = true;
    for status in &attached.hooks {
        let advice = match (status.method, status.failed.is_empty()) {
            (Some(_), true) => continue,
            (Some(method @ AttachMethod::SyscallTracepoint), false) => {
                format!(
                    "{method} carries it, with the same counts; all system calls of the host take tens of ns longer"
                )
            }
            (Some(method), false) => format!("nothing to do: {method} carries it, with the same counts"),
            (None, _) => format!("without it, {}{}", loss_of(status.hook), remedy_of(status.hook, attached)),
        };
        writeln!(out, "  {:<11} {advice}", status.hook)?;
        nothing = false;
    }
    if nothing {
        writeln!(out, "  nothing to do: every hook is on its best attach method")?;
    }
    Ok(())
}

/// What is not known where a hook is missing.
const fn loss_of(hook: Hook) -> &'static str {
    match hook {
        Hook::State => "there is no live count: use a kernel with the tracepoint inet_sock_set_state (4.16 or later)",
        Hook::Scan => "counts start empty and are never corrected: use a kernel with BPF iterators (5.9 or later)",
        Hook::Destroy => "a close that was lost is found only by the next scan",
        Hook::Connect => "the process of outgoing connections is found only by scans",
        Hook::Accept => "the process of accepted connections is that of their listener",
        Hook::Failures => "calls that get no descriptor, address or port are not reported",
        Hook::FdOwners => "the processes of sockets from before the start are not known",
    }
}

/// What brings a missing hook back, where that is known.
fn remedy_of(hook: Hook, attached: &Attached) -> String {
    let scarcity = attached.refusal(hook).filter(|refusal| refusal.is_scarcity());
    match (hook, scarcity) {
        (_, Some(refusal)) => format!("; {}", error::advice(refusal.errno)),
        (Hook::Accept | Hook::Failures, None) if attached.tracefs.count > 0 => {
            "; tracefs is closed to this user, CAP_DAC_READ_SEARCH opens it".to_owned()
        }
        (Hook::Accept | Hook::Failures, None) => "; mount tracefs to have it".to_owned(),
        _ => String::new(),
    }
}

fn print_hook(out: &mut impl Write, status: &HookStatus) -> io::Result<()> {
    match status.method {
        Some(method) => writeln!(out, "  {:<11} {method}", status.hook)?,
        None => writeln!(out, "  {:<11} MISSING", status.hook)?,
    }
    for failed in &status.failed {
        writeln!(out, "  {:<11}   not {}: {}", "", failed.method, failed.because)?;
    }
    Ok(())
}

fn print_offsets(out: &mut impl Write, kernel: &Kernel) -> io::Result<()> {
    writeln!(out, "\noffsets       bytes from the start of each structure")?;
    for wanted in offsets::WANTED {
        let verdict = match offsets::found(wanted, kernel.offsets) {
            Some(offset) => format!("{offset:>5}"),
            None if wanted.vital => "ABSENT: sockets cannot be told apart".to_owned(),
            None => "absent: one detail is left out".to_owned(),
        };
        writeln!(out, "  {:<40} {verdict}", format!("{}.{}", wanted.structure, wanted.path))?;
    }
    Ok(())
}
