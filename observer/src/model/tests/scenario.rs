//! The language of the scenarios, one line an input:
//!
//! ```text
//! before 6.18                                     as the first line: bind buckets are not set free
//! range 32768-60999 [reserved 40000-40009]        the namespace's ports
//! ID [LOCAL>REMOTE] old>new [by PID COMM [unsent [own=LOW-HIGH]]|orphan]  a state change; the four-tuple is kept for later lines
//! device INDEX NAME [of VRF]                      one of its devices, and the index of the VRF that it belongs to
//! l3mdev_accept                                   its tcp_l3mdev_accept is 1
//! reuse 0|1|2 [MILLISECONDS]                      its tcp_tw_reuse, and its delay since 6.14
//! ID [LOCAL>REMOTE] old>new [by PID COMM] [orphan] [explicit] [timestamps]
//!                                                 a state change; the four-tuple is kept for later lines
//! ID [LOCAL>REMOTE] accepted STATE by PID COMM
//! ID [LOCAL>REMOTE] connecting by PID COMM
//! ID [LOCAL>REMOTE] found STATE|tw:STATE[:SINCE]|request [locked] [explicit [chosen]|autobound] [orphan]
//!                                                 SINCE, in milliseconds: with TCP timestamps
//! ID owned by PID COMM [bound PORT]
//! ID ... on INDEX                                 of a socket that is bound to this device
//! ID ... cgroup=ID                                of a socket, or the caller, in this cgroup
//! cgroup ID PATH | process PID PATH               its service, by a path that may end in a unit; `gone`: not found
//! ID destroyed
//! ID refused connect|bind ADDRESS by PID COMM     the call returns an errno; `calls`: the hook that reports this is there
//! scan | end | abandon                            around what a scan found
//! files | files end                               around what an fd scan found
//! tick [SECONDS]                                  time goes on
//! show [owners|failures|findings|sentences|services]                 print all rows, or who holds their sockets, or what was refused
//! tick [SECONDS] | wait MILLISECONDS              time goes on, with or without the work of each second
//! show [owners|ports]                             print all rows, or who holds their sockets, or their headroom
//! ```

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use crate::model::{
    Basis, Model,
    address::{Direction, Local},
    device::{Device, DeviceReading},
    event::{Binding, Event, Found, Identity, OwnRange, Refused},
    failure::{Failed, FailureRow},
    headroom::PortUse,
    member::Member,
    name::Name,
    quality::{AttachMethod, Hook, HookStatus, ScanSummary},
    reading::NamespaceReading,
    service::{CgroupId, Service},
    snapshot::Snapshot,
    units::{Comm, FourTuple, NetnsId, Pid, PortRange, Process, SocketId, TcpState},
};

const NETNS: NetnsId = NetnsId(1);

/// Runs a scenario and compares what it shows; indentation to the left of both texts does not count.
#[track_caller]
pub(super) fn check(scenario: &str, expected: &str) {
    let frees_buckets = !scenario.trim_start().starts_with("before 6.18");
    let mut stage = ScenarioStage { model: model(frees_buckets), ..ScenarioStage::default() };
    stage.model.set_namespace(NETNS, NamespaceReading::default());
    for line in scenario.lines().map(str::trim).filter(|line| !line.is_empty()) {
        stage.run(line);
    }
    let trim = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert_eq!(trim(&stage.shown), trim(expected), "shown and expected differ");
}

/// A model that gets every kind of input.
pub(super) fn model(frees_buckets: bool) -> Model {
    let hooks = [Hook::Scan, Hook::FdOwners].map(|hook| HookStatus {
        hook,
        method: Some(AttachMethod::Iterator),
        failed: vec![],
    });
    Model::new(
        hooks.into(),
        Basis { started_at: Some(Duration::ZERO), reads_buckets: true, frees_buckets, ..Basis::default() },
    )
}

#[derive(Default)]
struct ScenarioStage {
    model: Model,
    namespace: NamespaceReading,
    tuples: HashMap<String, FourTuple>,
    now: Duration,
    shown: String,
}

