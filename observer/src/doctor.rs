//! `observer doctor`: what works on this host, what does not, and what to do about it.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use crate::{
    engine::{self, NewUser, Watched, require_rights},
    errno,
    host::{
        clock, files, handle, memory, namespace_id::Listed, namespaces, netns, pid_namespace::PidView,
        privileges::Reduction, proc, processes, rights, text::Reads,
    },
    model::{
        capability::{CAPABILITIES, Holding},
        gaps::{Gap, Gaps, Unread},
        hook::{AttachMethod, Hook},
        quality::{HookStatus, ProcessScope},
    },
    present::labelled::{self, PLAIN_WIDTH},
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
    let mut details = Vec::new();
    let (short, why, code) = match examine(methods, &mut details)? {
        Ok(()) => ("ready", None, ExitCode::SUCCESS),
        Err(error) => ("not ready", Some(error.to_string()), ExitCode::FAILURE),
    };
    // Whoever sees the beginning or the end of a long page sees the verdict.
    row(out, "verdict", short)?;
    if let Some(why) = &why {
        row(out, "because", why)?;
    }
    writeln!(out)?;
    out.write_all(&details)?;
    writeln!(out)?;
    if let Some(why) = &why {
        row(out, "because", why)?;
    }
    row(out, "verdict", short)?;
    Ok(code)
}

/// A label, and words beside it.
fn row(out: &mut impl Write, label: &str, words: &str) -> io::Result<()> {
    const LABEL: usize = 14;
    labelled::write(out, label, LABEL, words, PLAIN_WIDTH)
}

/// One of the paragraphs below a row.
fn item(out: &mut impl Write, words: &str) -> io::Result<()> {
    labelled::write(out, "", 2, words, PLAIN_WIDTH)
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
    rights::raise();
    let attached = match attach::attach(&kernel, options) {
        Ok(attached) => attached,
        Err(error) => return Ok(Err(error)),
    };
    writeln!(out)?;
    row(out, "hooks", "the attach method of each, and why preferred methods failed")?;
    for status in &attached.hooks {
        print_hook(out, status)?;
    }
    let missed = match attached.missed() {
        Some(_) => "this kernel reports them: runs of a hook that the kernel skipped count as lost",
        None => "this kernel does not report them (5.12 and later do): they show only as drift of the next scan",
    };
    writeln!(out)?;
    row(out, "missed runs", missed)?;
    let reduction = print_reduction(out, &attached, processes)?;
    // What follows is read as a running engine reads it.
    match reduction.apply() {
        Ok(kept) => kept.sentences().try_for_each(|words| item(out, &format!("but {words}")))?,
        Err(because) => return Ok(Err(ProbeError::Refused { because })),
    }
    print_gaps(out, processes.scope(), attached.tracefs)?;
    print_advice(out, &attached)?;
    Ok(attached.require_vital_hooks().and_then(|()| attached.require_no_scarcity()))
}

/// Prints what can be known before anything is loaded; an error if loading cannot work.
fn examine_host(out: &mut impl Write) -> io::Result<Result<(Arc<Kernel>, PidView), ProbeError>> {
    let kernel = rustix::system::uname();
    let name = format!("{} {}", kernel.release().to_string_lossy(), kernel.machine().to_string_lossy());
    row(out, "kernel", &name)?;
    let rights = require_rights();
    match &rights {
        Ok(()) => row(out, "capabilities", "enough for BPF (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN)")?,
        Err(error) => row(out, "capabilities", &error.to_string())?,
    }
    print_capabilities(out, rights.is_ok())?;
    if let Err(error) = proc::require() {
        row(out, "proc", &error.to_string())?;
        return Ok(Err(error.into()));
    }
    let kernel = match Kernel::shared() {
        Ok(kernel) => kernel,
        Err(error) => {
            row(out, "btf", &format!("not usable: {error}"))?;
            return Ok(Err(error));
        }
    };
    row(out, "btf", KERNEL_BTF)?;
    if clock::kernel().is_none() {
        let hidden = "this time namespace hides the kernel's clock, and with it the age of TIME_WAITs: start observer \
                      outside of it, or where /proc is not hidden";
        row(out, "clock", hidden)?;
    }
    let processes = PidView::read();
    match processes.scope().missing() {
        None => row(out, "processes", &format!("all of the host, from {}", errno::printable(proc::root())))?,
        Some(missing) => row(out, "processes", &format!("not visible: {missing}"))?,
    }
    print_offsets(out, &kernel)?;
    Ok(rights.map(|()| (kernel, processes)))
}

