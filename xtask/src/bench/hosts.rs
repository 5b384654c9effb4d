//! Large hosts: many network namespaces, many processes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};
use serde_json::Value;

use super::crowd::{Crowd, PACE, QUEUED};
use super::observer::{self, Watch, scan_time};
use super::running::{Running, wait_until_within};
use super::stats::{Samples, float, time};
use super::table::Table;
use super::targets::Figure;
use super::terminal::Terminal;
use super::{Effort, Report, stage};

/// Namespaces and processes. The targets are of the one with 500 namespaces.
const FULL: [(u32, u32); 4] = [(1, 100), (50, 5_000), (500, 5_000), (1_000, 10_000)];
const QUICK: [(u32, u32); 2] = [(1, 10), (20, 100)];
/// Namespaces that make connections, 50 a second each: 5,000/s in all.
const BUSY: usize = 100;
/// From the first frame until all namespaces were scanned and what start leaves to do is done.
const SETTLE: Duration = Duration::from_secs(10);

/// What one host showed.
struct Measured {
    size: (u32, u32),
    first_frame: Samples,
    complete: Samples,
    snapshot: Samples,
    check: Samples,
    queue: Samples,
    idle: f64,
    busy: f64,
    busy_rate: f64,
    resident: u32,
    ss: Duration,
    lsns: Duration,
}

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let sizes = if effort == Effort::Full { &FULL[..] } else { &QUICK };
    let mut table = Table::new(
        "Large hosts: namespaces and processes",
        [
            "namespaces, processes",
            "first frame, ms",
            "all scanned, ms",
            "`snapshot`, ms",
            "`check`, ms",
            "full accept queue shown after, s",
            "idle CPU, %",
            "busy CPU, %",
            "connections/s",
            "memory, MB",
            "`ss -N` of each",
            "`lsns -t net`",
        ],
    );
    for size in sizes {
        let measured = stage::on_stage(|| measure(*size, effort))?;
        table.row(measured.row());
        if size.0 == 500 {
            measured.report(report);
        }
    }
    table.note(&format!(
        "Each namespace has a listener and an equal share of the processes, which sleep. CPU is that of the live screen, in \
         percent of one CPU. Busy: {BUSY} namespaces (or as many as there are) make a connection every {} ms each. A full \
         accept queue: {QUEUED} connections to the listener of one namespace, from the last connect() to the first line of \
         `observer watch --interval 0.5` that shows them; each time another namespace, the others idle. `ss -N` is one run of \
         `ss -Htan` in each namespace, one after the other.",
        PACE.as_millis(),
    ));
    report.table(table);
    Ok(())
}

impl Measured {
    fn row(&self) -> [String; 12] {
        [
            format!("{}, {}", self.size.0, self.size.1),
            format!("{:.0}", self.first_frame),
            format!("{:.0}", self.complete),
            format!("{:.0}", self.snapshot),
            format!("{:.0}", self.check),
            format!("{:.1}", self.queue),
            format!("{:.2}", self.idle),
            format!("{:.2}", self.busy),
            format!("{:.0}", self.busy_rate),
            format!("{:.1}", f64::from(self.resident) / 1e6),
            time(self.ss),
            time(self.lsns),
        ]
    }

    fn report(&self, report: &mut Report) {
        report.figure(Figure::HostFirstFrame, self.first_frame.median());
        report.figure(Figure::HostSnapshot, self.snapshot.median());
        report.figure(Figure::HostQueue, self.queue.highest());
        report.figure(Figure::HostIdle, self.idle);
        report.figure(Figure::HostBusy, self.busy);
    }
}

fn measure(size: (u32, u32), effort: Effort) -> Result<Measured> {
    let mut crowd = Crowd::start(size.0, size.1)?;
    let rounds = effort.rounds();
    let starts: Vec<(f64, f64)> = (0..rounds).map(|_| start()).collect::<Result<_>>()?;
    let snapshot = (0..rounds).map(|_| one_shot("snapshot")).collect::<Result<_>>()?;
    let check = (0..rounds).map(|_| one_shot("check")).collect::<Result<_>>()?;
    let (idle, busy, busy_rate, resident) = shares(&mut crowd, effort)?;
    let queue = queues(&mut crowd, effort)?;
    let (ss, lsns) = peers(&crowd)?;
    Ok(Measured {
        size,
        first_frame: starts.iter().map(|start| start.0).collect(),
        complete: starts.iter().map(|start| start.1).collect(),
        snapshot,
        check,
        queue,
        idle,
        busy,
        busy_rate,
        resident,
        ss,
        lsns,
    })
}

/// Milliseconds from the start of the live screen to its first frame, and to the one with all namespaces scanned.
fn start() -> Result<(f64, f64)> {
    let begun = Instant::now();
    let mut screen = Terminal::start(&mut observer::of_host()?)?;
    let first = screen.wait_for(&["observer", "q quit"])?;
    let complete = screen.wait_for(&[", took "])?;
    ensure!(scan_time(&screen.contents())? > 0.0, "no scan is shown");
    let millis = |at: Instant| at.duration_since(begun).as_secs_f64() * 1e3;
    Ok((millis(first), millis(complete)))
}