impl ScenarioStage {
    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["device", index, name] => self.set_device(index, name, "0"),
            ["device", index, name, "of", vrf] => self.set_device(index, name, vrf),
            ["l3mdev_accept"] => {
                self.namespace.tcp_l3mdev_accept = Some(true);
                self.model.set_namespace(NETNS, self.namespace.clone());
            }
            ["range", range] => self.set_range(range, &[]),
            ["range", range, "reserved", reserved] => self.set_range(range, &[reserved]),
            ["reuse", mode] => self.set_reuse(mode, None),
            ["reuse", mode, delay] => self.set_reuse(mode, Some(millis(delay))),
            ["before", "6.18"] => {}
            ["scan"] => self.model.begin_scan(NETNS, self.now),
            ["abandon"] => self.model.abandon_scan(),
            ["end"] => self.end_scan(),
            ["tick"] => self.tick(1),
            ["tick", seconds] => self.tick(seconds.parse().unwrap()),
            ["wait", time] => self.now += millis(time),
            ["files"] => self.model.begin_fd_scan(self.now),
            ["unchanged"] => self.model.end_scan_by_counts(NETNS, self.now),
            ["files", "end"] => self.model.end_fd_scan(self.now),
            ["calls"] => self.model.quality.hooks.push(HookStatus {
                hook: Hook::Failures,
                method: Some(AttachMethod::SyscallTracepoint),
                failed: Vec::new(),
            }),
            ["cgroup", id, path] => self.set_service(Member::Cgroup(CgroupId(id.parse().unwrap())), path),
            ["process", pid, path] => self.set_service(Member::Process(Pid(pid.parse().unwrap())), path),
            ["show", "services"] => self.show_services(),
            ["show"] => self.show(),
            ["show", "owners"] => self.show_owners(),
            ["show", "failures"] => self.show_failures(),
            ["show", "findings"] => self.show_findings(),
            ["show", "sentences"] => self.show_sentences(),
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

