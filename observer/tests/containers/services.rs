//! The service of every row: units, containers and a network namespace side by side, compared with `ss --cgroup`.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use observer::{
    engine::{Engine, EngineOptions, Scans, Watched},
    export,
    frame::Frame,
    model::{
        query::{ConnectionRow, Of, Query},
        service::Service,
        snapshot::{ServiceRow, Snapshot},
        units::NetnsId,
    },
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    namespaces::Mounted,
    resolver::in_private_netns,
    runtimes::{Network, Runc, cgroup2, run, unique, wait_until},
};

/// httpd closes a connection without a request after a minute.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks, as the engine makes between two polls: what it observes needs the processors too.
const PAUSE: Duration = Duration::from_millis(50);

/// A cgroup of systemd's shape, with processes that end when it is dropped.
pub(crate) struct Unit {
    /// Of the unit, or of the machine.
    name: String,
    directory: PathBuf,
    children: Vec<Child>,
}

impl Unit {
    fn new(what: &str) -> Self {
        let name = format!("{}.service", unique(what));
        let directory = cgroup2().join("system.slice").join(&name);
        Self::at(name, directory)
    }

    /// That of a machine, without an init system inside.
    pub(crate) fn machine(what: &str) -> Self {
        // systemd writes a hyphen otherwise.
        let name = unique(what).replace('-', "_");
        let directory = cgroup2().join("machine.slice").join(format!("machine-{name}.scope"));
        Self::at(name, directory)
    }

    fn at(name: String, directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        Self { name, directory, children: Vec::new() }
    }

    /// What its row is called.
    pub(crate) fn label(&self) -> String {
        self.name.clone()
    }

    fn path(&self) -> String {
        format!("/system.slice/{}", self.name)
    }

    /// Starts busybox in this cgroup; `inside` are words before it, as `ip netns exec blue`.
    pub(crate) fn start(&mut self, inside: &[&str], words: &str) -> u32 {
        const ENTER: &str = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let shell = ["sh", "-c", ENTER, self.directory.to_str().unwrap()];
        // `ip netns exec` mounts a /sys of its own, without cgroup2: the cgroup comes first.
        let program = inside.iter().copied().chain(["busybox"]).chain(words.split_whitespace());
        let whole: Vec<&str> = shell.into_iter().chain(program).collect();
        // A client ends with its input, which nobody closes before.
        let child =
            Command::new(whole[0]).args(&whole[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        fs::write(self.directory.join("cgroup.kill"), "1").unwrap();
        self.children.iter_mut().for_each(|child| drop(child.wait()));
        wait_until("the cgroup is empty", || fs::remove_dir(&self.directory).is_ok());
        // Other tests may have units there.
        let _ = fs::remove_dir(self.directory.parent().unwrap());
    }
}

/// A socket as `ss` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    netns: NetnsId,
    state: String,
    local: SocketAddr,
    /// `None` of a listener.
    remote: Option<SocketAddr>,
    cgroup: String,
}

/// Sockets of the calling thread's namespace that have a cgroup with a name.
fn shown() -> Vec<Shown> {
    let netns = NetnsId(u32::try_from(fs::metadata("/proc/thread-self/ns/net").unwrap().ino()).unwrap());
    let text = run(Command::new("ss").args(["-Htan", "--cgroup"]));
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let cgroup = words.iter().find_map(|word| word.strip_prefix("cgroup:"))?.to_owned();
        let (state, local, remote) = (words[0].to_owned(), words[3].parse().unwrap(), words[4].parse().ok());
        (cgroup != "/").then_some(Shown { netns, state, local, remote, cgroup })
    };
    text.lines().filter_map(line).collect()
}

