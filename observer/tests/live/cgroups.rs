//! The cgroup of each socket, against the inode of its directory and `ss --cgroup`.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use observer::{
    engine::Engine,
    model::{
        query::{ConnectionRow, Query},
        service::{CgroupId, Service},
        snapshot::{EndpointRow, ServiceRow, Snapshot},
    },
};

use crate::{
    sockets::{TestProcess, keep_open, role},
    support::{eventually, in_private_netns, observe, run, wait_until},
};

const SERVER: &str = "127.0.0.1:7900";

/// The first mount of cgroup2, which is made where there is none.
fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    if let Some(line) = found {
        return line.split(' ').nth(4).unwrap().into();
    }
    // Where the guest's init has mounted none.
    let path = Path::new("/sys/fs/cgroup");
    let _ = fs::create_dir_all(path);
    run("mount", &["-t", "cgroup2", "none", path.to_str().unwrap()]);
    path.to_owned()
}

/// A cgroup of this test, which ends with it.
struct Cgroup {
    directory: PathBuf,
    path: String,
}

impl Cgroup {
    fn make(name: &str) -> Self {
        let path = format!("/observer-test-{}-{name}.service", process::id());
        let directory = cgroup2().join(&path[1..]);
        fs::create_dir(&directory).unwrap();
        Self { directory, path }
    }

    fn id(&self) -> CgroupId {
        CgroupId(fs::metadata(&self.directory).unwrap().ino())
    }

    fn unit(&self) -> &str {
        &self.path[1..]
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The processes in it have been waited for; the kernel takes them out a moment later.
        wait_until("the end of the cgroup", || fs::remove_dir(&self.directory).is_ok());
    }
}

/// In the cgroup that the role names: a server that accepts two connections, and their clients in another process.
fn play((role, channel): (String, std::os::unix::net::UnixStream)) {
    let (part, directory) = role.split_once(' ').unwrap();
    fs::write(Path::new(directory).join("cgroup.procs"), "0").unwrap();
    let server: SocketAddr = SERVER.parse().unwrap();
    if part == "server" {
        let listener = TcpListener::bind(server).unwrap();
        // The clients start once it listens.
        std::io::Write::write_all(&mut (&channel), b".").unwrap();
        let _accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
        keep_open(&channel);
    } else {
        let _clients = [TcpStream::connect(server).unwrap(), TcpStream::connect(server).unwrap()];
        keep_open(&channel);
    }
}

/// More than the engine names between two looks at the ring.
const MANY: u16 = 80;

/// One listener in each of many cgroups, one after the other.
fn play_many((parent, channel): (String, std::os::unix::net::UnixStream)) {
    let listen = |number: u16| {
        fs::write(Path::new(&directory_of_many(&parent, number)).join("cgroup.procs"), "0").unwrap();
        TcpListener::bind(("127.0.0.1", 7_000 + number)).unwrap()
    };
    let _listeners: Vec<_> = (0..MANY).map(listen).collect();
    std::io::Write::write_all(&mut (&channel), b".").unwrap();
    keep_open(&channel);
}

fn directory_of_many(first: &str, number: u16) -> String {
    first.replace("-0.service", &format!("-{number}.service"))
}

#[test]
fn the_first_frame_names_every_service() {
    if let Some(part) = role() {
        play_many(part);
        return;
    }
    in_private_netns(|| {
        let cgroups: Vec<_> = (0..MANY).map(|number| Cgroup::make(&format!("many-{number}"))).collect();
        let first = cgroups[0].directory.display().to_string();
        let mut process = TestProcess::start(&the_first_frame_names_every_service, &first);
        process.wait_until_ready();
        process.channel.read_exact(&mut [0]).unwrap();
        let snapshot = observe().snapshot(0);
        let mut shown: Vec<_> = snapshot.services.iter().filter_map(|row| unit(row.service.as_ref())).collect();
        shown.retain(|unit| unit.contains("-many-"));
        let mut expected: Vec<_> = cgroups.iter().map(Cgroup::unit).collect();
        shown.sort_unstable();
        expected.sort_unstable();
        assert_eq!(shown, expected);
        process.kill();
    });
}

fn connections(engine: &Engine, port: fn(&ConnectionRow) -> u16) -> Vec<ConnectionRow> {
    let mut rows = engine.connections(&Query::default(), 10).rows;
    rows.retain(|row| port(row) == 7900);
    rows
}

fn unit(service: Option<&Arc<Service>>) -> Option<&str> {
    service?.unit.as_deref()
}

fn services<'a>(snapshot: &'a Snapshot, cgroup: &Cgroup) -> Option<&'a ServiceRow> {
    snapshot.services.iter().find(|row| unit(row.service.as_ref()) == Some(cgroup.unit()))
}

