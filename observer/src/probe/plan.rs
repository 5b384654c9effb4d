//! Which attach method each hook uses: the choices of `--attach`, and a pure function of what attempts return.

use std::{fmt::Display, str::FromStr};

use crate::model::{
    hook::{AttachMethod, HOOKS, Hook, HookSpec, MethodSpec},
    quality::{FailedMethod, HookStatus},
};

/// Attach methods of `--attach`, in place of the first that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForcedMethods([Option<AttachMethod>; Hook::ALL.len()]);

impl ForcedMethods {
    /// The last choice for a hook holds.
    #[must_use]
    pub fn new(choices: impl IntoIterator<Item = ForcedMethod>) -> Self {
        let mut forced = Self::default();
        for ForcedMethod { hook, method } in choices {
            forced.0[hook as usize] = Some(method);
        }
        forced
    }

    /// The attach method that `--attach` asks for.
    #[must_use]
    pub const fn of(&self, hook: Hook) -> Option<AttachMethod> {
        self.0[hook as usize]
    }

    /// The attach methods to try: only the forced one, or all in order of preference.
    #[must_use]
    pub fn methods(&self, hook: Hook) -> &'static [MethodSpec] {
        let methods = hook.spec().methods;
        let forced = self.of(hook).and_then(|wanted| methods.iter().position(|spec| spec.method == wanted));
        forced.map_or(methods, |position| &methods[position..=position])
    }
}

/// The only attach method that a hook may use, written `connect=kprobe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedMethod {
    hook: Hook,
    method: AttachMethod,
}

impl FromStr for ForcedMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hook, method) = text.split_once('=').ok_or("use HOOK=METHOD, for example connect=kprobe")?;
        let spec = HOOKS.iter().find(|spec| spec.name == hook).ok_or_else(|| {
            format!("unknown hook {hook}; the hooks are {}", list(HOOKS.iter().map(|spec| spec.name), ", "))
        })?;
        let known = spec.methods.iter().find(|known| known.method.name() == method);
        let method = known.map(|known| known.method).ok_or_else(|| {
            format!("the hook {hook} has no attach method {method}; its methods are {}", methods_of(spec, ", "))
        })?;
        Ok(Self { hook: spec.hook, method })
    }
}

/// What `--attach` takes, for its help: hooks with a choice, such as `connect=fentry|kprobe`.
#[must_use]
pub fn choices() -> String {
    let choices = HOOKS.iter().filter(|spec| spec.methods.len() > 1);
    list(choices.map(|spec| format!("{}={}", spec.name, methods_of(spec, "|"))), ", ")
}

fn methods_of(spec: &HookSpec, between: &str) -> String {
    list(spec.methods.iter().map(|known| known.method), between)
}

fn list(names: impl Iterator<Item: Display>, between: &str) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(between)
}

/// Tries methods in order until an attempt succeeds. The status keeps each failure with its reason; `on_failure` gets it as
/// it was.
pub fn try_methods<E: Display>(
    hook: Hook,
    methods: &[MethodSpec],
    mut attempt: impl FnMut(&MethodSpec) -> Result<(), E>,
    mut on_failure: impl FnMut(&E),
) -> HookStatus {
    let mut status = HookStatus { hook, method: None, failed: Vec::new() };
    for spec in methods {
        match attempt(spec) {
            Ok(()) => {
                status.method = Some(spec.method);
                break;
            }
            Err(because) => {
                on_failure(&because);
                status.failed.push(FailedMethod { method: spec.method, because: because.to_string() });
            }
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(methods: &[MethodSpec]) -> Vec<AttachMethod> {
        methods.iter().map(|spec| spec.method).collect()
    }

    fn try_methods_with(hook: Hook, works: &[AttachMethod]) -> (HookStatus, Vec<AttachMethod>) {
        let mut tried = Vec::new();
        let attempt = |&MethodSpec { method, .. }: &MethodSpec| {
            tried.push(method);
            if works.contains(&method) { Ok(()) } else { Err(format!("no {method} here")) }
        };
        let status = try_methods(hook, hook.spec().methods, attempt, |_| {});
        (status, tried)
    }

    #[test]
    fn the_first_method_that_works_is_used_and_no_fallback_is_tried() {
        let (status, tried) = try_methods_with(Hook::Accept, &[AttachMethod::Fexit, AttachMethod::SyscallTracepoint]);
        assert_eq!(status, HookStatus { hook: Hook::Accept, method: Some(AttachMethod::Fexit), failed: vec![] });
        assert_eq!(tried, [AttachMethod::Fexit]);
    }

    #[test]
    fn each_method_that_failed_is_kept_with_its_reason() {
        let (status, _) = try_methods_with(Hook::Accept, &[AttachMethod::SyscallTracepoint]);
        assert_eq!(status.method, Some(AttachMethod::SyscallTracepoint));
        assert_eq!(
            status.failed,
            [
                FailedMethod { method: AttachMethod::Fexit, because: "no fexit here".into() },
                FailedMethod { method: AttachMethod::Kretprobe, because: "no kretprobe here".into() },
            ]
        );
    }

    #[test]
    fn a_hook_without_any_method_is_missing_and_says_what_was_tried() {
        let (status, tried) = try_methods_with(Hook::Connect, &[]);
        assert_eq!(status.method, None);
        assert_eq!(tried, names(Hook::Connect.spec().methods));
        assert_eq!(status.failed.len(), tried.len());
    }

    #[test]
    fn a_forced_method_is_the_only_one() {
        let forced = ForcedMethods::new(["connect=kprobe".parse().unwrap(), "accept=syscall_tp".parse().unwrap()]);
        assert_eq!(names(forced.methods(Hook::Connect)), [AttachMethod::Kprobe]);
        assert_eq!(names(forced.methods(Hook::Accept)), [AttachMethod::SyscallTracepoint]);
        assert_eq!(names(forced.methods(Hook::Scan)), names(Hook::Scan.spec().methods));
    }

    #[test]
    fn what_cannot_be_forced_is_refused_with_what_can() {
        let error = |text: &str| text.parse::<ForcedMethod>().unwrap_err();
        assert_eq!(error("kprobe"), "use HOOK=METHOD, for example connect=kprobe");
        assert_eq!(
            error("close=kprobe"),
            "unknown hook close; the hooks are state, destroy, connect, accept, failures, scan, fd_owners"
        );
        assert_eq!(
            error("connect=fexit"),
            "the hook connect has no attach method fexit; its methods are fentry, kprobe, state_hook"
        );
    }

    #[test]
    fn the_help_of_attach_names_every_hook_with_a_choice() {
        assert_eq!(
            choices(),
            "state=tp_btf|raw_tp, destroy=tp_btf|raw_tp, connect=fentry|kprobe|state_hook, \
             accept=fexit|kretprobe|syscall_tp, failures=fexit|syscall_tp"
        );
    }
}
