//! Where it listens, and what it says where it cannot.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    process::{Command, Stdio},
};

use super::{
    eventually,
    server::{OBSERVER, Server, curl, refusal},
};

fn serve(args: &[&str]) -> Command {
    let mut command = Command::new(OBSERVER);
    command.arg("serve").args(args);
    command
}

#[test]
fn an_address_in_use_is_named_with_who_listens_there() {
    let first = Server::start();
    let address = first.address.unwrap().to_string();
    let pid = first.pid();
    let said = refusal(&mut serve(&["--listen", &address]));
    let expected = format!("listen on {address}: EADDRINUSE (Address already in use): observer");
    assert!(said.starts_with(&expected) && said.contains("listens there"), "{said}");
    // The engine process or the one that speaks HTTP: both have the socket.
    let http = first.http_pid().unwrap();
    assert!(said.contains(&format!("({pid})")) || said.contains(&format!("({http})")), "{said}");
    first.assert_serves();
}

#[test]
fn an_address_of_another_host_is_refused_and_one_that_others_reach_is_pointed_out() {
    let said = refusal(&mut serve(&["--listen", "192.0.2.1:28232"]));
    assert!(said.starts_with("listen on 192.0.2.1:28232: EADDRNOTAVAIL ("), "{said}");
    let server = Server::with(&["--listen", "0.0.0.0:0"]);
    assert!(server.said[0].contains("neither TLS nor passwords"), "{:?}", server.said);
    let wrong = serve(&["--listen", "localhost"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let few = serve(&["--max-series", "1"]).output().unwrap();
    assert_eq!(few.status.code(), Some(2), "{few:?}");
}

#[test]
fn a_low_port_without_its_capability_says_what_it_needs() {
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set",
        "-net_bind_service",
        "--inh-caps",
        "-all",
        OBSERVER,
        "serve",
        "--listen",
        "127.0.0.1:81",
    ]);
    let said = refusal(&mut command);
    assert!(
        said.starts_with("listen on 127.0.0.1:81: EACCES (") && said.contains("ip_unprivileged_port_start"),
        "{said}"
    );
}

#[test]
fn a_unix_socket_that_was_left_behind_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("observer.sock");
    let listen = format!("unix:{}", path.display());
    // A process that ended without removing it.
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::with(&["--listen", &listen]);
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    curl(&["-sSf", "--unix-socket", path.to_str().unwrap(), "http://observer/-/ready"]);
    let said = refusal(&mut serve(&["--listen", &listen]));
    assert!(said.contains("EADDRINUSE (Address already in use): ") && said.contains("listens there"), "{said}");
    drop(server);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let said = refusal(&mut serve(&["--listen", &listen]));
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
    let said = refusal(&mut serve(&["--listen", &listen]));
    assert!(said.contains("belongs to user 1234"), "{said}");
    let long = format!("unix:/tmp/{}", "x".repeat(200));
    assert!(refusal(&mut serve(&["--listen", &long])).contains("1 to 107 bytes"));
    let absent = format!("unix:{}/absent/socket", dir.path().display());
    assert!(refusal(&mut serve(&["--listen", &absent])).contains("ENOENT"));
}

#[test]
fn the_service_manager_passes_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("activated.sock");
    // A free port, of which nobody else here knows.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &format!("127.0.0.1:{port}"), "-l", path.to_str().unwrap(), OBSERVER, "serve"]);
    // It starts observer when the first client comes: that one waits.
    let client = std::thread::spawn(move || {
        let url = format!("http://127.0.0.1:{port}/-/healthy");
        curl(&["-sSf", "--retry", "30", "--retry-connrefused", "--retry-delay", "1", &url]).stdout
    });
    let mut server = Server::spawn(&mut command);
    assert_eq!(client.join().unwrap(), b"healthy\n");
    assert_eq!(server.address.unwrap().port(), port);
    server.assert_serves();
    curl(&["-sSf", "--unix-socket", path.to_str().unwrap(), "http://observer/-/ready"]);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(path.exists(), "the socket belongs to the service manager");
}

/// What observer says that systemd-socket-activate starts when `client` comes.
fn activated(kind: &[&str], args: &[&str], client: impl Fn(u16) -> bool) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("systemd-socket-activate");
    command.args(kind).args(["-l", &format!("127.0.0.1:{port}"), OBSERVER, "serve"]).args(args);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("the end of observer", || {
        client(port);
        child.try_wait().unwrap()
    });
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test]
fn sockets_of_the_service_manager_and_of_the_command_line_exclude_each_other() {
    let connects = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
    let said = activated(&[], &["--listen", "127.0.0.1:0"], connects);
    assert!(said.contains("observer: LISTEN_FDS: the service manager passed sockets"), "{said}");
}

#[test]
fn a_datagram_socket_of_the_service_manager_is_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let said = activated(&["-d"], &[], |port| socket.send_to(b"x", ("127.0.0.1", port)).is_ok());
    assert!(said.contains("observer: LISTEN_FDS: a descriptor is no listening stream socket"), "{said}");
}
