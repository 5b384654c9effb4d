//! What observer may cost at most, and whether it keeps to that.

use std::collections::BTreeMap;

use super::table::Table;

/// A figure that has a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    SlowdownScreen,
    SlowdownWatch,
    PacedScreen,
    PacedWatch,
    Lost,
    MissedRuns,
    WrongCounts,
    BpfPerConnection,
    BpfOverFloor,
    UserPerEvent,
    BytesPerSocket,
    ScanOverSs,
    LaterScanOverSs,
    FirstFrame,
    Idle,
    Recorder,
    RecorderBound,
    BpfGrowth,
    ModelGrowth,
    HostFirstFrame,
    HostSnapshot,
    HostQueue,
    HostIdle,
    HostBusy,
}

/// What was measured.
pub(super) type Figures = BTreeMap<Figure, f64>;

struct Target {
    figure: Figure,
    what: &'static str,
    at_most: f64,
    digits: usize,
    unit: &'static str,
}

const fn target(figure: Figure, what: &'static str, at_most: f64, digits: usize, unit: &'static str) -> Target {
    Target { figure, what, at_most, digits, unit }
}

const TARGETS: [Target; 24] = [
    target(Figure::SlowdownScreen, "slowdown, all cores busy, live screen", 1.10, 3, ""),
    target(Figure::SlowdownWatch, "slowdown, all cores busy, `watch`", 1.10, 3, ""),
    target(Figure::PacedScreen, "CPU of a load of 5,000 connections/s, live screen", 1.02, 3, ""),
    target(Figure::PacedWatch, "CPU of a load of 5,000 connections/s, `watch`", 1.02, 3, ""),
    target(Figure::Lost, "events lost at full speed", 0.0, 0, ""),
    target(Figure::MissedRuns, "missed runs of programs at full speed", 0.0, 0, ""),
    target(Figure::WrongCounts, "counts that differ from `ss` at the end", 0.0, 0, ""),
    target(Figure::BpfPerConnection, "BPF, of a loopback connection (both ends)", 2_500.0, 0, " ns"),
    target(Figure::BpfOverFloor, "the same over empty programs on the same hooks", 3.0, 2, ""),
    target(Figure::UserPerEvent, "user side, of an event", 300.0, 0, " ns"),
    target(Figure::BytesPerSocket, "memory, of a socket", 128.0, 0, " bytes"),
    target(Figure::ScanOverSs, "first scan of the most sockets over `ss -Htan`", 1.2, 2, ""),
    target(Figure::LaterScanOverSs, "later scan of the most sockets over `ss -Htan`", 0.6, 2, ""),
    target(Figure::FirstFrame, "start to first frame", 150.0, 0, " ms"),
    target(Figure::Idle, "idle CPU, live screen", 0.5, 2, " %"),
    target(Figure::Recorder, "flight recorder above `watch`, CPU at 5,000 connections/s", 1.0, 2, " %"),
    target(Figure::RecorderBound, "directory of a flight recorder at full speed, of its bound", 100.0, 1, " %"),
    target(Figure::BpfGrowth, "BPF of an event, most sockets over fewest", 1.2, 2, ""),
    target(Figure::ModelGrowth, "model of an event, 1,000,000 sockets over 1,000", 1.2, 2, ""),
    target(Figure::HostFirstFrame, "start to first frame, 500 namespaces and 5,000 processes", 300.0, 0, " ms"),
    target(Figure::HostSnapshot, "`snapshot`, the same host", 1_000.0, 0, " ms"),
    target(Figure::HostQueue, "until a full accept queue is shown, the same host", 2.0, 1, " s"),
    target(Figure::HostIdle, "idle CPU, live screen, the same host", 1.0, 2, " %"),
    target(Figure::HostBusy, "CPU with 5,000 connections/s in 100 namespaces, the same host", 4.0, 2, " %"),
];

/// Every target, with what was measured.
pub(super) fn table(figures: &Figures) -> Table {
    let mut table = Table::new("Targets", ["what", "at most", "measured", "met"]);
    for Target { figure, what, at_most, digits, unit } in TARGETS {
        let (measured, met) = match figures.get(&figure) {
            None => ("not measured".to_owned(), ""),
            Some(value) if *value <= at_most => (format!("{value:.digits$}{unit}"), "yes"),
            Some(value) => (format!("{value:.digits$}{unit}"), "**no**"),
        };
        table.row([what.to_owned(), format!("{at_most:.digits$}{unit}"), measured, met.to_owned()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let figures = Figures::from([(Figure::Lost, 0.0), (Figure::Idle, 0.7)]);
        let shown = table(&figures).to_string();
        let row = |what: &str| shown.lines().find(|line| line.contains(what)).unwrap().to_owned();
        assert!(row("events lost").contains("yes"));
        assert!(row("idle CPU").contains("0.70 %") && row("idle CPU").contains("**no**"));
        assert!(row("first frame").contains("not measured"));
    }
}
