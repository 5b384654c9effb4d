//! Every process that owns a socket, against the users that `ss -p` shows: threads, new names, fork, exec, descriptors
//! that were passed on, several owners, and the subflows of MPTCP. And what a row calls its owners in short.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    thread,
};

use observer::{
    engine::Engine,
    model::{
        query::Query,
        snapshot::{EndpointRow, Snapshot},
        units::Process,
    },
};
use socket2::Socket;

use crate::{
    processes::start_program,
    sockets::{TestProcess, accept, keep_open, multipath, pass, role, skip, take},
    ss,
    support::{
        difference, eventually, in_private_netns, inbound, listen, observe, outbound, run, scan_until, wait_until,
    },
};

const AT: &str = "127.0.0.1:7000";

/// A process as `ss` shows it.
type User = (u32, String);

/// The users of each socket, by its addresses; of listeners the remote port is 0.
type Users = BTreeMap<(SocketAddr, SocketAddr), BTreeSet<User>>;

/// By `ss`: those sockets that it can attribute.
fn truth() -> Users {
    let mut users = Users::new();
    for line in run("ss", &["-Htanp"]).lines() {
        // users:(("bash",pid=77,fd=3),("sleep",pid=78,fd=3))
        let Some((socket, list)) = line.split_once("users:((") else { continue };
        let words: Vec<&str> = socket.split_whitespace().collect();
        let named = list.split("),(").map(|user| {
            let mut parts = user.split(',');
            let comm = parts.next().unwrap().trim_matches('"').to_owned();
            (parts.next().unwrap().strip_prefix("pid=").unwrap().parse().unwrap(), comm)
        });
        users.insert((ss::address(words[3]), ss::address(&words[4].replace(":*", ":0"))), named.collect());
    }
    users
}

fn user(process: &Process) -> User {
    (process.pid.0, process.comm.to_string())
}

/// By observer.
fn shown(engine: &mut Engine) -> Users {
    let snapshot = engine.snapshot(0);
    let mut users = Users::new();
    for row in engine.connections(&Query::default(), 10_000).rows {
        let tuple = row.tuple;
        let ends =
            (SocketAddr::new(tuple.local_ip, tuple.local_port), SocketAddr::new(tuple.remote_ip, tuple.remote_port));
        let fd_owners: BTreeSet<User> = row.owner.iter().chain(&row.co_fd_owners).map(user).collect();
        if !fd_owners.is_empty() {
            users.insert(ends, fd_owners);
        }
    }
    for row in snapshot.endpoints.iter().filter(|row| row.listening) {
        let local = SocketAddr::new(row.key.local_ip, row.key.local_port.unwrap());
        let nobody = SocketAddr::new(if local.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }, 0);
        users.insert((local, nobody), row.listeners.iter().map(user).collect());
    }
    users
}

/// Scans until the owners of every socket are the users that `ss` shows. It can take a while: a process that another
/// test starts holds a copy of every socket until its exec().
#[track_caller]
fn assert_fd_owners_equal_ss(engine: &mut Engine) {
    scan_until(engine, "the users of ss", |engine| {
        let (observed, shown) = (shown(engine), truth());
        if observed == shown { Ok(()) } else { Err(difference(("observer", &observed), ("ss", &shown))) }
    });
    assert_one_name_for_each_process(&engine.snapshot(0));
}

fn assert_one_name_for_each_process(snapshot: &Snapshot) {
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let of_rows = snapshot.endpoints.iter().flat_map(|row| row.fd_owners().into_iter().chain(row.listeners.clone()));
    let of_files = snapshot.host.processes.iter().map(|files| files.process);
    for process in snapshot.processes.iter().map(|row| row.process).chain(of_rows).chain(of_files) {
        let known = names.entry(process.pid.0).or_insert_with(|| process.comm.to_string());
        assert_eq!(*known, process.comm.to_string(), "two names of {}", process.pid);
    }
}

/// A shell that does as `script` says and then waits for its standard input to end.
fn shell(script: &str) -> (Child, UnixStream) {
    start_program(
        Command::new("bash").args(["-c", &format!("{script}; read")]).stdout(Stdio::null()).stderr(Stdio::null()),
    )
    .unwrap()
}

fn accepted(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| listener.accept().unwrap().0).collect()
}

fn comm_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end().to_owned()
}

#[test]
fn the_fd_owners_of_every_socket_are_the_users_that_ss_shows() {
    if let Some((_, channel)) = role() {
        let held = take(&channel).unwrap();
        keep_open(&channel);
        return drop(held);
    }
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen(AT, 128);
        let connect = "exec 3<>/dev/tcp/127.0.0.1/7000";
        let renamed = shell(&format!("{connect}; read; printf renamed-later > /proc/self/comm"));
        let several = shell(&format!("exec 5<&0; {connect}; (exec cat <&5) & (exec cat <&5) & true"));
        let replaced = shell(&format!("{connect}; exec tail -f /dev/null"));
        let threaded = thread::Builder::new().name("a-thread".to_owned());
        let client = threaded.spawn(|| TcpStream::connect(AT).unwrap()).unwrap().join().unwrap();
        let mut process =
            TestProcess::start(&the_fd_owners_of_every_socket_are_the_users_that_ss_shows, "hold what is passed");
        let passed = TcpStream::connect(AT).unwrap();
        pass(&process.channel, &passed).unwrap();
        process.wait_until_ready();
        drop(passed);
        let held = accepted(&listener, 5);
        wait_until("all have their names", || comm_of(replaced.0.id()) == "tail");
        wait_until("all have what they inherit", || run("ss", &["-Htnp"]).matches("\"cat\"").count() == 2);
        assert_fd_owners_equal_ss(&mut engine);
        // Found by a scan as by events.
        assert_fd_owners_equal_ss(&mut observe());

        // The name changes after the socket exists and after observer has seen it.
        std::io::Write::write_all(&mut &renamed.1, b"\n").unwrap();
        wait_until("the new name", || comm_of(renamed.0.id()) == "renamed-later");
        assert_fd_owners_equal_ss(&mut engine);
        for (mut child, _line) in [renamed, several, replaced] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        drop((client, held, process));
    });
}

