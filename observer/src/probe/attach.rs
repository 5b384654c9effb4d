//! Loads the BPF object with this kernel's offsets and climbs the ladder of each hook.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, ProgramError, RawTracePoint, TracePoint, links::FdLink},
};
use observer_ebpf::abi::{Loss, Offsets, Settings};
use zerocopy::IntoBytes as _;

use super::{
    btf::Btf,
    error::{KERNEL_BTF, ProbeError, reason},
    failures, offsets,
    plan::{self, ForcedMethods},
    probe_link::ProbeLink,
    tracefs::{self, with_tracefs},
};
use crate::{
    errno::Refusal,
    host::{pid_namespace::PidView, text},
    model::{
        gaps::Gap,
        quality::{AttachMethod, Hook, HookStatus, Losses},
        units::NetnsId,
    },
};

#[cfg(target_arch = "x86_64")]
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/observer-x86_64.bpf.o");
#[cfg(target_arch = "aarch64")]
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/observer-aarch64.bpf.o");

/// What is known of the running kernel before anything is loaded.
pub struct Kernel {
    /// Where its fields are.
    pub offsets: Offsets,
    /// Parameters of `inet_csk_accept`, `None` if BTF does not have it.
    pub accept_parameters: Option<u32>,
    /// Whether it has `bpf_get_current_task_btf` and `bpf_sock_from_file`.
    pub has_typed_files: bool,
    btf: aya::Btf,
}

impl Kernel {
    /// Reads BTF.
    pub fn read() -> Result<Self, ProbeError> {
        let bytes = text::bytes(KERNEL_BTF).map_err(ProbeError::no_btf)?;
        let for_aya = aya::Btf::parse(&bytes, aya::Endianness::default());
        let btf = Btf::parse(bytes).map_err(ProbeError::BadBtf)?;
        Ok(Self {
            offsets: offsets::resolve(&btf),
            accept_parameters: btf.parameters("inet_csk_accept"),
            has_typed_files: ["bpf_get_current_task_btf", "bpf_sock_from_file"]
                .iter()
                .all(|helper| btf.parameters(helper).is_some()),
            btf: for_aya.map_err(|error| ProbeError::load(&error))?,
        })
    }

    /// Whether bind buckets can be read: they tell which ports connect() passes over.
    #[must_use]
    pub const fn reads_buckets(&self) -> bool {
        let Offsets { icsk_bind_hash, fastreuse, fastreuseport, tw_tb, .. } = self.offsets;
        icsk_bind_hash != Offsets::ABSENT
            && fastreuse != Offsets::ABSENT
            && fastreuseport != Offsets::ABSENT
            && tw_tb != Offsets::ABSENT
    }

    /// Whether a bind bucket is set free with its last explicit socket: since 6.18, which tells by `tw_connect_bind`.
    #[must_use]
    pub const fn frees_buckets(&self) -> bool {
        self.offsets.tw_connect_bind != Offsets::ABSENT
    }
}

/// The attached programs; dropping it detaches them.
pub struct Attached {
    /// What became of each hook.
    pub hooks: Vec<HookStatus>,
    /// Every record.
    pub events: RingBuf<MapData>,
    losses: PerCpuArray<MapData, u64>,
    /// tracefs is there but closed to us, and a hook that needs it is missing.
    pub tracefs: Gap,
    /// By hook, what its last attempt failed with.
    refusals: Vec<(Hook, Refusal)>,
    /// Of kprobes and kretprobes: the kernel tells by these what they missed.
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
    /// Whether the kernel side sends its diagnostics.
    pub diagnostics: bool,
    /// Attach methods that were asked for.
    pub methods: ForcedMethods,
    /// Whether EMFILE and ENFILE are told of every call that makes descriptors, not of sockets' alone.
    pub trace_all_fd_syscalls: bool,
}