/// What `ss --cgroup` shows of the sockets whose local or remote port is the server's.
fn cgroups_by_ss(filter: &str) -> Vec<String> {
    let shown = run("ss", &["-Htan", "--cgroup", filter]);
    let cgroup = |line: &str| Some(line.split_once("cgroup:")?.1.split_whitespace().next()?.to_owned());
    shown.lines().filter_map(cgroup).collect()
}

fn check(engine: &mut Engine, server: &Cgroup, client: &Cgroup) {
    let (of_server, of_client) = eventually(engine, "both services", |snapshot| {
        let (of_server, of_client) = (services(snapshot, server)?, services(snapshot, client)?);
        let are_there = (of_server.sockets, of_server.listeners, of_client.sockets) == (2, 1, 2);
        are_there.then(|| (of_server.clone(), of_client.clone()))
    });
    assert_eq!((of_client.listeners, of_client.orphans), (0, 0));
    let path = |row: &ServiceRow| row.service.as_ref().map(|service| service.label().to_string());
    assert_eq!(path(&of_server).as_deref(), Some(server.unit()));
    // Each row by itself, against the inode of the directory.
    let accepted = connections(engine, |row| row.tuple.local_port);
    let connected = connections(engine, |row| row.tuple.remote_port);
    assert_eq!((accepted.len(), connected.len()), (2, 2));
    assert!(accepted.iter().all(|row| row.cgroup == Some(server.id())), "{accepted:#?}");
    assert!(connected.iter().all(|row| row.cgroup == Some(client.id())), "{connected:#?}");
    // And against ss: a listener and two accepted sockets, two clients.
    assert_eq!(cgroups_by_ss("sport = 7900"), vec![server.path.clone(); 3]);
    assert_eq!(cgroups_by_ss("dport = 7900"), vec![client.path.clone(); 2]);
    let rows = engine.snapshot(usize::MAX).endpoints;
    let services = |row: &EndpointRow| (unit(row.service.as_ref()).map(str::to_owned), row.other_services);
    let mut shown: Vec<_> = rows.iter().map(services).collect();
    shown.sort_unstable();
    let mut expected = vec![(Some(server.unit().to_owned()), 0), (Some(client.unit().to_owned()), 0)];
    expected.sort_unstable();
    assert_eq!(shown, expected);
}

#[test]
fn sockets_have_the_cgroup_of_their_directory_by_events_and_by_scans() {
    if let Some(part) = role() {
        play(part);
        return;
    }
    in_private_netns(|| {
        let (server, client) = (Cgroup::make("server"), Cgroup::make("client"));
        let start = |part: &str, cgroup: &Cgroup| {
            let role = format!("{part} {}", cgroup.directory.display());
            let mut process =
                TestProcess::start(&sockets_have_the_cgroup_of_their_directory_by_events_and_by_scans, &role);
            process.wait_until_ready();
            process
        };
        let mut engine = observe();
        let mut server_process = start("server", &server);
        let client_process = start("client", &client);
        server_process.channel.read_exact(&mut [0]).unwrap();
        check(&mut engine, &server, &client);
        // What was there before is found by a scan.
        drop(engine);
        check(&mut observe(), &server, &client);
        client_process.kill();
        server_process.kill();
    });
}

/// Makes a listener and two connections that it does not accept in the root of all cgroups, and goes to another one.
fn play_waiting((directory, channel): (String, std::os::unix::net::UnixStream)) {
    fs::write(cgroup2().join("cgroup.procs"), "0").unwrap();
    let _listener = TcpListener::bind(SERVER).unwrap();
    let _clients = [TcpStream::connect(SERVER).unwrap(), TcpStream::connect(SERVER).unwrap()];
    fs::write(Path::new(&directory).join("cgroup.procs"), "0").unwrap();
    std::io::Write::write_all(&mut (&channel), b".").unwrap();
    keep_open(&channel);
}

#[test]
fn the_first_frame_counts_connections_that_wait_with_their_listener() {
    if let Some(part) = role() {
        play_waiting(part);
        return;
    }
    in_private_netns(|| {
        let cgroup = Cgroup::make("waiting");
        let test = &the_first_frame_counts_connections_that_wait_with_their_listener;
        let mut process = TestProcess::start(test, &cgroup.directory.display().to_string());
        process.wait_until_ready();
        process.channel.read_exact(&mut [0]).unwrap();
        assert_eq!(cgroups_by_ss("sport = 7900 or dport = 7900"), ["/"; 5], "no cgroup names their service");
        let snapshot = observe().snapshot(usize::MAX);
        let row = services(&snapshot, &cgroup).expect("the service of the process");
        assert_eq!((row.sockets, row.listeners), (4, 1), "{:#?}", snapshot.services);
        process.kill();
    });
}
