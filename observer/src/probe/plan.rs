//! Which attach method carries which hook: a table, and a pure function of what attempts have shown.

use std::str::FromStr;

use crate::model::quality::{AttachMethod, FailedMethod, Hook, HookStatus};

/// The attach methods of a hook, the best first.
#[must_use]
pub const fn methods(hook: Hook) -> &'static [AttachMethod] {
    match hook {
        Hook::State | Hook::Destroy => &[AttachMethod::BtfTracepoint, AttachMethod::RawTracepoint],
        Hook::Connect => &[AttachMethod::Fentry, AttachMethod::Kprobe, AttachMethod::StateHook],
        Hook::Accept => &[AttachMethod::Fexit, AttachMethod::Kretprobe, AttachMethod::SyscallTracepoint],
        Hook::Failures => &[AttachMethod::Fexit, AttachMethod::SyscallTracepoint],
        Hook::Scan | Hook::FdOwners => &[AttachMethod::Iterator],
    }
}

/// Attach methods that were asked for in place of the best that works.
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

    /// The attach method that was asked for.
    #[must_use]
    pub const fn of(&self, hook: Hook) -> Option<AttachMethod> {
        self.0[hook as usize]
    }

    /// What is left of a hook's ladder: the attach method that was asked for alone, or all of it.
    #[must_use]
    pub fn methods(&self, hook: Hook) -> &'static [AttachMethod] {
        let methods = methods(hook);
        let forced = self.of(hook).and_then(|wanted| methods.iter().position(|method| *method == wanted));
        forced.map_or(methods, |position| &methods[position..=position])
    }
}

/// A attach method that is to carry a hook, and no other: written `connect=kprobe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedMethod {
    hook: Hook,
    method: AttachMethod,
}

impl FromStr for ForcedMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hook, method) = text.split_once('=').ok_or("not of the form HOOK=METHOD, as in connect=kprobe")?;
        let hook = Hook::ALL
            .into_iter()
            .find(|known| known.to_string() == hook)
            .ok_or_else(|| format!("there is no hook {hook}, but {}", list(&Hook::ALL)))?;
        let method = methods(hook)
            .iter()
            .copied()
            .find(|known| known.to_string() == method)
            .ok_or_else(|| format!("the hook {hook} has no attach method {method}, but {}", list(methods(hook))))?;
        Ok(Self { hook, method })
    }
}

fn list<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Climbs a ladder until an attempt succeeds; what was tried in vain is kept with its reason.
pub fn try_methods(
    hook: Hook,
    methods: &[AttachMethod],
    mut attempt: impl FnMut(AttachMethod) -> Result<(), String>,
) -> HookStatus {
    let mut status = HookStatus { hook, method: None, failed: Vec::new() };
    for method in methods {
        match attempt(*method) {
            Ok(()) => {
                status.method = Some(*method);
                break;
            }
            Err(because) => status.failed.push(FailedMethod { method: *method, because }),
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_methods_with(hook: Hook, works: &[AttachMethod]) -> (HookStatus, Vec<AttachMethod>) {
        let mut tried = Vec::new();
        let status = try_methods(hook, methods(hook), |method| {
            tried.push(method);
            if works.contains(&method) { Ok(()) } else { Err(format!("no {method} here")) }
        });
        (status, tried)
    }

    #[test]
    fn the_best_method_that_works_is_taken_and_nothing_below_it_is_tried() {
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
        assert_eq!(tried, methods(Hook::Connect));
        assert_eq!(status.failed.len(), tried.len());
    }

    #[test]
    fn a_forced_method_is_the_only_one() {
        let forced = ForcedMethods::new(["connect=kprobe".parse().unwrap(), "accept=syscall_tp".parse().unwrap()]);
        assert_eq!(forced.methods(Hook::Connect), [AttachMethod::Kprobe]);
        assert_eq!(forced.methods(Hook::Accept), [AttachMethod::SyscallTracepoint]);
        assert_eq!(forced.methods(Hook::Scan), methods(Hook::Scan));
    }

    #[test]
    fn what_cannot_be_forced_is_refused_with_what_can() {
        let error = |text: &str| text.parse::<ForcedMethod>().unwrap_err();
        assert_eq!(error("kprobe"), "not of the form HOOK=METHOD, as in connect=kprobe");
        assert_eq!(
            error("close=kprobe"),
            "there is no hook close, but state, destroy, connect, accept, failures, scan, fd_owners"
        );
        assert_eq!(
            error("connect=fexit"),
            "the hook connect has no attach method fexit, but fentry, kprobe, state_hook"
        );
    }

    #[test]
    fn every_hook_has_a_method_that_needs_no_function_hooking() {
        for hook in Hook::ALL {
            let lowest = *methods(hook).last().unwrap();
            assert!(
                matches!(
                    lowest,
                    AttachMethod::RawTracepoint
                        | AttachMethod::SyscallTracepoint
                        | AttachMethod::StateHook
                        | AttachMethod::Iterator
                ),
                "{hook} ends in {lowest}"
            );
        }
    }
}