/// Loads the object and attaches each hook by the best attach method that works. A missing hook is data; only when the maps
/// are refused is there nothing to return.
pub fn attach(kernel: &Kernel, options: LoadOptions) -> Result<Attached, ProbeError> {
    if let Some(wanted) = offsets::missing_vital(kernel.offsets).next() {
        return Err(ProbeError::MissingField(format!("{}.{}", wanted.structure, wanted.path)));
    }
    let settings = Settings {
        netns: options.netns.map_or(Settings::DEFAULT.netns, |netns| netns.0),
        typed_files: u32::from(kernel.has_typed_files),
        pidns: options.processes.numbering().unwrap_or(Settings::DEFAULT.pidns),
        inodes: u32::from(options.processes.needs_walk()),
    };
    let log_level: u8 = if options.diagnostics { aya_log::Level::Debug as u8 } else { 0 };
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&kernel.btf))
        .override_global("OFFSETS", kernel.offsets.as_bytes(), true)
        .override_global("SETTINGS", settings.as_bytes(), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("EVENTS", options.ring_bytes)
        .load(OBJECT)
        .map_err(|error| ProbeError::load(&error))?;
    let (mut probe_links, mut refusals) = (Vec::new(), Vec::new());
    let hooks = with_tracefs(|| {
        let mut hooks: Vec<HookStatus> = Vec::new();
        for hook in Hook::ALL {
            let state_runs = hooks.iter().any(|done| done.hook == Hook::State && done.method.is_some());
            hooks.push(plan::try_methods(hook, options.methods.methods(hook), |method| {
                let attempted = attempt(&mut ebpf, &mut probe_links, kernel, options, hook, method, state_runs);
                attempted.map_err(|refusal| {
                    refusals.push((hook, refusal.clone()));
                    refusal.to_string()
                })
            }));
        }
        hooks
    });
    let needs_tracefs = |status: &HookStatus| matches!(status.hook, Hook::Accept | Hook::Failures);
    let is_missed = hooks.iter().any(|status| needs_tracefs(status) && status.method.is_none());
    let tracefs = tracefs::refusal().filter(|_| is_missed);
    let tracefs = Gap { count: u32::from(tracefs.is_some()), errno: tracefs };
    let events = take_map(&mut ebpf, "EVENTS")?;
    let losses = take_map(&mut ebpf, "LOSSES")?;
    Ok(Attached { hooks, events, losses, tracefs, refusals, probe_links, ebpf })
}

impl Attached {
    /// Fails if a hook is missing without which there is nothing to show.
    pub fn require_vital_hooks(&self) -> Result<(), ProbeError> {
        match self.hooks.iter().find(|status| status.hook.is_vital() && status.method.is_none()) {
            None => Ok(()),
            Some(status) => {
                let because = self.refusal(status.hook).cloned().unwrap_or_else(|| String::new().into());
                Err(ProbeError::MissingHook { hook: status.hook, because })
            }
        }
    }

    /// Fails if a hook is missing because something ran short: it would be there otherwise.
    pub fn require_no_scarcity(&self) -> Result<(), ProbeError> {
        let missing = self.hooks.iter().filter(|status| status.method.is_none());
        let scarce = missing.filter_map(|status| Some((status.hook, self.refusal(status.hook)?)));
        let scarce: Vec<_> = scarce.filter(|(_, refusal)| refusal.is_scarcity()).collect();
        let Some((_, because)) = scarce.last() else { return Ok(()) };
        let names = scarce.iter().map(|(hook, _)| hook.to_string()).collect::<Vec<_>>().join(", ");
        let hooks = if scarce.len() == 1 { format!("the {names} hook") } else { format!("the hooks {names}") };
        Err(ProbeError::ScarceHooks { hooks, because: (*because).clone() })
    }

    /// The kernel's last answer to an attempt to have this hook.
    #[must_use]
    pub fn refusal(&self, hook: Hook) -> Option<&Refusal> {
        self.refusals.iter().rev().find(|(refused, _)| *refused == hook).map(|(_, refusal)| refusal)
    }

    /// Records that the kernel side lost since load. A counter that cannot be read counts as 0.
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

    /// How often the kernel did not run one of the hooks: it had interrupted itself, or more returns were pending than
    /// a kretprobe can hold. `None` where the kernel tells nothing of it.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        let programs = self.ebpf.programs().filter_map(|(_, program)| recursion_misses(program));
        let probes = self.probe_links.iter().filter_map(ProbeLink::missed);
        programs.chain(probes).reduce(|sum, missed| sum + missed)
    }

    /// A new pass over the kernel's table, of the network namespace of the calling thread.
    pub fn open_iterator(&mut self, hook: Hook) -> Result<std::fs::File, Refusal> {
        open_iterator(&mut self.ebpf, iterator_program(hook))
    }

    /// The reader of the kernel side's diagnostics, which go to `tracing`.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }
}