#[test]
fn the_name_is_the_process_s_and_not_the_thread_s() {
    in_private_netns(|| {
        let mut engine = observe();
        let this = (std::process::id(), comm_of(std::process::id()));
        let ends = thread::Builder::new().name("another-name".to_owned()).spawn({
            // A thread keeps the namespace of the one that made it.
            || {
                let listener = listen(AT, 128);
                let client = TcpStream::connect(AT).unwrap();
                let accepted = listener.accept().unwrap().0;
                (listener, client, accepted)
            }
        });
        let ends = ends.unwrap().join().unwrap();
        eventually(&mut engine, "both ends by events alone", |snapshot| {
            let rows = [inbound(snapshot, AT)?, outbound(snapshot, "127.0.0.1")?];
            let owners: Vec<User> = rows.iter().flat_map(|row| &row.owners).map(|owner| user(&owner.process)).collect();
            (owners == [this.clone(), this.clone()] && rows[0].listeners.iter().map(user).eq([this.clone()]))
                .then_some(())
        });
        assert_fd_owners_equal_ss(&mut engine);
        drop(ends);
    });
}

#[test]
fn every_subflow_of_a_multipath_connection_belongs_to_its_process() {
    in_private_netns(|| {
        let Some(listener) = multipath(AT.parse().unwrap()) else {
            return skip(&every_subflow_of_a_multipath_connection_belongs_to_its_process, "this kernel has no MPTCP");
        };
        for second in ["127.0.0.2", "127.0.0.3"] {
            run("ip", &["mptcp", "endpoint", "add", second, "dev", "lo", "subflow"]);
        }
        run("ip", &["mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4"]);
        let mut engine = observe();
        listener.bind(&"0.0.0.0:7000".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(64).unwrap();
        let client = multipath(AT.parse().unwrap()).unwrap();
        client.connect(&AT.parse::<SocketAddr>().unwrap().into()).unwrap();
        let taken: Socket = accept(&listener);
        // Data makes the connection one of several paths.
        client.send(b"x").unwrap();
        assert_eq!(taken.recv(&mut [std::mem::MaybeUninit::uninit()]).unwrap(), 1);
        taken.send(b"x").unwrap();
        let established = || run("ss", &["-Htn", "state", "established"]).lines().count();
        wait_until("three subflows of both ends", || established() == 6);
        assert_fd_owners_equal_ss(&mut engine);
        let owned: u32 = engine.snapshot(0).endpoints.iter().flat_map(|row| &row.owners).map(|it| it.sockets).sum();
        assert_eq!(owned, 6);
        drop((client, taken, listener));
    });
}

#[test]
fn a_row_names_the_process_with_most_of_its_sockets_and_counts_the_others() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen(AT, 128);
        engine.scan().unwrap();
        let this = std::process::id();
        let names = |snapshot: &Snapshot, local: &str| {
            let row =
                inbound(snapshot, local).or_else(|| outbound(snapshot, local.split(':').next().unwrap())).unwrap();
            row.owner_names().map(|it| (it.process.pid.0, it.namesakes, it.others))
        };
        // Nobody is connected: the listener's owner.
        assert_eq!(names(&engine.snapshot(0), AT), Some((this, 1, 0)));

        let connect = "exec 3<>/dev/tcp/127.0.0.1/7000";
        let shells = [shell(connect), shell(&format!("{connect} 4<>/dev/tcp/127.0.0.1/7000")), shell(connect)];
        let held = accepted(&listener, 4);
        let row = |snapshot: &Snapshot| outbound(snapshot, "127.0.0.1").and_then(EndpointRow::owner_names).unwrap();
        engine.scan().unwrap();
        let short = row(&engine.snapshot(0));
        // Three shells are one name, that with the most sockets first.
        assert_eq!((short.process.pid.0, short.namesakes, short.others), (shells[1].0.id(), 3, 0));

        // One more process of another name.
        let (mut other, _line) = shell(&format!("{connect}; exec tail -f /dev/null"));
        let more = accepted(&listener, 1);
        wait_until("exec", || comm_of(other.id()) == "tail");
        assert_fd_owners_equal_ss(&mut engine);
        let short = row(&engine.snapshot(0));
        assert_eq!((short.process.comm.to_string().as_str(), short.namesakes, short.others), ("bash", 3, 1));

        // The listener goes on in another process: the row names the owner of its connections.
        assert_eq!(names(&engine.snapshot(0), AT), Some((this, 1, 0)));
        other.kill().unwrap();
        other.wait().unwrap();
        for (mut shell, _line) in shells {
            shell.kill().unwrap();
            shell.wait().unwrap();
        }
        drop((held, more));
    });
}
