//! Loads the BPF object with this kernel's offsets and tries the attach methods of each hook.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
};
use observer_ebpf::abi::{Loss, Settings};
use zerocopy::IntoBytes as _;

use super::{
    error::ProbeError,
    kernel::Kernel,
    offsets,
    plan::{self, ForcedMethods},
    probe_link::ProbeLink,
    program::{self, Loader},
    tracefs::{self, with_tracefs},
};
use crate::{
    errno::Refusal,
    host::{pid_namespace::PidView, text},
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

/// The attached programs; dropping it detaches them.
pub struct Attached {
    /// How each hook is attached.
    pub hooks: Vec<HookStatus>,
    /// The ring buffer: every record of hooks and scans.
    pub events: RingBuf<MapData>,
    losses: PerCpuArray<MapData, u64>,
    /// tracefs is mounted but closed to this user, and a hook that may need it is missing.
    pub tracefs: Gap,
    /// Failed attempts, in order.
    refusals: Vec<(Hook, Refusal)>,
    /// Links of kprobes and kretprobes: the kernel reports their missed runs there.
    probe_links: Vec<ProbeLink>,
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
    let (hooks, probe_links, refusals) = with_tracefs(|| attach_hooks(&mut ebpf, kernel, options));
    let is_missed = hooks.iter().any(|status| status.hook.spec().uses_tracefs() && status.method.is_none());
    let tracefs = tracefs::refusal().filter(|_| is_missed);
    let tracefs = Gap { count: u32::from(tracefs.is_some()), errno: tracefs };
    let events = take_map(&mut ebpf, "EVENTS")?;
    let losses = take_map(&mut ebpf, "LOSSES")?;
    Ok(Attached { hooks, events, losses, tracefs, refusals, probe_links, ebpf })
}

fn load(kernel: &Kernel, options: LoadOptions) -> Result<Ebpf, ProbeError> {
    let settings = Settings {
        netns: options.netns.map_or(Settings::DEFAULT.netns, |netns| netns.0),
        typed_files: u32::from(kernel.has_typed_files),
        pidns: options.processes.numbering().unwrap_or(Settings::DEFAULT.pidns),
        inodes: u32::from(options.processes.needs_walk()),
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

/// The status of each hook, the links of its probes, and the reasons of failed attempts.
fn attach_hooks(
    ebpf: &mut Ebpf,
    kernel: &Kernel,
    options: LoadOptions,
) -> (Vec<HookStatus>, Vec<ProbeLink>, Vec<(Hook, Refusal)>) {
    let trace_all_fd_syscalls = options.trace_all_fd_syscalls;
    let mut loader = Loader { ebpf, kernel, trace_all_fd_syscalls, probe_links: Vec::new() };
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
    (hooks, loader.probe_links, refusals)
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
        let count = |loss: Loss| {
            let per_cpu = self.losses.get(&(loss as u32), 0);
            per_cpu.map_or(0, |per_cpu| per_cpu.iter().sum())
        };
        Losses {
            ring_full: count(Loss::RingFull),
            scan_ring_full: count(Loss::ScanRingFull),
            read_failed: count(Loss::ReadFailed),
            ..Losses::default()
        }
    }

    /// Missed runs of all hooks since load: the kernel skipped a program because it interrupted itself, or because more
    /// returns were pending than a kretprobe holds. `None` where the kernel reports neither.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        let programs = self.ebpf.programs().filter_map(|(_, program)| recursion_misses(program));
        let probes = self.probe_links.iter().filter_map(ProbeLink::missed);
        programs.chain(probes).reduce(|sum, missed| sum + missed)
    }

    /// A new pass over the kernel's table, of the network namespace of the calling thread.
    pub fn open_iterator(&mut self, hook: Hook) -> Result<std::fs::File, Refusal> {
        let programs = hook.spec().method(AttachMethod::Iterator).map_or(&[][..], |spec| spec.programs);
        let program = programs.first().ok_or_else(|| format!("the hook {hook} has no iterator"))?;
        program::open_iterator(&mut self.ebpf, program.name)
    }

    /// The reader of the BPF programs' diagnostics, which go to `tracing`.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }
}

/// Missed runs of a program: the same program was running on that CPU already. `None` for a program that is not loaded,
/// and before 5.12.
fn recursion_misses(program: &aya::programs::Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let info = text::string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

fn take_map<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, ProbeError> {
    let map = ebpf.take_map(name).ok_or(ProbeError::Object(name))?;
    T::try_from(map).map_err(|error| ProbeError::Map { name, because: Refusal::new("", &error) })
}
