//! Which rung carries which hook: a table, and a pure function of what attempts have shown.

use std::str::FromStr;

use crate::model::trust::{FailedRung, Hook, HookStatus, Rung};

/// The rungs of a hook, the best first.
#[must_use]
pub const fn ladder(hook: Hook) -> &'static [Rung] {
    match hook {
        Hook::State | Hook::Destroy => &[Rung::BtfTracepoint, Rung::RawTracepoint],
        Hook::Connect => &[Rung::Fentry, Rung::Kprobe, Rung::StateHook],
        Hook::Accept => &[Rung::Fexit, Rung::Kretprobe, Rung::SyscallTracepoint],
        Hook::Failures => &[Rung::Fexit, Rung::SyscallTracepoint],
        Hook::Scan | Hook::Holders => &[Rung::Iterator],
    }
}

/// Rungs that were asked for in place of the best that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForcedRungs([Option<Rung>; Hook::ALL.len()]);

impl ForcedRungs {
    /// The last choice for a hook holds.
    #[must_use]
    pub fn new(choices: impl IntoIterator<Item = ForcedRung>) -> Self {
        let mut forced = Self::default();
        for ForcedRung { hook, rung } in choices {
            forced.0[hook as usize] = Some(rung);
        }
        forced
    }

    /// The rung that was asked for.
    #[must_use]
    pub const fn of(&self, hook: Hook) -> Option<Rung> {
        self.0[hook as usize]
    }

    /// What is left of a hook's ladder: the rung that was asked for alone, or all of it.
    #[must_use]
    pub fn ladder(&self, hook: Hook) -> &'static [Rung] {
        let ladder = ladder(hook);
        let forced = self.of(hook).and_then(|wanted| ladder.iter().position(|rung| *rung == wanted));
        forced.map_or(ladder, |position| &ladder[position..=position])
    }
}

/// A rung that is to carry a hook, and no other: written `connect=kprobe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedRung {
    hook: Hook,
    rung: Rung,
}

impl FromStr for ForcedRung {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hook, rung) = text.split_once('=').ok_or("not of the form HOOK=RUNG, as in connect=kprobe")?;
        let hook = Hook::ALL
            .into_iter()
            .find(|known| known.to_string() == hook)
            .ok_or_else(|| format!("there is no hook {hook}, but {}", list(&Hook::ALL)))?;
        let rung = ladder(hook)
            .iter()
            .copied()
            .find(|known| known.to_string() == rung)
            .ok_or_else(|| format!("the hook {hook} has no rung {rung}, but {}", list(ladder(hook))))?;
        Ok(Self { hook, rung })
    }
}

fn list<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Climbs a ladder until an attempt succeeds; what was tried in vain is kept with its reason.
pub fn climb(hook: Hook, ladder: &[Rung], mut attempt: impl FnMut(Rung) -> Result<(), String>) -> HookStatus {
    let mut status = HookStatus { hook, rung: None, failed: Vec::new() };
    for rung in ladder {
        match attempt(*rung) {
            Ok(()) => {
                status.rung = Some(*rung);
                break;
            }
            Err(because) => status.failed.push(FailedRung { rung: *rung, because }),
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climb_with(hook: Hook, works: &[Rung]) -> (HookStatus, Vec<Rung>) {
        let mut tried = Vec::new();
        let status = climb(hook, ladder(hook), |rung| {
            tried.push(rung);
            if works.contains(&rung) { Ok(()) } else { Err(format!("no {rung} here")) }
        });
        (status, tried)
    }

    #[test]
    fn the_best_rung_that_works_is_taken_and_nothing_below_it_is_tried() {
        let (status, tried) = climb_with(Hook::Accept, &[Rung::Fexit, Rung::SyscallTracepoint]);
        assert_eq!(status, HookStatus { hook: Hook::Accept, rung: Some(Rung::Fexit), failed: vec![] });
        assert_eq!(tried, [Rung::Fexit]);
    }

    #[test]
    fn each_rung_that_failed_is_kept_with_its_reason() {
        let (status, _) = climb_with(Hook::Accept, &[Rung::SyscallTracepoint]);
        assert_eq!(status.rung, Some(Rung::SyscallTracepoint));
        assert_eq!(
            status.failed,
            [
                FailedRung { rung: Rung::Fexit, because: "no fexit here".into() },
                FailedRung { rung: Rung::Kretprobe, because: "no kretprobe here".into() },
            ]
        );
    }

    #[test]
    fn a_hook_without_any_rung_is_missing_and_says_what_was_tried() {
        let (status, tried) = climb_with(Hook::Connect, &[]);
        assert_eq!(status.rung, None);
        assert_eq!(tried, ladder(Hook::Connect));
        assert_eq!(status.failed.len(), tried.len());
    }

    #[test]
    fn a_forced_rung_is_the_only_one() {
        let forced = ForcedRungs::new(["connect=kprobe".parse().unwrap(), "accept=syscall_tp".parse().unwrap()]);
        assert_eq!(forced.ladder(Hook::Connect), [Rung::Kprobe]);
        assert_eq!(forced.ladder(Hook::Accept), [Rung::SyscallTracepoint]);
        assert_eq!(forced.ladder(Hook::Scan), ladder(Hook::Scan));
    }

    #[test]
    fn what_cannot_be_forced_is_refused_with_what_can() {
        let error = |text: &str| text.parse::<ForcedRung>().unwrap_err();
        assert_eq!(error("kprobe"), "not of the form HOOK=RUNG, as in connect=kprobe");
        assert_eq!(
            error("close=kprobe"),
            "there is no hook close, but state, destroy, connect, accept, failures, scan, holders"
        );
        assert_eq!(error("connect=fexit"), "the hook connect has no rung fexit, but fentry, kprobe, state_hook");
    }

    #[test]
    fn every_hook_has_a_rung_that_needs_no_function_hooking() {
        for hook in Hook::ALL {
            let lowest = *ladder(hook).last().unwrap();
            assert!(
                matches!(lowest, Rung::RawTracepoint | Rung::SyscallTracepoint | Rung::StateHook | Rung::Iterator),
                "{hook} ends in {lowest}"
            );
        }
    }
}
