//! `observer check`: the limits as a plugin for monitoring systems sees them. One line, then exit status 0 (OK),
//! 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN).
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use super::hits;
use crate::{
    frame::Frame,
    model::{
        gaps::Gaps,
        limit::{About, Limit, LimitKind},
        quality::Quality,
        units::NetnsId,
    },
    present::scope,
};

/// The outcome of a check, the better first.
///
/// `Ok` means that everything was read and every limit is far. Where something was not read, what was read still makes a
/// warning or a critical state; without one the status is `Unknown`, with what was not read and the capability that would
/// help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Every limit is far.
    Ok = 0,
    /// A limit is at `--warn` or beyond.
    Warning,
    /// A limit is at `--crit` or beyond.
    Critical,
    /// The limits could not be seen, not all of them, or the command line was wrong.
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// How full a limit may be, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// From here on it is a warning.
    pub warn: u8,
    /// From here on it is critical.
    pub crit: u8,
}

/// Limits that are named in the line, the fullest first.
const NAMED: usize = 4;

/// The line, and the status that is its exit status.
#[must_use]
pub fn line(frame: &Frame, thresholds: Thresholds) -> (Status, String) {
    let snapshot = &frame.snapshot;
    let (status, words) = judge(&snapshot.limits, thresholds, frame.unnamed());
    let (status, unread) = with_gaps(status, &snapshot.quality.gaps);
    let missing = missing_hooks(&snapshot.quality);
    let lost = snapshot.quality.lost_total();
    let doubt = if lost > 0 { format!(" ({lost} records lost)") } else { String::new() };
    let data = performance(&snapshot.limits, thresholds).chain(hits::performance(snapshot, frame.own));
    let data = data.collect::<Vec<_>>().join(" ");
    (status, format!("OBSERVER {status} - {words}{unread}{missing}{doubt} | {data}\n"))
}

/// Says that nothing is known, and why.
pub fn unknown(why: &str, out: &mut impl Write) -> io::Result<Status> {
    let line = why.lines().find(|line| !line.is_empty()).unwrap_or_default().trim_start_matches("error: ");
    writeln!(out, "OBSERVER UNKNOWN - {}", line.replace('|', "?"))?;
    Ok(Status::Unknown)
}

/// What nobody has looked at is not fine; what is too full stays too full.
fn with_gaps(status: Status, gaps: &Gaps) -> (Status, String) {
    let mut words = gaps.advice();
    words.extend(gaps.skipped.sentence());
    // The first one is empty, so that each is behind a semicolon.
    words.insert(0, String::new());
    let words = if words.len() > 1 { words.join("; ") } else { String::new() };
    let is_unknown = status == Status::Ok && (gaps.hide_limits() || gaps.skipped.rounds > 0);
    (if is_unknown { Status::Unknown } else { status }, words.replace('|', "?"))
}

/// Limits are read without them; what they would have reported is not in the line.
fn missing_hooks(quality: &Quality) -> String {
    let names: Vec<String> = quality.missing().map(|status| status.hook.to_string()).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    if names.is_empty() { String::new() } else { format!("; hook{plural} missing: {}", names.join(", ")) }
}

fn status_of(limit: &Limit, thresholds: Thresholds) -> Status {
    match (limit.used, limit.practical_maximum()) {
        (used, Some(maximum)) if used > highest_below(maximum, thresholds.crit) => Status::Critical,
        (used, Some(maximum)) if used > highest_below(maximum, thresholds.warn) => Status::Warning,
        _ => Status::Ok,
    }
}

/// The highest number that is below `percent` of `maximum`: in the performance data, a threshold is what may just be.
fn highest_below(maximum: u64, percent: u8) -> u64 {
    let reached = (u128::from(maximum) * u128::from(percent)).div_ceil(100);
    u64::try_from(reached.saturating_sub(1)).unwrap_or(u64::MAX)
}

/// The worst status, and the limits that make it; where all is well, the fullest.
fn judge(limits: &[Limit], thresholds: Thresholds, own: NetnsId) -> (Status, String) {
    let mut limits: Vec<&Limit> = limits.iter().collect();
    limits.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()));
    let status = limits.iter().map(|limit| status_of(limit, thresholds)).max().unwrap_or(Status::Ok);
    let is_full = |limit: &&&Limit| status_of(limit, thresholds) > Status::Ok;
    let full = limits.iter().filter(is_full).count();
    let mut words: Vec<String> = limits.iter().take(full.clamp(1, NAMED)).map(|limit| describe(limit, own)).collect();
    if full > NAMED {
        words.push(format!("{} more", full - NAMED));
    }
    let words = words.join(", ");
    // What follows a `|` is for machines: names from outside must not say it.
    (status, if full == 0 { format!("fullest is {words}") } else { words }.replace('|', "?"))
}

/// `ports 10.0.0.5 → 10.0.0.9:5432 81 % (22868/28232)`
fn describe(limit: &Limit, own: NetnsId) -> String {
    let of = match limit.practical_maximum() {
        Some(maximum) => format!("{} % ({}/{maximum})", (limit.ratio() * 100.0).floor(), limit.used),
        None => format!("({}, no practical limit)", limit.used),
    };
    format!("{} {} {of}", limit.about().name, scope::beside(limit, own))
}

