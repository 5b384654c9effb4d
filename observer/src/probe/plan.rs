//! Which rung carries which hook: a table, and a pure function of what attempts have shown.

use crate::model::trust::{FailedRung, Hook, HookStatus, Rung};

/// The rungs of a hook, the best first.
#[must_use]
pub const fn ladder(hook: Hook) -> &'static [Rung] {
    match hook {
        Hook::State | Hook::Destroy => &[Rung::RawTracepoint],
        Hook::Connect => &[Rung::Fentry, Rung::Kprobe, Rung::StateHook],
        Hook::Accept => &[Rung::Fexit, Rung::Kretprobe, Rung::SyscallTracepoint],
        Hook::Scan | Hook::Holders => &[Rung::Iterator],
    }
}

/// Climbs the ladder of one hook until an attempt succeeds; what was tried in vain is kept with its reason.
pub fn climb(hook: Hook, mut attempt: impl FnMut(Rung) -> Result<(), String>) -> HookStatus {
    let mut status = HookStatus { hook, rung: None, failed: Vec::new() };
    for rung in ladder(hook) {
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
        let status = climb(hook, |rung| {
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
