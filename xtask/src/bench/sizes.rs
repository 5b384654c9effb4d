//! What grows with the number of sockets: memory, scans, and the cost of an event beside them.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::load::IdleConnections;
use super::observer::{self, Watch, number, scan_time};
use super::running::{Running, wait_until};
use super::screen::sample;
use super::stats::{Samples, time};
use super::table::Table;
use super::targets::Figure;
use super::{Effort, Report, stage};

/// Reading all files of all processes takes minutes where there are a million.
const PATIENCE: Duration = Duration::from_secs(40);

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let sizes: &[u32] = match effort {
        Effort::Full => &[1_000, 10_000, 100_000, 200_000, 1_000_000],
        Effort::Quick => &[1_000, 4_000, 20_000],
    };
    let rows = stage::on_stage(|| {
        let mut connections = IdleConnections::default();
        let measure = |size: &u32| {
            connections.grow_to(*size)?;
            eprintln!("{size} sockets");
            at(*size, effort)
        };
        sizes.iter().map(measure).collect::<Result<Vec<_>>>()
    })?;
    report_scans(&rows, report);
    report_growth(&rows, report);
    Ok(())
}

/// What was measured at one size.
struct Row {
    sockets: u32,
    resident: u32,
    /// Seconds.
    first_frame: Samples,
    scan: Samples,
    later_scan: Samples,
    ss: Samples,
    proc_net_tcp: Samples,
    /// `None` where it was not waited for.
    ss_processes: Option<Duration>,
    load: super::screen::Sample,
}

fn at(sockets: u32, effort: Effort) -> Result<Row> {
    let (mut first_frame, mut scan, mut later) = (Samples::default(), Samples::default(), Samples::default());
    let (mut ss, mut proc_net_tcp) = (Samples::default(), Samples::default());
    let mut resident = 0;
    for _ in 0..if sockets > 500_000 { 2 } else { effort.rounds() } {
        let start = Instant::now();
        let screen = observer::screen()?;
        first_frame.push(start.elapsed().as_secs_f64());
        scan.push(scan_time(&screen.contents())?);
        resident = screen.running.resident()?;
        drop(screen);
        later.push(later_scan()?);
        ss.push(run_timed("ss", &["-Htan"])?.context("ss takes too long")?.as_secs_f64());
        proc_net_tcp.push(run_timed("cat", &["/proc/net/tcp"])?.context("cat takes too long")?.as_secs_f64());
    }
    let ss_processes = run_timed("ss", &["-Htanp"])?;
    // Of the load's own sockets there are to be few beside those that are held.
    let load = sample(effort.connections() / 4, None)?;
    Ok(Row { sockets, resident, first_frame, scan, later_scan: later, ss, proc_net_tcp, ss_processes, load })
}

/// Seconds of a scan that finds what is known.
fn later_scan() -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let watch = Watch::start(folder.path())?;
    let scans = "/quality/scans_total";
    let before = number(&watch.next()?, scans)?;
    // Where nothing happens, the next one may come in minutes.
    drop(TcpListener::bind("127.0.0.1:0")?);
    let mut line = watch.next()?;
    wait_until("a later scan", || {
        line = watch.next()?;
        Ok(number(&line, scans)? > before)
    })?;
    line.pointer("/quality/last_scan_seconds").and_then(Value::as_f64).context("no scan in what observer wrote")
}

/// How long a command takes whose output nobody reads; `None` where it is longer than one can wait.
fn run_timed(program: &str, args: &[&str]) -> Result<Option<Duration>> {
    let start = Instant::now();
    let nowhere = File::options().write(true).open("/dev/null")?;
    let mut running = Running::start(Command::new(program).args(args).stdin(Stdio::null()).stdout(nowhere))?;
    while !running.has_ended()? {
        if start.elapsed() > PATIENCE {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Some(start.elapsed()))
}

fn report_scans(rows: &[Row], report: &mut Report) {
    let head = [
        "sockets",
        "first scan, ms",
        "later scan, ms",
        "`ss -Htan`, ms",
        "`cat /proc/net/tcp`, ms",
        "`ss -Htanp`",
        "first scan over `ss -Htan`",
        "later scan over it",
        "first frame, ms",
    ];
    let mut table = Table::new("A full scan, with the processes, against what reads the same", head);
    for row in rows {
        let millis = |samples: &Samples| format!("{:.0}", samples.scaled(1e3));
        table.row([
            row.sockets.to_string(),
            millis(&row.scan),
            millis(&row.later_scan),
            millis(&row.ss),
            millis(&row.proc_net_tcp),
            row.ss_processes.map_or_else(|| format!("more than {} s", PATIENCE.as_secs()), time),
            format!("{:.2}", row.scan.median() / row.ss.median()),
            format!("{:.2}", row.later_scan.median() / row.ss.median()),
            millis(&row.first_frame),
        ]);
    }
    table.note(
        "A scan reads every socket and every process that owns one. The time of the first, which has everything to learn, is \
         the one at the foot of the live screen. Below 1 ms the screen says no more than that. That of a later one, which comes \
         a second after an event, is what `watch` says. Of more than 10,000 connected sockets it reads the open files and the \
         kernel's counts; with a walk of the kernel's table, which comes every few minutes, it takes about as long as the first. The programs are timed whole, their output thrown away. `ss -Htanp` is run once, and looks at all processes of the host.",
    );
    if let Some(row) = rows.last() {
        report.figure(Figure::ScanOverSs, row.scan.median() / row.ss.median());
        report.figure(Figure::LaterScanOverSs, row.later_scan.median() / row.ss.median());
    }
    report.table(table);
}

fn report_growth(rows: &[Row], report: &mut Report) {
    let head = ["sockets", "resident, MB", "bytes a socket", "state hook, ns a run", "user side, ns an event"];
    let mut table = Table::new("By the number of sockets", head);
    let Some(fewest) = rows.first() else { return };
    for row in rows {
        let more = row.sockets - fewest.sockets;
        let each = f64::from(row.resident.saturating_sub(fewest.resident)) / f64::from(more);
        table.row([
            row.sockets.to_string(),
            format!("{:.1}", f64::from(row.resident) / 1e6),
            if more == 0 { String::new() } else { format!("{each:.0}") },
            format!("{:.0}", row.load.hook),
            format!("{:.0}", row.load.user),
        ]);
        if row.sockets == rows[rows.len() - 1].sockets && more > 0 {
            report.figure(Figure::BytesPerSocket, each);
            report.figure(Figure::BpfGrowth, row.load.hook / fewest.load.hook);
        }
    }
    table.note(
        "Memory of the live screen after its first scan; each socket beyond the first thousand takes so much of it. The \
         user side includes the scans that fell into the load, and those grow with the sockets: the model alone is below.",
    );
    report.table(table);
}
