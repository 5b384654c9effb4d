//! What namespaces are called.

use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use observer::{
    engine::{Engine, EngineOptions, Watched},
    host::netns,
    model::{name::Name, snapshot::Snapshot, units::NetnsId},
};

use crate::{
    processes::{output, start_program},
    support::{eventually, in_private_netns, listen, options, run, start, wait_until},
};

fn observe_all() -> Engine {
    start(EngineOptions { watched: Watched::All, ..options() })
}

fn name(snapshot: &Snapshot, netns: NetnsId) -> Option<Name> {
    snapshot
        .namespaces
        .iter()
        .find(|row| row.netns == netns)
        .expect("the namespace is known")
        .name
        .clone()
        .map(|it| it.name)
}

/// A shell under another name, running in the calling thread's namespace until it is dropped.
struct Named {
    child: Child,
    _stdin: UnixStream,
}

impl Named {
    fn start(dir: &Path, name: &[u8], script: &str) -> Self {
        let copy = dir.join(OsStr::from_bytes(name));
        // A process of its own writes it: a file that this one has open for writing, through a fork of another thread too,
        // cannot be executed (ETXTBSY).
        assert!(Command::new("cp").arg("/bin/bash").arg(&copy).status().unwrap().success());
        let (child, stdin) = start_program(Command::new(&copy).args(["-c", script]).stdout(Stdio::null())).unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        wait_until("its name", || fs::read(&comm).unwrap() == [name, b"\n"].concat());
        Self { child, _stdin: stdin }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn the_namespace_of_the_host_is_called_host() {
    // Limits of the whole host are shown in the initial namespace alone.
    assert!(Path::new("/proc/sys/net/ipv4/tcp_max_orphans").exists(), "the tests are started in the host's namespace");
    let host = netns::current().unwrap();
    let check = move || {
        let snapshot = observe_all().snapshot(0);
        assert_eq!(name(&snapshot, host), Some("host".into()));
        let hosts = snapshot.namespaces.iter().filter(|row| row.name.as_deref() == Some("host"));
        assert_eq!(hosts.count(), 1, "no other is called so: {:?}", snapshot.namespaces);
    };
    check();
    in_private_netns(check);
}

#[test]
fn a_namespace_is_named_after_the_owner_of_its_sockets_and_never_after_a_pause_container() {
    in_private_netns(|| {
        let (own, dir) = (netns::current().unwrap(), tempfile::tempdir().unwrap());
        let _listener = listen("127.0.0.1:7000", 8);
        let _pause = Named::start(dir.path(), b"pause", "read end");
        let mut engine = observe_all();
        assert_eq!(name(&engine.snapshot(0), own), None, "a number is better than `pause`");
        let _older = Named::start(dir.path(), b"older", "read end");
        eventually(&mut engine, "the process that does not pause", |snapshot| {
            (name(snapshot, own) == Some("older".into())).then_some(())
        });
        let connect = "exec 3<>/dev/tcp/127.0.0.1/7000; read end";
        let server = Named::start(dir.path(), b"server", connect);
        wait_until("its connection", || run("ss", &["-Htnp"]).contains("\"server\""));
        engine.scan().unwrap();
        assert_eq!(name(&engine.snapshot(0), own), Some("server".into()));
        assert_eq!(name(&observe_all().snapshot(0), own), Some("server".into()), "at start too");
        drop(server);
        eventually(&mut engine, "the process that is left", |snapshot| {
            (name(snapshot, own) == Some("older".into())).then_some(())
        });
    });
}

#[test]
fn a_process_called_host_does_not_make_its_namespace_the_host() {
    in_private_netns(|| {
        let (own, dir) = (netns::current().unwrap(), tempfile::tempdir().unwrap());
        let _named = Named::start(dir.path(), b"host", "read end");
        let called = Some(Name::from(format!("host ({})", own.0).as_str()));
        for watched in [Watched::All, Watched::Own] {
            let snapshot = start(EngineOptions { watched, ..options() }).snapshot(0);
            assert_eq!(name(&snapshot, own), called, "{watched:?}");
        }
    });
}

#[test]
fn a_namespace_has_its_name_also_where_no_other_is_watched() {
    let mounted = Mounted::add(b"-alone");
    let name = std::str::from_utf8(&mounted.0).unwrap();
    for words in ["--own-netns snapshot --json", "snapshot --json"] {
        let observer = env!("CARGO_BIN_EXE_observer");
        let mut command = Command::new("ip");
        let output = output(command.args(["netns", "exec", name, observer]).args(words.split(' '))).unwrap();
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = json["namespaces"].as_array().unwrap();
        let row = rows.iter().find(|row| row["netns"] == mounted.netns().0).unwrap();
        assert_eq!(row["netns_name"], name, "{words}");
    }
}

#[test]
fn a_comm_that_is_not_utf_8_names_its_namespace_and_hides_nothing() {
    in_private_netns(|| {
        let (own, dir) = (netns::current().unwrap(), tempfile::tempdir().unwrap());
        let _named = Named::start(dir.path(), b"caf\xe9", "read end");
        let found = name(&observe_all().snapshot(0), own).unwrap();
        assert_eq!((found.as_bytes(), &*found), (&b"caf\xe9"[..], "caf?"));
    });
}

/// A namespace of `ip netns` with a name of any bytes, removed when dropped.
struct Mounted(Vec<u8>);

impl Mounted {
    fn add(what: &[u8]) -> Self {
        let mounted = Self([b"observer-e-", std::process::id().to_string().as_bytes(), what].concat());
        mounted.ip("add");
        mounted
    }

    fn ip(&self, action: &str) {
        let name = OsStr::from_bytes(&self.0);
        let output = output(Command::new("ip").args(["netns", action]).arg(name)).unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn netns(&self) -> NetnsId {
        let path = Path::new("/run/netns").join(OsStr::from_bytes(&self.0));
        NetnsId(u32::try_from(fs::metadata(path).unwrap().ino()).unwrap())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.ip("del");
    }
}

#[test]
fn names_of_ip_netns_are_bytes() {
    let all = [&b"-caf\xe9"[..], b"-a\tb\\c d", "-\u{202e}evil\u{200b}".as_bytes(), "-数据".as_bytes(), b"-\\040"];
    let mounted = all.map(Mounted::add);
    let snapshot = observe_all().snapshot(0);
    for mounted in &mounted {
        let found = name(&snapshot, mounted.netns()).unwrap();
        assert_eq!(found.as_bytes(), mounted.0, "{}", found.as_bytes().escape_ascii());
        assert!(found.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{found}");
        let row = snapshot.namespaces.iter().find(|row| row.netns == mounted.netns()).unwrap();
        assert!(row.port_range.is_some(), "it was entered: {found}");
    }
}

#[test]
fn names_of_container_networks_are_no_names() {
    let cni = Mounted(format!("cni-observer-e-{}", std::process::id()).into_bytes());
    cni.ip("add");
    assert_eq!(name(&observe_all().snapshot(0), cni.netns()), None);
}

#[test]
fn a_mount_that_leads_elsewhere_does_not_hide_what_a_process_holds() {
    let blue = Mounted::add(b"-blue");
    let name = std::str::from_utf8(&blue.0).unwrap();
    let path = format!("/run/netns/{name}");
    // Its standard input is a socket: what is written to it comes back to us.
    let inside = "sysctl -q -w net.ipv4.ip_local_port_range='20000 20999' && echo up >&0 && read end";
    let (mut child, mut stdin) =
        start_program(Command::new("ip").args(["netns", "exec", name, "sh", "-c", inside])).unwrap();
    stdin.read_exact(&mut [0; 3]).unwrap();
    for hide in ["mount -t tmpfs none /run/netns", &format!("mount --bind /proc/self/ns/net {path}")] {
        // The engine looks at the mounts of its process: it is to be one with mounts of its own.
        let script = format!("{hide} && exec {} snapshot --json", env!("CARGO_BIN_EXE_observer"));
        let output = output(Command::new("unshare").args(["--mount", "sh", "-c", &script])).unwrap();
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = json["namespaces"].as_array().unwrap();
        let row = rows.iter().find(|row| row["netns"] == blue.netns().0).expect("found by its process");
        assert_eq!(row["port_range"], serde_json::json!([20_000, 20_999]), "{hide}: it was entered");
        assert_eq!(row["netns_name"].as_str().unwrap().as_bytes(), blue.0, "{hide}: the mount's name is still right");
    }
    drop(stdin);
    child.wait().unwrap();
}
