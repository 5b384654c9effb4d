//! Loads the BPF object with this kernel's offsets and tries the attach methods of each hook.

use std::{os::fd::OwnedFd, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{Program, trace_point::TracePointLink},
    sys::Stats,
};
use observer_ebpf::abi::{Loss, Settings};
use zerocopy::IntoBytes as _;

use super::{
    error::ProbeError,
    iterator::IteratorLink,
    kernel::Kernel,
    offsets,
    plan::{self, ForcedMethods},
    probe_link::ProbeLink,
    program::Loader,
    program_counts::ProgramCounts,
    tracefs::{self, with_tracefs},
};
use crate::{
    errno::Refusal,
    host::pid_namespace::PidView,
    model::{
        gaps::Gap,
        hook::{AttachMethod, Hook, MethodSpec},
        quality::{HookStatus, Losses},
        units::NetnsId,
    },
};

#[cfg(target_arch = "x86_64")]
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/observer-x86_64.bpf.o");
#[cfg(target_arch = "aarch64")]
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/observer-aarch64.bpf.o");

/// A ring of which this part waits wakes its reader, who otherwise comes a few times a second: the rest has room for what comes until
/// it runs.
const WAKE_FROM: u32 = 8;
/// The part beyond, in which each record wakes it: several CPUs may pass a single point at the same time.
const WAKE_WITHIN: u32 = 2048;
/// More than any record has.
const LEAST_WAKE_WITHIN: u32 = 1024;

/// The attached programs; dropping it detaches them.
pub struct Attached {
    /// How each hook is attached.
    pub hooks: Vec<HookStatus>,
    /// The ring buffer: every record of hooks and scans.
    pub events: RingBuf<MapData>,
    losses: PerCpuArray<MapData, u64>,
    suspended: Array<MapData, u32>,
    /// tracefs is mounted but closed to this user, and a hook that may need it is missing.
    pub tracefs: Gap,
    /// Failed attempts, in order.
    refusals: Vec<(Hook, Refusal)>,
    /// Links of kprobes and kretprobes: the kernel reports their missed runs there.
    probe_links: Vec<ProbeLink>,
    /// Links of the iterators: each scan starts its passes from them.
    iterators: Vec<IteratorLink>,
    /// Links to events of system calls, with the names of their programs.
    call_links: Vec<(&'static str, TracePointLink)>,
    ebpf: Ebpf,
}

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Bytes of the ring buffer: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Report only the sockets of this network namespace; `None` reports all.
    pub netns: Option<NetnsId>,
    /// How processes are numbered.
    pub processes: PidView,
    /// Whether the BPF programs send diagnostics.
    pub diagnostics: bool,
    /// Attach methods that `--attach` asks for.
    pub methods: ForcedMethods,
    /// Whether to report EMFILE and ENFILE of every call that makes descriptors, not only of socket() and accept().
    pub trace_all_fd_syscalls: bool,
}

/// Loads the object and attaches each hook with the first attach method that works. A missing hook is data; the call
/// fails only if the kernel refuses the maps.
pub fn attach(kernel: &Kernel, options: LoadOptions) -> Result<Attached, ProbeError> {
    if let Some(wanted) = offsets::missing_vital(kernel.offsets).next() {
        return Err(ProbeError::MissingField(format!("{}.{}", wanted.structure, wanted.path)));
    }
    let mut ebpf = load(kernel, options)?;
    let HookLinks { hooks, probe_links, iterators, call_links, refusals } =
        with_tracefs(|| attach_hooks(&mut ebpf, kernel, options));
    let is_missed = hooks.iter().any(|status| status.hook.spec().uses_tracefs() && status.method.is_none());
    let tracefs = tracefs::refusal().filter(|_| is_missed);
    let tracefs = Gap { count: u32::from(tracefs.is_some()), errno: tracefs };
    let events = take_map(&mut ebpf, "EVENTS")?;
    let losses = take_map(&mut ebpf, "LOSSES")?;
    let suspended = take_map(&mut ebpf, "SUSPENDED")?;
    Ok(Attached { hooks, events, losses, suspended, tracefs, refusals, probe_links, iterators, call_links, ebpf })
}