/// The same in the namespace of a process.
fn shown_by(pid: u32) -> Vec<Shown> {
    let netns = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            shown()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn path(service: Option<&Service>) -> Option<String> {
    service?.path.as_ref().map(ToString::to_string)
}

fn matching(engine: &Engine, of: Of, filter: &str) -> Vec<ConnectionRow> {
    engine.connections(&Query { of, filter: filter.parse().unwrap() }, 10_000).rows
}

/// What is compared of a connection: its namespace, its ends and its cgroup's path.
type Named = (NetnsId, SocketAddr, SocketAddr, Option<String>);

fn named(rows: &[ConnectionRow]) -> BTreeSet<Named> {
    let address = |ip, port| SocketAddr::new(ip, port);
    let of = |row: &ConnectionRow| {
        let tuple = row.tuple;
        let ends = (address(tuple.local_ip, tuple.local_port), address(tuple.remote_ip, tuple.remote_port));
        (row.netns, ends.0, ends.1, path(row.service.as_deref()))
    };
    rows.iter().map(of).collect()
}

fn connections_of(truth: &[Shown], cgroup: &str) -> BTreeSet<Named> {
    let of = |it: &Shown| Some((it.netns, it.local, it.remote?, Some(it.cgroup.clone())));
    truth.iter().filter(|it| it.cgroup == cgroup).filter_map(of).collect()
}

fn row_of<'a>(snapshot: &'a Snapshot, label: &str) -> Option<&'a ServiceRow> {
    snapshot.services.iter().find(|row| row.service.as_ref().is_some_and(|service| &*service.label() == label))
}

