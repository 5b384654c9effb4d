//! The language of the scenarios, one line an input:
//!
//! ```text
//! before 6.18                                     as the first line: bind buckets are not set free
//! range 32768-60999 [reserved 40000-40009]        the namespace's ports
//! ID [LOCAL>REMOTE] old>new [by PID COMM [unsent]|orphan]  a state change; the four-tuple is kept for later lines
//! reuse 0|1|2 [MILLISECONDS]                      its tcp_tw_reuse, and its delay since 6.14
//! ID [LOCAL>REMOTE] old>new [by PID COMM] [orphan] [explicit] [timestamps]
//!                                                 a state change; the four-tuple is kept for later lines
//! ID [LOCAL>REMOTE] accepted STATE by PID COMM
//! ID [LOCAL>REMOTE] connecting by PID COMM
//! ID [LOCAL>REMOTE] found STATE|tw:STATE[:SINCE]|request [locked] [explicit [chosen]|autobound] [orphan]
//!                                                 SINCE, in milliseconds: with TCP timestamps
//! ID held by PID COMM [bound PORT]
//! ID destroyed
//! scan | end | abandon                            around what a scan found
//! files | files end                               around what a pass over open files found
//! tick [SECONDS]                                  time goes on
//! show [owners|failures|findings]                          print all rows, or who holds their sockets, or what was refused
//! tick [SECONDS] | wait MILLISECONDS              time goes on, with or without the work of each second
//! show [owners|ports]                             print all rows, or who holds their sockets, or their headroom
//! ```

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use crate::model::{
    Basis, Model,
    event::{Binding, Event, Found, Identity},
    failure::FailureRow,
    headroom::PortUse,
    namespace::NamespaceReading,
    snapshot::{Direction, Snapshot},
    trust::{Hook, HookStatus, Rung, ScanSummary},
    units::{Comm, FourTuple, NetnsId, Pid, PortRange, Process, SocketId, TcpState},
};

const NETNS: NetnsId = NetnsId(1);

/// Runs a scenario and compares what it shows; indentation to the left of both texts does not count.
#[track_caller]
pub(super) fn check(scenario: &str, expected: &str) {
    let frees_buckets = !scenario.trim_start().starts_with("before 6.18");
    let mut stage = Stage { model: model(frees_buckets), ..Stage::default() };
    stage.model.set_namespace(NETNS, NamespaceReading::default());
    for line in scenario.lines().map(str::trim).filter(|line| !line.is_empty()) {
        stage.run(line);
    }
    let trim = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert_eq!(trim(&stage.shown), trim(expected), "shown and expected differ");
}

/// A model that is told all there is to tell.
pub(super) fn model(frees_buckets: bool) -> Model {
    let hooks = [Hook::Scan, Hook::Holders].map(|hook| HookStatus { hook, rung: Some(Rung::Iterator), failed: vec![] });
    Model::new(hooks.into(), Basis { reads_buckets: true, frees_buckets, ..Basis::default() })
}

#[derive(Default)]
struct Stage {
    model: Model,
    namespace: NamespaceReading,
    tuples: HashMap<String, FourTuple>,
    now: Duration,
    shown: String,
}

