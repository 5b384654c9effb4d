//! `observer doctor`: what works on this host, what does not, and what to do about it.

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
        hook::{AttachMethod, Hook},
        quality::{HookStatus, ProcessScope},
    },
    probe::{
        attach::{self, Attached, LoadOptions},
        error::{self, KERNEL_BTF, ProbeError},
        kernel::Kernel,
        offsets,
        plan::ForcedMethods,
    },
};

/// Attaches every hook, reads the host once, reports what worked, and detaches again. The exit status is 0 if observer is
/// ready to run.
pub fn run(methods: ForcedMethods, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match examine(methods, out)? {
        Ok(()) => {
            writeln!(out, "\nverdict       ready")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(out, "\nverdict       not ready: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The smallest possible ring: nothing is read from it.
const RING_BYTES: u32 = 64 << 10;

fn examine(methods: ForcedMethods, out: &mut impl Write) -> io::Result<Result<(), ProbeError>> {
    let (kernel, processes) = match examine_host(out)? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
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
    writeln!(out, "\nhooks         the attach method of each, and why preferred methods failed")?;
    for status in &attached.hooks {
        print_hook(out, status)?;
    }
    let missed = match attached.missed() {
        Some(_) => "this kernel reports them: runs of a hook that the kernel skipped count as lost",
        None => "this kernel does not report them (5.12 and later do): they show only as drift of the next scan",
    };
    writeln!(out, "\nmissed runs   {missed}")?;
    print_gaps(out, processes.scope(), attached.tracefs)?;
    print_advice(out, &attached)?;
    Ok(attached.require_vital_hooks().and_then(|()| attached.require_no_scarcity()))
}

/// Prints what can be known before anything is loaded; an error if loading cannot work.
fn examine_host(out: &mut impl Write) -> io::Result<Result<(Kernel, PidView), ProbeError>> {
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
            "clock         this time namespace hides the kernel's clock, and with it the age of TIME_WAITs: {advice}"
        )?;
    }
    let processes = PidView::read();
    match processes.scope().missing() {
        None => writeln!(out, "processes     all of the host, from {}", errno::printable(proc::root()))?,
        Some(missing) => writeln!(out, "processes     not visible: {missing}")?,
    }
    print_offsets(out, &kernel)?;
    Ok(rights.map(|()| (kernel, processes)))
}

/// Prints what this user cannot read on the host, and what would help.
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
    writeln!(out, "\nreadings      what this user cannot read on the host, and why")?;
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
                    "nothing to do: {method} gives the same counts, but slows every system call of the host by tens of ns"
                )
            }
            (Some(method), false) => format!("nothing to do: {method} gives the same counts"),
            (None, _) => {
                format!("without it, {}{}", status.hook.spec().if_missing, remedy_of(status.hook, attached))
            }
        };
        writeln!(out, "  {:<11} {advice}", status.hook)?;
        nothing = false;
    }
    if nothing {
        writeln!(out, "  nothing to do: every hook uses its preferred attach method")?;
    }
    Ok(())
}

/// What brings a missing hook back, if that is known.
fn remedy_of(hook: Hook, attached: &Attached) -> String {
    let spec = hook.spec();
    let scarcity = attached.refusal(hook).filter(|refusal| refusal.is_scarcity());
    if let Some(refusal) = scarcity {
        return format!("; {}", error::advice(refusal.errno));
    }
    match spec.remedy {
        Some(remedy) => format!("; {remedy}"),
        None if !spec.uses_tracefs() => String::new(),
        None if attached.tracefs.count > 0 => {
            "; tracefs is closed to this user: CAP_DAC_READ_SEARCH opens it".to_owned()
        }
        None => "; mount tracefs to get it".to_owned(),
    }
}

fn print_hook(out: &mut impl Write, status: &HookStatus) -> io::Result<()> {
    let (used, failed) = match status.method {
        Some(method) => (format!("used: {method}"), "fallback because"),
        None => ("MISSING".to_owned(), "failed:"),
    };
    writeln!(out, "  {:<11} {used}", status.hook)?;
    for attempt in &status.failed {
        writeln!(out, "  {:<11}   {failed} {}: {}", "", attempt.method, attempt.because)?;
    }
    Ok(())
}

fn print_offsets(out: &mut impl Write, kernel: &Kernel) -> io::Result<()> {
    writeln!(out, "\noffsets       bytes from the start of each structure")?;
    for wanted in offsets::WANTED {
        let verdict = match offsets::found(wanted, kernel.offsets) {
            Some(offset) => format!("{offset:>5}"),
            None if wanted.vital => "ABSENT: observer cannot identify sockets".to_owned(),
            None => "absent: one detail is unavailable".to_owned(),
        };
        writeln!(out, "  {:<40} {verdict}", format!("{}.{}", wanted.structure, wanted.path))?;
    }
    Ok(())
}
