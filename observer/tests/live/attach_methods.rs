//! Every attach method of every hook, one by one: what this kernel lacks is refused with its reason, what it has is really hit.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    net::TcpStream,
};

use observer::{
    engine::{Engine, Options},
    model::{
        quality::{AttachMethod, Hook, HookStatus},
        snapshot::Snapshot,
    },
    probe::{
        attach::{Kernel, program_of},
        plan::{ForcedMethods, methods},
    },
};

use crate::support::{eventually, in_private_netns, listen, options};

/// A attach method that a kernel is known to lack, with a part of its answer.
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

/// What became of a hook that may use one attach method alone.
fn try_alone(hook: Hook, method: AttachMethod) -> (Option<Engine>, HookStatus) {
    let choice = format!("{hook}={method}").parse().unwrap();
    let engine = Engine::start(Options { methods: ForcedMethods::new([choice]), ..options() });
    let mut engine = engine.unwrap_or_else(|error| panic!("{hook}={method}: {error:#}"));
    let status = engine.snapshot(0).quality.hooks.into_iter().find(|status| status.hook == hook).unwrap();
    (Some(engine).filter(|_| status.method.is_some()), status)
}

#[test]
fn what_a_kernel_has_is_hit_and_what_it_lacks_is_reported_with_its_reason() {
    in_private_netns(|| {
        let gaps = known_gaps();
        for hook in Hook::ALL {
            let mut best = None;
            for &method in methods(hook) {
                let expected = gaps.map(|gaps| gaps.iter().find(|gap| (gap.hook, gap.method) == (hook, method)));
                let (engine, status) = try_alone(hook, method);
                match (engine, expected) {
                    (Some(engine), None | Some(None)) => {
                        assert_eq!(status.failed, []);
                        assert_is_hit(engine, hook, method);
                        let result = if best.is_none() { "used" } else { "works" };
                        best = best.or(Some(method));
                        for program in programs(hook, method) {
                            tell(&format!("hook={hook} method={method} program={program} result={result}"));
                        }
                    }
                    (None, expected @ (None | Some(Some(_)))) => {
                        let because = &status.failed[0].because;
                        let wanted = expected.flatten().map_or("", |gap| gap.because);
                        assert!(
                            because.contains(wanted),
                            "{hook} by {method} failed as {because:?}, not as {wanted:?}"
                        );
                        for program in programs(hook, method) {
                            tell(&format!(
                                "hook={hook} method={method} program={program} result=missing reason={because}"
                            ));
                        }
                    }
                    (Some(_), Some(Some(_))) => panic!("{hook} by {method} works: it is no gap any more"),
                    (None, Some(None)) => panic!("{hook} by {method} is known to work here, but {status:?}"),
                }
            }
            // The best of those that work is the one that is used, and has tried those above it.
            let mut engine = Engine::start(Options { methods: ForcedMethods::default(), ..options() }).unwrap();
            let used = engine.snapshot(0).quality.hooks.into_iter().find(|status| status.hook == hook).unwrap();
            assert_eq!(used.method, best);
            let above = methods(hook).iter().take_while(|method| Some(**method) != best);
            assert!(used.failed.iter().map(|failed| failed.method).eq(above.copied()), "{used:?}");
        }
    });
}

/// The programs that a attach method runs: of the failures hook, whose attach methods have one for each kind of call, the busiest.
fn programs(hook: Hook, method: AttachMethod) -> Vec<&'static str> {
    match (hook, method) {
        (Hook::Connect, AttachMethod::StateHook) => programs(Hook::State, methods(Hook::State)[0]),
        (Hook::Failures, AttachMethod::Fexit) => vec!["failures_accept4_fexit", "failures_connect_fexit"],
        (Hook::Failures, _) => vec!["failures_fd_sys_exit", "failures_connect_sys_exit"],
        _ => vec![program_of(&Kernel::read().unwrap(), hook, method).unwrap()],
    }
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
    eventually(&mut engine, &format!("{hook} by {method}: {expected} records"), |now| {
        (now.quality.events_total - before.quality.events_total == expected).then_some(())
    });
    drop((client, accepted));
    // Six changes of state up to CLOSE, and the end of the listener and of two sockets.
    drop(listener);
    eventually(&mut engine, &format!("{hook} by {method}: all closed"), |now| {
        (now.totals.closed_total == 2).then_some(())
    });
}

/// What a run has shown of this kernel, for the table in docs/kernel-support.md.
pub(crate) fn tell(fact: &str) {
    let Some(path) = env::var_os("OBSERVER_FACTS") else { return };
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(file, "{fact}").unwrap();
}

#[test]
fn what_the_kernel_tells_of_runs_that_it_left_out_is_known() {
    in_private_netns(|| {
        let mut engine = Engine::start(options()).unwrap();
        // The kernel itself, by the descriptors of our own programs.
        let tells = fs::read_dir("/proc/self/fdinfo")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .any(|info| info.contains("recursion_misses:"));
        let missed = engine.snapshot(0).quality.losses.missed;
        assert_eq!(missed.is_some(), tells, "{missed:?}");
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        assert_eq!(tells, !release.starts_with("5.10."), "{release} tells of misses: {tells}");
        let result = if tells { "works" } else { "missing reason=programs have no recursion_misses before 5.12" };
        tell(&format!("hook=misses method=recursion_misses program=bpf_prog_info result={result}"));
    });
}