/// Whether everything that observer shows of these cgroups is what `ss` shows; else what differs.
fn compare(engine: &mut Engine, truth: &[Shown], cgroups: &[(String, String, &str)]) -> Result<(), String> {
    let snapshot = engine.snapshot(usize::MAX);
    for (cgroup, label, word) in cgroups {
        let wanted = connections_of(truth, cgroup);
        let found = named(&matching(engine, Of::All, word));
        if found != wanted {
            return Err(format!("{word}: {found:#?}, ss: {wanted:#?}"));
        }
        let row = row_of(&snapshot, label).ok_or_else(|| format!("no row of {label}: {:#?}", snapshot.services))?;
        let of_row = named(&matching(engine, Of::Service(row.service.clone()), ""));
        let listeners = truth.iter().filter(|it| &it.cgroup == cgroup && it.state == "LISTEN").count();
        if of_row != wanted || row.sockets as usize != wanted.len() || row.listeners as usize != listeners {
            return Err(format!("{row:#?}\n{of_row:#?}, ss: {wanted:#?} and {listeners} listeners"));
        }
    }
    let json = export::json(&Frame::from(snapshot)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for listener in truth.iter().filter(|it| it.state == "LISTEN") {
        let rows = json["endpoints"].as_array().unwrap().iter();
        let mut at = rows.filter(|row| {
            row["netns"] == listener.netns.0
                && row["local_port"] == listener.local.port()
                && row["local_ip"] == listener.local.ip().to_string()
        });
        let row = at.next().ok_or_else(|| format!("no endpoint {listener:?}"))?;
        if row["service"]["path"] != listener.cgroup {
            return Err(format!("{listener:?}: {row:#}"));
        }
    }
    Ok(())
}

/// Polls until it is so.
#[track_caller]
fn eventually(engine: &mut Engine, mut check: impl FnMut(&mut Engine) -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        engine.poll().unwrap();
        match check(engine) {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::park_timeout(PAUSE);
    }
}

fn start() -> Engine {
    let options = EngineOptions { scans: Scans::Regularly, watched: Watched::All, ..EngineOptions::default() };
    Engine::start(options).expect("start the engine")
}

#[test]
fn every_row_names_the_service_that_ss_shows() {
    in_private_netns(|| {
        let mut engine = start();
        let (mut web, mut app, mut apart) = (Unit::new("web"), Unit::new("app"), Unit::new("apart"));
        let blue = Mounted::add("blue");
        run(Command::new("ip").args(["-n", &blue.0, "link", "set", "lo", "up"]));
        let server = web.start(&[], "httpd -f -p 127.0.0.1:7000");
        // Its network is the host's, as with `hostNetwork: true`.
        let shared = Runc::start("shared", Network::Shared, &["httpd", "-f", "-p", "127.0.0.1:7001"]);
        let both = "/bin/busybox httpd -p 127.0.0.1:7002 && /bin/busybox sleep 1000 | /bin/busybox nc 127.0.0.1 7002";
        let own = Runc::start("own", Network::Own, &["sh", "-c", both]);
        let in_blue = ["ip", "netns", "exec", &blue.0];
        let inside = apart.start(&in_blue, "httpd -f -p 127.0.0.1:7003");
        wait_until("servers", || shown().iter().filter(|it| it.state == "LISTEN").count() == 2);
        // Until it has entered that namespace it shows the sockets of this one.
        wait_until("the namespace's", || shown_by(inside).iter().any(|it| it.local.port() == 7003));
        for port in [7000, 7000, 7001] {
            app.start(&[], &format!("nc 127.0.0.1 {port}"));
        }
        apart.start(&in_blue, "nc 127.0.0.1 7003");
        let established = |truth: &[Shown]| truth.iter().filter(|it| it.state == "ESTAB").count();
        wait_until("connections", || established(&shown()) == 6);
        wait_until("others", || established(&shown_by(inside)) == 2 && established(&shown_by(own.pid)) == 2);
        let truth: Vec<Shown> = [shown(), shown_by(inside), shown_by(own.pid)].concat();

        let mut cgroups: Vec<(String, String, &str)> = Vec::new();
        let words = [&web, &app, &apart].map(|unit| format!("unit:{}", unit.name));
        let ids = [&shared, &own].map(|container| format!("container:{}", container.id));
        for (unit, word) in [&web, &app, &apart].into_iter().zip(&words) {
            cgroups.push((unit.path(), unit.name.clone(), word));
        }
        for (container, word) in [&shared, &own].into_iter().zip(&ids) {
            cgroups.push((format!("/{}", container.id), container.id.clone(), word));
        }
        assert!(cgroups.iter().all(|(cgroup, ..)| !connections_of(&truth, cgroup).is_empty()), "{truth:#?}");
        eventually(&mut engine, |engine| compare(engine, &truth, &cgroups));
        // One that finds them in its first scan says the same.
        let mut later = start();
        eventually(&mut later, |engine| compare(engine, &truth, &cgroups));

        a_failure_and_a_process_have_their_service(&mut engine, server, &web);
        let inner = NetnsId(u32::try_from(fs::metadata(format!("/proc/{}/ns/net", own.pid)).unwrap().ino()).unwrap());
        own.end();
        eventually(&mut engine, |engine| {
            let rows = matching(engine, Of::All, &ids[1]);
            let snapshot = engine.snapshot(0);
            let row = row_of(&snapshot, &own.id);
            let is_empty = row.is_none_or(|row| row.sockets == 0 && row.listeners == 0);
            let is_there = snapshot.endpoints.iter().any(|row| row.key.netns == inner);
            let left = format!("left of it: {rows:#?} {row:#?}, endpoints: {is_there}");
            if rows.is_empty() && is_empty && !is_there { Ok(()) } else { Err(left) }
        });
        let truth: Vec<Shown> = truth.into_iter().filter(|it| it.cgroup != format!("/{}", own.id)).collect();
        eventually(&mut engine, |engine| compare(engine, &truth, &cgroups[..4]));
    });
}

/// A bind() in a unit fails; it is the unit's failure. The server's process row has its unit.
fn a_failure_and_a_process_have_their_service(engine: &mut Engine, server: u32, web: &Unit) {
    // The fullest processes are listed, whatever else runs here.
    run(Command::new("prlimit").args(["--nofile=16:16", "--pid", &server.to_string()]));
    let mut second = Unit::new("second");
    let pid = second.start(&[], "httpd -f -p 127.0.0.1:7000");
    assert!(!second.children[0].wait().unwrap().success(), "the address is in use");
    eventually(engine, |engine| {
        let snapshot = engine.snapshot(0);
        let row = snapshot.processes.iter().find(|row| row.process.pid.0 == server);
        let of_process = row.and_then(|row| row.service.as_ref()).map(|service| service.label().to_string());
        let json = export::json(&Frame::from(snapshot.clone())).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let failure = json["failures"].as_array().unwrap().iter().find(|row| row["process"]["pid"] == pid);
        let failed = row_of(&snapshot, &second.name).map(|row| row.failures_total);
        let is_right =
            failure.is_some_and(|row| row["service"]["unit"] == second.name && row["kind"] == "address_in_use");
        let all = is_right && of_process.as_ref() == Some(&web.name) && failed == Some(1);
        if all { Ok(()) } else { Err(format!("{failure:#?} {of_process:?} {failed:?}")) }
    });
}