impl Stage {
    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["range", range] => self.set_range(range, &[]),
            ["range", range, "reserved", reserved] => self.set_range(range, &[reserved]),
            ["reuse", mode] => self.set_reuse(mode, None),
            ["reuse", mode, delay] => self.set_reuse(mode, Some(millis(delay))),
            ["before", "6.18"] => {}
            ["scan"] => self.model.begin_scan(NETNS),
            ["abandon"] => self.model.abandon_scan(),
            ["end"] => self.end_scan(),
            ["tick"] => self.tick(1),
            ["tick", seconds] => self.tick(seconds.parse().unwrap()),
            ["wait", time] => self.now += millis(time),
            ["files"] => self.model.begin_holders(),
            ["files", "end"] => self.model.end_holders(),
            ["show"] => self.show(),
            ["show", "owners"] => self.show_owners(),
            ["show", "failures"] => self.show_failures(),
            ["show", "findings"] => self.show_findings(),
            ["show", "ports"] => self.show_ports(),
            [id, ref rest @ ..] => {
                let event = self.event(id, rest);
                self.model.apply(&event, self.now);
            }
            [] => unreachable!("empty lines are left out"),
        }
    }

    fn end_scan(&mut self) {
        self.model.end_scan(self.now);
        self.model.end_round(ScanSummary { finished_at: self.now, took: Duration::ZERO, found: 0 });
    }

    fn tick(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.model.tick(self.now);
    }

    fn set_range(&mut self, range: &str, reserved: &[&str]) {
        self.namespace.port_range = Some(port_range(range));
        self.namespace.reserved = reserved.iter().map(|text| port_range(text)).collect();
        self.model.set_namespace(NETNS, self.namespace.clone());
    }

    fn set_reuse(&mut self, mode: &str, delay: Option<Duration>) {
        self.namespace.tcp_tw_reuse = Some(mode.parse().unwrap());
        self.namespace.tcp_tw_reuse_delay = delay;
        self.model.set_namespace(NETNS, self.namespace.clone());
    }

    fn event(&mut self, name: &str, rest: &[&str]) -> Event {
        let id = SocketId(name.bytes().fold(0, |id, byte| id << 8 | u64::from(byte)));
        let rest = match rest {
            [tuple, rest @ ..] if tuple.contains(':') && tuple.contains('>') => {
                self.tuples.insert(name.to_owned(), four_tuple(tuple));
                rest
            }
            rest => rest,
        };
        let socket = || Identity { id, netns: NETNS, tuple: self.tuples[name] };
        match rest {
            ["destroyed"] => Event::Destroyed { id, netns: NETNS },
            ["held", rest @ ..] => {
                let bound_port = rest.iter().position(|word| *word == "bound").map(|at| rest[at + 1].parse().unwrap());
                Event::Held { id, netns: NETNS, by: process(rest).unwrap(), fd: 3, bound_port }
            }
            ["connecting", by @ ..] => Event::Connecting { socket: socket(), by: process(by).unwrap() },
            ["accepted", at, by @ ..] => {
                Event::Accepted { socket: socket(), state: state(at), by: process(by).unwrap() }
            }
            ["found", what, binding @ ..] => Event::Scanned {
                socket: socket(),
                state: found(what),
                binding: self::binding(binding),
                orphan: binding.contains(&"orphan"),
            },
            [change, rest @ ..] => {
                let (old, new) = change.split_once('>').unwrap();
                Event::State {
                    socket: socket(),
                    at: self.now,
                    old: state(old),
                    new: state(new),
                    by: process(rest),
                    orphan: rest.contains(&"orphan"),
                    unsent: rest.contains(&"unsent"),
                    binding: self::binding(rest),
                    timestamps: rest.contains(&"timestamps"),
                }
            }
            [] => panic!("what happened to {name}?"),
        }
    }

    fn show_owners(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0);
        for row in &snapshot.endpoints {
            let local = row.key.local_port.map_or_else(String::new, |port| format!(":{port}"));
            write!(self.shown, "{}{local}", row.key.local_ip).unwrap();
            for owner in &row.owners {
                write!(self.shown, " {}/{}:{}", owner.process.comm, owner.process.pid, owner.sockets).unwrap();
                if owner.shared > 0 {
                    write!(self.shown, "+{}", owner.shared).unwrap();
                }
            }
            let listener = row.process.filter(|process| row.owners.iter().all(|owner| owner.process != *process));
            if let Some(process) = listener {
                write!(self.shown, " shown {}/{}", process.comm, process.pid).unwrap();
            }
            for process in &row.listeners {
                write!(self.shown, " listens {}/{}", process.comm, process.pid).unwrap();
            }
            writeln!(self.shown, " orphans {}", row.orphans).unwrap();
        }
        let unseen = snapshot.trust.unseen_accepts;
        if unseen > 0 {
            writeln!(self.shown, "unseen accepts {unseen}").unwrap();
        }
    }

    fn show_findings(&mut self) {
        for finding in self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0).findings {
            writeln!(self.shown, "{}: {}", finding.kind.id(), finding.evidence).unwrap();
        }
    }

    fn show_failures(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0);
        for FailureRow { key, count, .. } in &snapshot.failures {
            write!(self.shown, "{}", key.kind.name()).unwrap();
            if let Some(process) = key.process {
                write!(self.shown, " {}/{}", process.comm, process.pid.0).unwrap();
            }
            write!(self.shown, " {count}").unwrap();
            let local = key.local.map_or_else(String::new, |local| format!(" {local}"));
            let remote = key.remote.map_or_else(String::new, |remote| format!(">{remote}"));
            writeln!(self.shown, "{local}{remote}").unwrap();
        }
    }

    fn show_ports(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 10);
        for row in &snapshot.endpoints {
            for destination in &row.destinations {
                let ports = destination.ports.unwrap();
                let PortUse { range, reserved, blocked, used, time_wait, time_wait_reusable } = ports;
                let known = |count: Option<u32>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
                writeln!(
                    self.shown,
                    "{}>{} {range} range - {reserved} reserved - {} blocked - {used} used - {time_wait} time_wait = {} left, \
                     {time_wait_reusable} reused",
                    row.key.local_ip,
                    destination.remote,
                    known(blocked),
                    known(ports.left())
                )
                .unwrap();
            }
        }
    }

    fn show(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 10);
        self.shown.push_str(&rows(&snapshot));
    }
}