/// How often the kernel did not run a program because the same program was running on that CPU; `None` for a program
/// that is not loaded, and before 5.12.
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

/// One attach method of one hook, loaded and attached for real; what could not be attached is unloaded.
fn attempt(
    ebpf: &mut Ebpf,
    probe_links: &mut Vec<ProbeLink>,
    kernel: &Kernel,
    options: LoadOptions,
    hook: Hook,
    method: AttachMethod,
    state_runs: bool,
) -> Result<(), Refusal> {
    if method == AttachMethod::StateHook {
        return if state_runs { Ok(()) } else { Err("the state hook is missing".to_owned().into()) };
    }
    if hook == Hook::Failures {
        return match method {
            AttachMethod::Fexit => failures::by_functions(ebpf, &kernel.btf, options.trace_all_fd_syscalls),
            _ => failures::by_system_calls(ebpf, options.trace_all_fd_syscalls),
        };
    }
    let name = program_of(kernel, hook, method)?;
    let attached = match method {
        AttachMethod::Kprobe | AttachMethod::Kretprobe => {
            attach_probe(ebpf, name, function_of(hook)).map(|link| probe_links.extend(link))
        }
        _ => load_and_attach(ebpf, &kernel.btf, hook, method, name),
    };
    if attached.is_err() {
        unload(ebpf, name, method);
    }
    attached
}

/// A program that was loaded and could not be attached would stay in the kernel for nothing. Where the load itself
/// failed there is nothing to unload, which is what the ignored errors say.
pub(super) fn unload(ebpf: &mut Ebpf, name: &str, method: AttachMethod) {
    match method {
        AttachMethod::BtfTracepoint => drop(program::<BtfTracePoint>(ebpf, name).map(BtfTracePoint::unload)),
        AttachMethod::Fentry => drop(program::<FEntry>(ebpf, name).map(FEntry::unload)),
        AttachMethod::Fexit => drop(program::<FExit>(ebpf, name).map(FExit::unload)),
        AttachMethod::Kprobe | AttachMethod::Kretprobe => drop(program::<KProbe>(ebpf, name).map(KProbe::unload)),
        AttachMethod::SyscallTracepoint => drop(program::<TracePoint>(ebpf, name).map(TracePoint::unload)),
        AttachMethod::RawTracepoint | AttachMethod::Iterator | AttachMethod::StateHook => {}
    }
}

/// The program of the embedded object for this attach method; an error where this kernel cannot have it.
pub fn program_of(kernel: &Kernel, hook: Hook, method: AttachMethod) -> Result<&'static str, Refusal> {
    Ok(match (hook, method) {
        (Hook::State, AttachMethod::BtfTracepoint) => "state_tp_btf",
        (Hook::State, AttachMethod::RawTracepoint) => "state_raw_tp",
        (Hook::Destroy, AttachMethod::BtfTracepoint) => "destroy_tp_btf",
        (Hook::Destroy, AttachMethod::RawTracepoint) => "destroy_raw_tp",
        (Hook::Connect, AttachMethod::Fentry) => "connect_fentry",
        (Hook::Connect, AttachMethod::Kprobe) => "connect_kprobe",
        (Hook::Accept, AttachMethod::Fexit) => match kernel.accept_parameters {
            Some(2) => "accept_fexit_2_args",
            Some(4) => "accept_fexit_4_args",
            Some(other) => return Err(format!("inet_csk_accept has {other} parameters, not 2 or 4").into()),
            None => return Err("BTF has no inet_csk_accept".to_owned().into()),
        },
        (Hook::Accept, AttachMethod::Kretprobe) => "accept_kretprobe",
        (Hook::Accept, AttachMethod::SyscallTracepoint) => "accept_sys_exit",
        (Hook::Scan | Hook::FdOwners, AttachMethod::Iterator) => iterator_program(hook),
        (hook, method) => return Err(format!("{hook} has no program for {method}").into()),
    })
}