/// The fullest limit of each kind: labels that stay the same from check to check. What has no limit in practice has neither
/// maximum nor thresholds.
fn performance(limits: &[Limit], thresholds: Thresholds) -> impl Iterator<Item = String> {
    LimitKind::ALL.into_iter().filter_map(move |kind| {
        let of_kind = limits.iter().filter(|limit| limit.kind == kind);
        let limit = of_kind.max_by(|a, b| a.ratio().total_cmp(&b.ratio()))?;
        let (id, used) = (About::of(kind).id, limit.used);
        let Some(maximum) = limit.practical_maximum() else { return Some(format!("'{id}'={used};;;0;")) };
        let [warn, crit] = [thresholds.warn, thresholds.crit].map(|percent| highest_below(maximum, percent));
        Some(format!("'{id}'={used};{warn};{crit};0;{maximum}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        gaps::{Gap, Unread},
        limit::Scope,
        units::{Pid, Process},
    };

    const THRESHOLDS: Thresholds = Thresholds { warn: 80, crit: 95 };
    const OWN: NetnsId = NetnsId(1);

    fn ports(netns: u32, used: u64) -> Limit {
        let (local_ip, remote) = ("10.0.0.5".parse().unwrap(), "10.0.0.9:5432".parse().unwrap());
        Limit {
            service: None,
            kind: LimitKind::Ports,
            scope: Scope::Destination {
                netns: NetnsId(netns),
                local_ip,
                device: crate::model::device::Device::NONE,
                remote,
            },
            netns_name: Some("blue".into()),
            process: None,
            used,
            maximum: 28_232,
            hits: None,
            counters: Vec::new(),
            slope: None,
            turnover: None,
            lifetime: None,
        }
    }

    fn files(comm: &str) -> Limit {
        Limit {
            kind: LimitKind::ProcessFiles,
            scope: Scope::Process(Pid(7)),
            process: Some(Process { pid: Pid(7), comm: comm.into() }),
            netns_name: None,
            maximum: 1_024,
            ..ports(1, 100)
        }
    }

    #[test]
    fn a_threshold_is_reached_when_its_percentage_is() {
        let of = |used| judge(&[ports(1, used), files("x")], THRESHOLDS, OWN).0;
        // 80 % of 28,232 are 22,585.6 and 95 % are 26,820.4.
        assert_eq!(
            [22_585, 22_586, 26_820, 26_821, 28_232].map(of),
            [Status::Ok, Status::Warning, Status::Warning, Status::Critical, Status::Critical]
        );
    }

    #[test]
    fn the_line_names_what_is_full_and_where() {
        assert_eq!(
            judge(&[files("x"), ports(1, 22_868)], THRESHOLDS, OWN).1,
            "ports 10.0.0.5 → 10.0.0.9:5432 81 % (22868/28232)"
        );
        assert!(judge(&[ports(2, 28_232)], THRESHOLDS, OWN).1.contains(":5432 in blue 100 % (28232/28232)"));
        assert_eq!(judge(&[files("x")], THRESHOLDS, OWN).1, "fullest is file descriptors x (7) 9 % (100/1024)");
        let six: Vec<Limit> = (0..6).map(|_| ports(1, 28_232)).collect();
        assert!(judge(&six, THRESHOLDS, OWN).1.ends_with(", 2 more"));
    }

    #[test]
    fn performance_data_has_a_fullest_limit_of_each_kind_and_its_thresholds() {
        assert_eq!(
            performance(&[ports(1, 5), ports(2, 9), files("x")], THRESHOLDS).collect::<Vec<_>>(),
            ["'ports'=9;22585;26820;0;28232", "'process_files'=100;819;972;0;1024"]
        );
    }

    #[test]
    fn what_has_no_practical_limit_is_never_full() {
        let endless =
            Limit { kind: LimitKind::HostFiles, scope: Scope::Host, used: 7, maximum: u64::MAX, ..files("x") };
        assert_eq!(
            performance(std::slice::from_ref(&endless), THRESHOLDS).collect::<Vec<_>>(),
            ["'host_files'=7;;;0;"]
        );
        let (status, line) = judge(&[endless], Thresholds { warn: 1, crit: 1 }, OWN);
        assert_eq!((status, line.as_str()), (Status::Ok, "fullest is open files host (7, no practical limit)"));
    }

    #[test]
    fn what_was_not_read_is_never_ok_and_hides_no_warning() {
        let none = Gaps::default();
        assert_eq!(with_gaps(Status::Ok, &none), (Status::Ok, String::new()));
        let mut gaps = Gaps::default();
        gaps.set(Unread::Processes, Gap { count: 2, errno: Some(13) });
        let words = "; 2 processes not read (EACCES); CAP_SYS_PTRACE would help".to_owned();
        assert_eq!(with_gaps(Status::Ok, &gaps), (Status::Unknown, words.clone()));
        for status in [Status::Warning, Status::Critical] {
            assert_eq!(with_gaps(status, &gaps), (status, words.clone()));
        }
        let mut closed = Gaps::default();
        closed.set(Unread::Tracefs, Gap { count: 1, errno: Some(13) });
        let (status, words) = with_gaps(Status::Ok, &closed);
        assert!(status == Status::Ok && words.contains("tracefs closed"), "{words}");
    }

    #[test]
    fn names_from_outside_do_not_end_the_text() {
        let (_, line) = judge(&[files("a|b\nc")], THRESHOLDS, OWN);
        assert!(line.contains("a?b?c"), "{line}");
        let mut out = Vec::new();
        assert_eq!(unknown("\nno | rights\nmore", &mut out).unwrap(), Status::Unknown);
        assert_eq!(String::from_utf8(out).unwrap(), "OBSERVER UNKNOWN - no ? rights\n");
    }
}
