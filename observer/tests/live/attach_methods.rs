//! Every attach method of every hook, one by one: what this kernel lacks is refused with its reason, what it has is really hit.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    net::TcpStream,
};

use observer::{
    engine::{Engine, EngineOptions},
    model::{
        hook::{AttachMethod, Hook, MethodSpec},
        quality::HookStatus,
        snapshot::Snapshot,
    },
    probe::{kernel::Kernel, plan::ForcedMethods},
};

use crate::support::{eventually, in_private_netns, listen, options};

/// An attach method that a kernel is known to lack, with a part of its answer.
struct Gap {
    hook: Hook,
    method: AttachMethod,
    because: &'static str,
}

/// The kernel of the CI machine allows no BPF trampolines and is built without kprobes.
const GAPS_OF_CI: [Gap; 5] = [
    Gap { hook: Hook::Connect, method: AttachMethod::Fentry, because: "Operation not permitted" },
    Gap { hook: Hook::Connect, method: AttachMethod::Kprobe, because: "kprobe" },
    Gap { hook: Hook::Accept, method: AttachMethod::Fexit, because: "Operation not permitted" },
    Gap { hook: Hook::Accept, method: AttachMethod::Kretprobe, because: "kprobe" },
    Gap { hook: Hook::Failures, method: AttachMethod::Fexit, because: "Operation not permitted" },
];

/// Its BTF describes the functions of system calls by their stand-ins, which know no registers.
const GAPS_OF_5_10: [Gap; 1] =
    [Gap { hook: Hook::Failures, method: AttachMethod::Fexit, because: "invalid bpf_context access" }];

/// Gaps of this kernel: those of distributions have next to none. `None` for a kernel that nobody has described.
fn known_gaps() -> Option<&'static [Gap]> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if env::var_os("OBSERVER_VM").is_some() {
        Some(if release.starts_with("5.10.") { &GAPS_OF_5_10 } else { &[] })
    } else if release.contains("-fc-") {
        Some(&GAPS_OF_CI)
    } else {
        None
    }
}

/// What is known of an attach method on this kernel.
#[derive(Clone, Copy)]
enum Expected {
    /// Nobody has described this kernel.
    Unknown,
    Works,
    /// It fails, and the kernel's answer contains this.
    Fails(&'static str),
}

fn expected(hook: Hook, method: AttachMethod) -> Expected {
    let Some(gaps) = known_gaps() else { return Expected::Unknown };
    let gap = gaps.iter().find(|gap| (gap.hook, gap.method) == (hook, method));
    gap.map_or(Expected::Works, |gap| Expected::Fails(gap.because))
}

/// What became of a hook that may use one attach method alone.
fn try_alone(hook: Hook, method: AttachMethod) -> (Option<Engine>, HookStatus) {
    let choice = format!("{hook}={method}").parse().unwrap();
    let engine = Engine::start(EngineOptions { methods: ForcedMethods::new([choice]), ..options() });
    let mut engine = engine.unwrap_or_else(|error| panic!("{hook}={method}: {error:#}"));
    let status = engine.snapshot(0).quality.hooks.into_iter().find(|status| status.hook == hook).unwrap();
    (Some(engine).filter(|_| status.method.is_some()), status)
}

#[test]
fn what_a_kernel_has_is_hit_and_what_it_lacks_is_reported_with_its_reason() {
    in_private_netns(|| {
        let kernel = Kernel::shared().unwrap();
        let mut engine = Engine::start(EngineOptions { methods: ForcedMethods::default(), ..options() }).unwrap();
        let unforced = engine.snapshot(0).quality.hooks;
        drop(engine);
        for hook in Hook::ALL {
            let methods = hook.spec().methods;
            let mut preferred = None;
            for spec in methods {
                if has_method(&kernel, hook, spec, preferred.is_none()) {
                    preferred = preferred.or(Some(spec.method));
                }
            }
            // The first method that works is the one that is used, and those before it were tried.
            let used = unforced.iter().find(|status| status.hook == hook).unwrap();
            assert_eq!(used.method, preferred);
            let before = methods.iter().map(|spec| spec.method).take_while(|method| Some(*method) != preferred);
            assert!(used.failed.iter().map(|failed| failed.method).eq(before), "{used:?}");
        }
    });
}

/// Whether a method works alone, which must be what is known of this kernel.
fn has_method(kernel: &Kernel, hook: Hook, spec: &MethodSpec, is_first: bool) -> bool {
    let method = spec.method;
    let report = |result: &str| {
        for program in programs(kernel, hook, spec) {
            report(&format!("hook={hook} method={method} program={program} result={result}"));
        }
    };
    let (engine, status) = try_alone(hook, method);
    match (engine, expected(hook, method)) {
        (Some(engine), Expected::Unknown | Expected::Works) => {
            assert_eq!(status.failed, []);
            assert_is_hit(engine, hook, method);
            report(if is_first { "used" } else { "works" });
            true
        }
        (None, expected @ (Expected::Unknown | Expected::Fails(_))) => {
            let because = &status.failed[0].because;
            let wanted = if let Expected::Fails(wanted) = expected { wanted } else { "" };
            assert!(because.contains(wanted), "{hook} with {method} failed with {because:?}, not with {wanted:?}");
            report(&format!("missing reason={because}"));
            false
        }
        (Some(_), Expected::Fails(_)) => panic!("{hook} with {method} works: it is no gap any more"),
        (None, Expected::Works) => panic!("{hook} with {method} is known to work here, but {status:?}"),
    }
}

/// The programs that an attach method runs.
fn programs(kernel: &Kernel, hook: Hook, spec: &MethodSpec) -> Vec<&'static str> {
    if (hook, spec.method) == (Hook::Connect, AttachMethod::StateHook) {
        return programs(kernel, Hook::State, &Hook::State.spec().methods[0]);
    }
    kernel.programs(spec).unwrap().iter().map(|program| program.name).collect()
}