fn load_and_attach(
    ebpf: &mut Ebpf,
    btf: &aya::Btf,
    hook: Hook,
    method: AttachMethod,
    name: &str,
) -> Result<(), Refusal> {
    let function = function_of(hook);
    match method {
        AttachMethod::BtfTracepoint => {
            let program: &mut BtfTracePoint = program(ebpf, name)?;
            done(program.load(function, btf).and_then(|()| program.attach()))
        }
        AttachMethod::RawTracepoint => {
            let program: &mut RawTracePoint = program(ebpf, name)?;
            done(program.load().and_then(|()| program.attach(function)))
        }
        AttachMethod::Fentry => {
            let program: &mut FEntry = program(ebpf, name)?;
            done(program.load(function, btf).and_then(|()| program.attach()))
        }
        AttachMethod::Fexit => {
            let program: &mut FExit = program(ebpf, name)?;
            done(program.load(function, btf).and_then(|()| program.attach()))
        }
        AttachMethod::SyscallTracepoint => {
            attach_to_syscalls(ebpf, name, &["sys_exit_accept".to_owned(), "sys_exit_accept4".to_owned()])
        }
        AttachMethod::Iterator => {
            let target = if hook == Hook::Scan { "tcp" } else { "task_file" };
            let program: &mut Iter = program(ebpf, name)?;
            done(program.load(target, btf))?;
            open_iterator(ebpf, name).map(drop)
        }
        AttachMethod::Kprobe | AttachMethod::Kretprobe | AttachMethod::StateHook => Ok(()),
    }
}

/// Loads a program and attaches it to each of these `syscalls:*` events.
pub(super) fn attach_to_syscalls(ebpf: &mut Ebpf, name: &str, events: &[String]) -> Result<(), Refusal> {
    if let Some(errno) = tracefs::refusal() {
        return Err(Refusal {
            operation: "look into tracefs".to_owned(),
            errno: Some(errno),
            cause: crate::errno::describe_number(errno),
        });
    }
    let program: &mut TracePoint = program(ebpf, name)?;
    done(program.load())?;
    events.iter().try_for_each(|event| done(program.attach("syscalls", event)))
}

/// The link of a kprobe, where the kernel has links of probes (5.15); before, the program itself keeps it attached.
fn attach_probe(ebpf: &mut Ebpf, name: &str, function: &str) -> Result<Option<ProbeLink>, Refusal> {
    let program: &mut KProbe = program(ebpf, name)?;
    let attached = program.load().and_then(|()| program.attach(function, 0)).and_then(|id| program.take_link(id));
    match FdLink::try_from(attached.map_err(|error| reason(&error))?) {
        Ok(link) => Ok(Some(ProbeLink::new(link))),
        // What was not converted is detached.
        Err(_) => done(program.attach(function, 0)).map(|()| None),
    }
}

/// The kernel function whose entry or return a hook is, or the tracepoint.
const fn function_of(hook: Hook) -> &'static str {
    match hook {
        Hook::State => "inet_sock_set_state",
        Hook::Destroy => "tcp_destroy_sock",
        Hook::Accept => "inet_csk_accept",
        _ => "tcp_connect",
    }
}

const fn iterator_program(hook: Hook) -> &'static str {
    match hook {
        Hook::FdOwners => "scan_task_file",
        _ => "scan_tcp",
    }
}

fn open_iterator(ebpf: &mut Ebpf, name: &str) -> Result<std::fs::File, Refusal> {
    let program: &mut Iter = program(ebpf, name)?;
    let link = program.attach().and_then(|id| program.take_link(id));
    let link = link.map_err(|error| Refusal::new(format!("BPF_LINK_CREATE of {name}"), &error))?;
    link.into_file().map_err(|error| Refusal::new(format!("BPF_ITER_CREATE of {name}"), &error))
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Refusal>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the embedded object has no program {name}"))?;
    program.try_into().map_err(|error: ProgramError| reason(&error))
}

pub(super) fn done<T>(result: Result<T, ProgramError>) -> Result<(), Refusal> {
    result.map(drop).map_err(|error| reason(&error))
}
