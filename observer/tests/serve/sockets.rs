//! Where it listens, and what it says where it cannot.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    process::Command,
};

use super::server::{OBSERVER, Server, curl, refusal};

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
    let mut server = spawn_activated(&mut command);
    assert_eq!(client.join().unwrap(), b"healthy\n");
    assert_eq!(server.address.unwrap().port(), port);
    server.assert_serves();
    curl(&["-sSf", "--unix-socket", path.to_str().unwrap(), "http://observer/-/ready"]);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(path.exists(), "the socket belongs to the service manager");
}

/// systemd-socket-activate says something of its own before.
fn spawn_activated(command: &mut Command) -> Server {
    Server::spawn(command)
}

#[test]
fn sockets_of_the_service_manager_and_of_the_command_line_exclude_each_other() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let activate = |kind: &[&str], args: &[&str]| {
        let mut command = Command::new("systemd-socket-activate");
        command.args(kind).args(["-l", &format!("127.0.0.1:{port}"), OBSERVER, "serve"]).args(args);
        let client = std::thread::spawn(move || {
            super::eventually("a listener", || std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        });
        let output = command.output().unwrap();
        drop(client.join());
        output
    };
    let output = activate(&[], &["--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("LISTEN_FDS: the service manager passed sockets"));
    let output = activate(&["-d"], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no listening stream socket"), "{said}");
}