fn load(kernel: &Kernel, options: LoadOptions) -> Result<Ebpf, ProbeError> {
    let settings = Settings {
        netns: options.netns.map_or(Settings::DEFAULT.netns, |netns| netns.0),
        typed_files: u32::from(kernel.has_typed_files),
        pidns: options.processes.numbering().unwrap_or(Settings::DEFAULT.pidns),
        inodes: u32::from(options.processes.needs_walk()),
        wake_from: options.ring_bytes / WAKE_FROM,
        wake_within: (options.ring_bytes / WAKE_WITHIN).max(LEAST_WAKE_WITHIN),
    };
    let log_level: u8 = if options.diagnostics { aya_log::Level::Debug as u8 } else { 0 };
    EbpfLoader::new()
        .btf(Some(&kernel.btf))
        .override_global("OFFSETS", kernel.offsets.as_bytes(), true)
        .override_global("SETTINGS", settings.as_bytes(), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("EVENTS", options.ring_bytes)
        .load(OBJECT)
        .map_err(|error| ProbeError::load(&error))
}

/// The status of each hook, the links that aya does not keep, and the reasons of failed attempts.
struct HookLinks {
    hooks: Vec<HookStatus>,
    probe_links: Vec<ProbeLink>,
    iterators: Vec<IteratorLink>,
    call_links: Vec<(&'static str, TracePointLink)>,
    refusals: Vec<(Hook, Refusal)>,
}

fn attach_hooks(ebpf: &mut Ebpf, kernel: &Kernel, options: LoadOptions) -> HookLinks {
    let trace_all_fd_syscalls = options.trace_all_fd_syscalls;
    let (probe_links, iterators, call_links) = (Vec::new(), Vec::new(), Vec::new());
    let mut loader = Loader { ebpf, kernel, trace_all_fd_syscalls, probe_links, iterators, call_links };
    let (mut hooks, mut refusals) = (Vec::<HookStatus>::new(), Vec::new());
    for hook in Hook::ALL {
        let state_runs = hooks.iter().any(|done| done.hook == Hook::State && done.method.is_some());
        let attempt = |spec: &MethodSpec| match spec.method {
            AttachMethod::StateHook if state_runs => Ok(()),
            AttachMethod::StateHook => Err(Refusal::from("the state hook is missing".to_owned())),
            _ => loader.attach(spec),
        };
        let status = plan::try_methods(hook, options.methods.methods(hook), attempt, |refusal| {
            refusals.push((hook, refusal.clone()));
        });
        hooks.push(status);
    }
    let Loader { probe_links, iterators, call_links, .. } = loader;
    HookLinks { hooks, probe_links, iterators, call_links, refusals }
}

impl Attached {
    /// Fails if a vital hook is missing.
    pub fn require_vital_hooks(&self) -> Result<(), ProbeError> {
        match self.hooks.iter().find(|status| status.hook.spec().is_vital && status.method.is_none()) {
            None => Ok(()),
            Some(status) => {
                let because = self.refusal(status.hook).cloned().unwrap_or_else(|| String::new().into());
                Err(ProbeError::MissingHook { hook: status.hook, because })
            }
        }
    }

    /// Fails if a hook is missing because a resource ran out.
    pub fn require_no_scarcity(&self) -> Result<(), ProbeError> {
        let missing = self.hooks.iter().filter(|status| status.method.is_none());
        let scarce = missing.filter_map(|status| Some((status.hook, self.refusal(status.hook)?)));
        let scarce: Vec<_> = scarce.filter(|(_, refusal)| refusal.is_scarcity()).collect();
        let Some((_, because)) = scarce.last() else { return Ok(()) };
        let names = scarce.iter().map(|(hook, _)| hook.to_string()).collect::<Vec<_>>().join(", ");
        let hooks = if scarce.len() == 1 { format!("the {names} hook") } else { format!("the hooks {names}") };
        Err(ProbeError::ScarceHooks { hooks, because: (*because).clone() })
    }

    /// The kernel's last answer to an attempt to attach this hook.
    #[must_use]
    pub fn refusal(&self, hook: Hook) -> Option<&Refusal> {
        self.refusals.iter().rev().find(|(refused, _)| *refused == hook).map(|(_, refusal)| refusal)
    }

    /// Records that the BPF programs lost since load. An unreadable counter counts as 0.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            ring_full: self.count(Loss::RingFull),
            scan_ring_full: self.count(Loss::ScanRingFull),
            read_failed: self.count(Loss::ReadFailed),
            ..Losses::default()
        }
    }

    /// Records that suspended hooks did not write, since load. An unreadable counter counts as 0.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.count(Loss::Suspended)
    }

    fn count(&self, loss: Loss) -> u64 {
        let per_cpu = self.losses.get(&(loss as u32), 0);
        per_cpu.map_or(0, |per_cpu| per_cpu.iter().sum())
    }

    /// Suspends the hooks that follow sockets, or resumes them. They stay attached, because to attach them again takes rights
    /// that may be given up by then.
    pub fn set_suspended(&mut self, is_suspended: bool) -> Result<(), Refusal> {
        let set = self.suspended.set(0, u32::from(is_suspended), 0);
        set.map_err(|error| Refusal::new("BPF_MAP_UPDATE_ELEM of SUSPENDED", &error))
    }

    /// Takes out what attaches a hook to events of system calls. To drop it takes the kernel a grace period of RCU for each.
    pub fn take_call_links(&mut self, hook: Hook) -> impl Send + use<> {
        let programs = hook.spec().methods.iter().flat_map(|method| method.programs);
        let programs: Vec<&str> = programs.map(|program| program.name).collect();
        self.call_links.extract_if(.., |(name, _)| programs.contains(name)).collect::<Vec<_>>()
    }

    /// CPU time of all hooks while the kernel timed them, since load.
    #[must_use]
    pub fn hook_time(&self) -> Duration {
        let hooks = self.ebpf.programs().filter(|(_, program)| !matches!(program, Program::Iter(_)));
        Duration::from_nanos(hooks.filter_map(|(_, program)| Some(ProgramCounts::of(program)?.run_time_ns)).sum())
    }

    /// Lets the kernel time all BPF programs of the host until the descriptor is closed (`BPF_ENABLE_STATS`, since 5.8). Fails
    /// without CAP_SYS_ADMIN.
    pub fn time_programs(&self) -> Result<OwnedFd, Refusal> {
        aya::sys::enable_stats(Stats::RunTime).map_err(|error| Refusal::new("BPF_ENABLE_STATS", &error))
    }

    /// Whether the kernel lets this thread start passes, where there are any, and read the counters of losses.
    #[must_use]
    pub fn serves_scans(&self) -> bool {
        let starts = self.iterators.iter().all(|link| link.start_pass().is_ok());
        starts && self.losses.get(&(Loss::RingFull as u32), 0).is_ok()
    }

    /// Missed runs of all hooks since load: the kernel skipped a program because it interrupted itself, or because more
    /// returns were pending than a kretprobe holds. `None` where the kernel reports neither.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        // The same program was running on that CPU already. Absent before 5.12.
        let programs = self.ebpf.programs().filter_map(|(_, program)| ProgramCounts::of(program)?.missed);
        let probes = self.probe_links.iter().filter_map(ProbeLink::missed);
        programs.chain(probes).reduce(|sum, missed| sum + missed)
    }

    /// A new pass over the kernel's table, of the network namespace of the calling thread.
    pub fn start_pass(&self, hook: Hook) -> Result<std::fs::File, Refusal> {
        let programs = hook.spec().method(AttachMethod::Iterator).map_or(&[][..], |spec| spec.programs);
        let link = programs.first().and_then(|program| self.iterators.iter().find(|link| link.name() == program.name));
        link.ok_or_else(|| format!("the hook {hook} has no iterator"))?.start_pass()
    }

    /// The reader of the BPF programs' diagnostics, which go to `tracing`.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }
}

fn take_map<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, ProbeError> {
    let map = ebpf.take_map(name).ok_or(ProbeError::Object(name))?;
    T::try_from(map).map_err(|error| ProbeError::Map { name, because: Refusal::new("", &error) })
}