/// Prints each capability: what it is for, or what its lack costs; and how an ordinary user gets them.
fn print_capabilities(out: &mut impl Write, may_start: bool) -> io::Result<()> {
    const NAME: usize = 22;
    let given = rights::held();
    for capability in CAPABILITIES {
        let holding = match Holding::of(capability, given, given) {
            // Nothing is attached yet.
            Holding::Unneeded if !may_start => Holding::Missing,
            holding => holding,
        };
        let words = format!("{}: {}", holding.name(), holding.meaning(capability));
        labelled::write(out, &format!("  {}", capability.name), NAME, &words, PLAIN_WIDTH)?;
    }
    if rustix::process::geteuid().is_root() || CAPABILITIES.iter().all(|capability| capability.is_in(given)) {
        return Ok(());
    }
    if let Some(obstacle) = rights::setcap_obstacle() {
        return row(out, "without root", &format!("file capabilities have no effect here: {obstacle}"));
    }
    row(out, "without root", "this line gives them to everybody who may execute the program:")?;
    // In one line, to be copied.
    writeln!(out, "  {}", rights::setcap())
}

/// Prints what observer keeps of these once it runs.
fn print_reduction(out: &mut impl Write, attached: &Attached, processes: PidView) -> io::Result<Reduction> {
    const SCOPE: usize = 22;
    writeln!(out)?;
    row(out, "after attach", "the capabilities that the engine keeps; other threads keep none")?;
    let of = |watched| engine::reduction(|| attached.serves_scans(), watched, processes, NewUser::OfSudo);
    let (all, own) = (of(Watched::All), of(Watched::Own));
    for (scope, reduction) in [("  all namespaces", all), ("  --own-netns", own)] {
        let kept = reduction.capabilities() & rights::held();
        let names = CAPABILITIES.iter().filter(|capability| capability.is_in(kept)).map(|capability| capability.name);
        let names = names.collect::<Vec<_>>().join(", ");
        labelled::write(out, scope, SCOPE, if names.is_empty() { "none" } else { &names }, PLAIN_WIDTH)?;
    }
    let user = all.uid().map_or_else(|| "stays as it is".to_owned(), |uid| format!("becomes {uid} in place of root"));
    labelled::write(out, "  user", SCOPE, &user, PLAIN_WIDTH)?;
    Ok(all)
}

/// Prints what this user cannot read on the host, and what would help.
fn print_gaps(out: &mut impl Write, scope: ProcessScope, tracefs: Gap) -> io::Result<()> {
    let mut gaps = Gaps::of(rights::held()).within(scope);
    gaps.set(Unread::Tracefs, tracefs);
    let files = Reads::default();
    match processes::nearest_to_limit(0) {
        Ok(walk) => gaps.set(Unread::Processes, walk.unread),
        Err(error) => gaps.set(Unread::Processes, Gap { count: 1, errno: error.raw_os_error() }),
    }
    gaps.set(Unread::HiddenProcesses, Gap { count: u32::from(processes::are_hidden()), errno: None });
    match namespaces::discover(&mut Listed::default()) {
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
    writeln!(out)?;
    row(out, "readings", "what this user cannot read on the host, and why")?;
    if gaps.unread().next().is_none() {
        item(out, "everything is read")?;
    }
    for ((kind, _), words) in gaps.unread().zip(gaps.advice()) {
        item(out, &format!("{words}: {}", kind.consequence()))?;
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
        row(out, &format!("  {}", status.hook), &advice)?;
        nothing = false;
    }
    if nothing {
        item(out, "nothing to do: every hook uses its preferred attach method")?;
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
        None => rights::perf_obstacle()
            .map_or_else(|| "; mount tracefs to get it".to_owned(), |obstacle| format!("; {obstacle}")),
    }
}

fn print_hook(out: &mut impl Write, status: &HookStatus) -> io::Result<()> {
    const ATTEMPT: usize = 16;
    let (used, failed) = match status.method {
        Some(method) => (format!("used: {method}"), "fallback because"),
        None => ("MISSING".to_owned(), "failed:"),
    };
    row(out, &format!("  {}", status.hook), &used)?;
    status.failed.iter().try_for_each(|attempt| {
        let words = format!("{failed} {}: {}", attempt.method, attempt.because);
        labelled::write(out, "", ATTEMPT, &words, PLAIN_WIDTH)
    })
}

fn print_offsets(out: &mut impl Write, kernel: &Kernel) -> io::Result<()> {
    const NAME: usize = 47;
    writeln!(out)?;
    row(out, "offsets", "bytes from the start of each structure")?;
    for wanted in offsets::WANTED {
        let verdict = match offsets::found(wanted, kernel.offsets) {
            Some(offset) => offset.to_string(),
            None if wanted.vital => "ABSENT: observer cannot identify sockets".to_owned(),
            None => "absent: one detail is unavailable".to_owned(),
        };
        let name = format!("  {}.{}", wanted.structure, wanted.path);
        labelled::write(out, &name, NAME, &verdict, PLAIN_WIDTH)?;
    }
    Ok(())
}