/// One loopback connection is five records by hooks at most: CLOSE>SYN_SENT, SYN_SENT>ESTABLISHED and
/// SYN_RECV>ESTABLISHED by the state hook, and one each by connect and accept where these have a program of their own.
fn assert_is_hit(mut engine: Engine, hook: Hook, method: AttachMethod) {
    let before = engine.snapshot(0);
    let has_program = |snapshot: &Snapshot, hook| {
        let method = snapshot.quality.hooks.iter().find(|status| status.hook == hook).unwrap().method;
        u64::from(method.is_some_and(|method| method != AttachMethod::StateHook))
    };
    let own_programs = has_program(&before, Hook::Connect) + has_program(&before, Hook::Accept);
    let listener = listen("127.0.0.1:7000", 128);
    let client = TcpStream::connect("127.0.0.1:7000").unwrap();
    let accepted = listener.accept().unwrap();
    // The listener's own change to LISTEN is one more.
    let expected = 3 + own_programs + 1;
    eventually(&mut engine, &format!("{hook} with {method}: {expected} records"), |now| {
        (now.quality.events_total - before.quality.events_total == expected).then_some(())
    });
    drop((client, accepted));
    // Six changes of state up to CLOSE, and the end of the listener and of two sockets.
    drop(listener);
    eventually(&mut engine, &format!("{hook} with {method}: all closed"), |now| {
        (now.totals.closed_total == 2).then_some(())
    });
}

/// What a run has shown of this kernel, for the table in docs/kernel-support.md.
pub(crate) fn report(fact: &str) {
    let Some(path) = env::var_os("OBSERVER_FACTS") else { return };
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(file, "{fact}").unwrap();
}

#[test]
fn whether_the_kernel_reports_missed_runs_is_known() {
    in_private_netns(|| {
        let mut engine = Engine::start(options()).unwrap();
        // The kernel's own answer, from the descriptors of our programs.
        let reports = fs::read_dir("/proc/self/fdinfo")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .any(|info| info.contains("recursion_misses:"));
        let missed = engine.snapshot(0).quality.losses.missed;
        assert_eq!(missed.is_some(), reports, "{missed:?}");
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        assert_eq!(reports, !release.starts_with("5.10."), "{release} reports missed runs: {reports}");
        let result = if reports { "works" } else { "missing reason=programs have no recursion_misses before 5.12" };
        report(&format!("hook=missed_runs method=recursion_misses program=bpf_prog_info result={result}"));
    });
}