    fn set_device(&mut self, index: &str, name: &str, vrf: &str) {
        let [index, vrf] = [index, vrf].map(|number| number.parse().unwrap());
        self.namespace.devices.push(DeviceReading { index, name: name.into(), vrf });
        self.model.set_namespace(NETNS, self.namespace.clone());
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
        let device = rest.iter().position(|word| *word == "on").map_or(0, |at| rest[at + 1].parse().unwrap());
        let device = Device::new(device);
        let cgroup = rest.iter().find_map(|word| word.strip_prefix("cgroup=")).map(|id| CgroupId(id.parse().unwrap()));
        let socket = || Identity { id, netns: NETNS, tuple: self.tuples[name], device, cgroup };
        match rest {
            ["destroyed"] => Event::Destroyed { id, netns: NETNS },
            ["owned", rest @ ..] => {
                let port = rest.iter().position(|word| *word == "bound").map(|at| rest[at + 1].parse().unwrap());
                let ip = self.tuples.get(name).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |tuple| tuple.local_ip);
                let bound = port.map(|port| Local { ip, port, device });
                Event::Held { id, netns: NETNS, by: process(rest).unwrap(), fd: 3, state: None, bound, cgroup }
            }
            ["refused", "connect", by @ ..] => {
                let FourTuple { local_ip, local_port, remote_ip, remote_port } = self.tuples[name];
                let local = Local { ip: local_ip, port: local_port, device };
                let remote = SocketAddr::new(remote_ip, remote_port);
                let refused = Refused::Connect { socket: id, local, remote, no_ipv6: false };
                Event::CallFailed { netns: NETNS, call: "connect", by: process(by).unwrap(), cgroup, refused }
            }
            ["refused", "bind", local, by @ ..] => {
                let local: SocketAddr = local.parse().unwrap();
                let local = Local { ip: local.ip(), port: local.port(), device };
                let (own_range, no_ipv6) = (OwnRange::default(), false);
                let refused = Refused::Bind { socket: id, local, is_in_use: true, own_range, no_ipv6 };
                Event::CallFailed { netns: NETNS, call: "bind", by: process(by).unwrap(), cgroup, refused }
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
                    own_range: rest
                        .iter()
                        .find_map(|word| word.strip_prefix("own="))
                        .map(own_range)
                        .unwrap_or_default(),
                    binding: self::binding(rest),
                    timestamps: rest.contains(&"timestamps"),
                }
            }
            [] => panic!("what happened to {name}?"),
        }
    }

    fn set_service(&mut self, member: Member, path: &str) {
        let is_unit = |unit: &&str| [".service", ".scope"].iter().any(|ending| unit.ends_with(ending));
        let named = path.strip_suffix("/init.scope").filter(|rest| rest.ends_with(".service")).unwrap_or(path);
        let unit = named.rsplit('/').next().filter(is_unit);
        let service = Service { path: Some(path.into()), unit: unit.map(Name::from), ..Service::default() };
        self.model.set_service(member, Some(service).filter(|_| path != "gone"));
    }

    fn show_services(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 10);
        for row in &snapshot.services {
            let label = row.service.as_ref().map_or_else(|| "nobody".into(), |service| service.label());
            write!(self.shown, "{label} sockets {} listeners {} bound {}", row.sockets, row.listeners, row.bound)
                .unwrap();
            write!(self.shown, " orphans {} opened {}", row.orphans, row.opened_total).unwrap();
            writeln!(
                self.shown,
                " closed {} failed {} failures {}",
                row.closed_total, row.failed_total, row.failures_total
            )
            .unwrap();
        }
        let mut unnamed: Vec<_> = self.model.unnamed_members().collect();
        unnamed.sort_unstable();
        if !unnamed.is_empty() {
            writeln!(self.shown, "asks for {unnamed:?}").unwrap();
        }
    }

    fn show_owners(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0);
        for row in &snapshot.endpoints {
            let local = row.key.local_port.map_or_else(String::new, |port| format!(":{port}"));
            write!(self.shown, "{}{local}", row.key.device.scoped(row.key.local_ip)).unwrap();
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
        let unseen = snapshot.quality.unseen_accepts;
        if unseen > 0 {
            writeln!(self.shown, "unseen accepts {unseen}").unwrap();
        }
    }

    fn show_sentences(&mut self) {
        for finding in self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0).findings {
            writeln!(self.shown, "{}", finding.sentence).unwrap();
        }
    }

    fn show_findings(&mut self) {
        for finding in self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0).findings {
            writeln!(self.shown, "{}: {}", finding.kind.id(), finding.evidence).unwrap();
        }
    }

    fn show_failures(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0);
        for row in &snapshot.failures {
            let FailureRow { key, count, .. } = row;
            write!(self.shown, "{}", key.kind.name()).unwrap();
            if let Some(process) = key.process {
                write!(self.shown, " {}/{}", process.comm, process.pid.0).unwrap();
            }
            write!(self.shown, " {count}").unwrap();
            let local = key.local.map_or_else(String::new, |local| format!(" {local}"));
            let remote = key.remote.map_or_else(String::new, |remote| format!(">{remote}"));
            let port_owner = row.port_owner().map_or_else(String::new, |port_owner| format!(": {port_owner}"));
            let ports = match row.failed {
                Failed::Ports(ports) => format!(": {} of {}", ports.in_use(), ports.usable()),
                _ => String::new(),
            };
            writeln!(self.shown, "{local}{remote}{port_owner}{ports}").unwrap();
        }
    }

    fn show_ports(&mut self) {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 10);
        for row in &snapshot.endpoints {
            for destination in &row.destinations {
                let ports = destination.ports.unwrap();
                let PortUse { range, reserved, passed_over, blocked, used, time_wait, time_wait_reusable, .. } = ports;
                let known = |count: Option<u32>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
                writeln!(
                    self.shown,
                    "{}>{} {range} range - {reserved} reserved{} - {} blocked - {used} used - {time_wait} time_wait = {} \
                     left, {time_wait_reusable} reused",
                    destination.device.scoped(destination.local_ip),
                    destination.remote,
                    if passed_over > 0 { format!(" - {passed_over} passed over") } else { String::new() },
                    known(blocked),
                    if blocked.is_some() { ports.left_text(|count| count.to_string()) } else { "?".to_owned() }
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
            (Direction::Outbound, _) => format!("out {}", row.key.device.scoped(row.key.local_ip)),
            (Direction::Inbound, port) => {
                format!("in {}", row.key.device.endpoint(row.key.local_ip, port.unwrap()))
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
    let (totals, drift) = (&snapshot.totals, snapshot.quality.drift);
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

fn own_range(text: &str) -> OwnRange {
    let PortRange { low, high } = port_range(text);
    OwnRange { low, high }
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
        ["tw", substate] => Found::TimeWait { substate: state(substate), since: None, began: None },
        ["tw", substate, since] => {
            let since = Some(millis(since));
            Found::TimeWait { substate: state(substate), since, began: since }
        }
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