/// The rows of a snapshot, and its totals.
pub(super) fn rows(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for row in &snapshot.endpoints {
        let local = match (row.key.direction, row.key.local_port) {
            (Direction::Outbound, _) => format!("out {}", row.key.local_ip),
            (Direction::Inbound, port) => {
                format!("in {}", SocketAddr::new(row.key.local_ip, port.unwrap()))
            }
        };
        let listening = if row.listening { " listening" } else { "" };
        write!(text, "{local}{listening} sockets {}", row.sockets).unwrap();
        let states: Vec<String> = row.states.iter().map(|(state, count)| format!("{} {count}", state.name())).collect();
        if !states.is_empty() {
            write!(text, " ({})", states.join(" ")).unwrap();
        }
        write!(text, " opened {} closed {} failed {}", row.opened_total, row.closed_total, row.failed_total).unwrap();
        if let Some(Process { pid, comm }) = row.process {
            write!(text, " {comm}/{}", pid.0).unwrap();
        }
        text.push('\n');
        for destination in &row.destinations {
            write!(text, "  {} sockets {}", destination.remote, destination.sockets).unwrap();
            if let Some(ports) = destination.ports {
                write!(text, " ports {}+{} of {}", ports.used, ports.time_wait, ports.usable()).unwrap();
            }
            text.push('\n');
        }
    }
    let (totals, drift) = (&snapshot.totals, snapshot.trust.drift);
    writeln!(
        text,
        "{} sockets {} connections opened {} closed {} failed {} drift {}+{}-{}",
        totals.sockets,
        totals.connections,
        totals.opened_total,
        totals.closed_total,
        totals.failed_total,
        drift.changed,
        drift.added,
        drift.removed
    )
    .unwrap();
    text
}

fn port_range(text: &str) -> PortRange {
    let (low, high) = text.split_once('-').unwrap();
    PortRange { low: low.parse().unwrap(), high: high.parse().unwrap() }
}

fn four_tuple(text: &str) -> FourTuple {
    let (local, remote) = text.split_once('>').unwrap();
    let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
    FourTuple { local_ip: local.ip(), local_port: local.port(), remote_ip: remote.ip(), remote_port: remote.port() }
}

fn state(name: &str) -> TcpState {
    TcpState::ALL.into_iter().find(|state| state.name() == name).unwrap_or_else(|| panic!("state {name}"))
}

fn found(what: &str) -> Found {
    match what.split(':').collect::<Vec<_>>()[..] {
        ["tw", substate] => Found::TimeWait { substate: state(substate), since: None },
        ["tw", substate, since] => Found::TimeWait { substate: state(substate), since: Some(millis(since)) },
        ["request"] => Found::Request,
        _ => Found::Full(state(what)),
    }
}

fn binding(words: &[&str]) -> Binding {
    let explicit = words.contains(&"explicit");
    let known = explicit || words.contains(&"autobound");
    Binding {
        port_locked: words.contains(&"locked"),
        explicit_bucket: known.then_some(explicit),
        connect_bound: words.contains(&"chosen"),
    }
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap())
}

fn process(words: &[&str]) -> Option<Process> {
    match words {
        ["by", pid, comm, ..] => Some(Process { pid: Pid(pid.parse().unwrap()), comm: Comm::from(*comm) }),
        _ => None,
    }
}