/// Milliseconds of a command that looks once. Of `check`, whose exit status is of the host, any status will do.
fn one_shot(command: &str) -> Result<f64> {
    let begun = Instant::now();
    observer::of_host()?.arg(command).stdout(Stdio::null()).status().with_context(|| format!("run {command}"))?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Percent of a CPU that the live screen takes, idle and busy; connections a second; bytes.
fn shares(crowd: &mut Crowd, effort: Effort) -> Result<(f64, f64, f64, u32)> {
    let length = Duration::from_secs(if effort == Effort::Full { 20 } else { 3 });
    let mut screen = Terminal::start(&mut observer::of_host()?)?;
    screen.wait_for(&[", took "])?;
    let screen = screen.look_away()?;
    thread::sleep(if effort == Effort::Full { SETTLE } else { Duration::from_secs(1) });
    let (idle, _) = share(&screen, crowd, length)?;
    crowd.toggle_load(BUSY)?;
    thread::sleep(Duration::from_secs(1));
    let (busy, rate) = share(&screen, crowd, length)?;
    crowd.toggle_load(BUSY)?;
    Ok((idle, busy, rate, screen.resident()?))
}

fn share(screen: &Running, crowd: &Crowd, length: Duration) -> Result<(f64, f64)> {
    let (before, opened, start) = (screen.cpu()?, self::opened(crowd)?, Instant::now());
    thread::sleep(length);
    let used = screen.cpu()?.saturating_sub(before);
    let rate = float(self::opened(crowd)? - opened) / start.elapsed().as_secs_f64();
    Ok((100.0 * used.div_duration_f64(start.elapsed()), rate))
}

/// Connections that the busy namespaces have opened, by the kernel's count (`ActiveOpens`).
fn opened(crowd: &Crowd) -> Result<u64> {
    let mut sum = 0;
    for member in crowd.members().iter().take(BUSY) {
        let snmp = fs::read_to_string(format!("/proc/{member}/net/snmp")).context("read the kernel's counters")?;
        let numbers = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: ")).nth(1).context("no Tcp line")?;
        sum += numbers.split_whitespace().nth(4).context("no ActiveOpens")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Seconds from a full accept queue to the first line that shows it, each time in another namespace.
fn queues(crowd: &mut Crowd, effort: Effort) -> Result<Samples> {
    let folder = tempfile::tempdir()?;
    let watch = Watch::start_of(observer::of_host()?, folder.path())?;
    let rounds = 2 * effort.rounds();
    let mut samples = Samples::default();
    for round in 0..rounds {
        let namespace = crowd.members().len() * round as usize / rounds as usize;
        // Rounds must not keep step with the scans.
        thread::sleep(Duration::from_millis(700 + 130 * u64::from(round)));
        crowd.toggle_queue(namespace)?;
        let filled = Instant::now();
        let netns = fs::metadata(format!("/proc/{}/ns/net", crowd.members()[namespace]))?.ino();
        wait_until_within("full accept queue", Duration::from_mins(3), || {
            Ok(watch.last_line()?.is_some_and(|line| shows_queue(&line, netns)))
        })?;
        samples.push(filled.elapsed().as_secs_f64());
        crowd.toggle_queue(namespace)?;
    }
    Ok(samples)
}

fn shows_queue(line: &str, netns: u64) -> bool {
    let is_it = |limit: &Value| {
        limit["kind"] == "accept_queue" && limit["netns"] == netns && limit["used"].as_u64() >= Some(QUEUED)
    };
    serde_json::from_str::<Value>(line)
        .is_ok_and(|line| line["limits"].as_array().is_some_and(|it| it.iter().any(is_it)))
}

/// What peers take for one look at all namespaces.
fn peers(crowd: &Crowd) -> Result<(Duration, Duration)> {
    // `ss -N` knows namespaces by their mounts. This mount namespace is ours.
    mount("none", "/run", "tmpfs", MountFlags::empty(), None).context("mount a /run of our own")?;
    fs::create_dir("/run/netns")?;
    for member in crowd.members() {
        let name = format!("/run/netns/{member}");
        fs::File::create(&name)?;
        mount_bind(format!("/proc/{member}/ns/net"), &name).context("name a namespace")?;
    }
    let begun = Instant::now();
    for member in crowd.members() {
        let status = Command::new("ss").args(["-N", &member.to_string(), "-Htan"]).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "ss -N {member}: {status}");
    }
    let (ss, begun) = (begun.elapsed(), Instant::now());
    let status = Command::new("lsns").args(["-n", "-t", "net"]).stdout(Stdio::null()).status().context("run lsns")?;
    ensure!(status.success(), "lsns: {status}");
    Ok((ss, begun.elapsed()))
}
