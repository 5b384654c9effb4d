//! The engine process replaces the HTTP process, ends cleanly, and reports to the service manager.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, eventually,
    server::{OBSERVER, Server, another_http_process, curl, send_signal},
};

#[test]
fn an_http_process_that_dies_is_replaced_and_counted() {
    let server = Server::start();
    assert!(server.sum("observer_http_restarts_total") < 0.5);
    for restarts in [1.0, 2.0] {
        let before = server.http_pid().unwrap();
        send_signal(before, "KILL");
        // The listener is still there: a client waits for the next process.
        server.assert_serves();
        assert_ne!(another_http_process(&server, before), before);
        let counted = eventually("the counter", || {
            Some(server.sum("observer_http_restarts_total")).filter(|it| *it > restarts - 0.5)
        });
        assert!((counted - restarts).abs() < 0.5, "{counted}");
    }
    assert!(server.get("/").contains("HTTP restarts</th><td>2</td>"));
    let status = fs::read_to_string(format!("/proc/{}/status", server.http_pid().unwrap())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn an_http_process_that_hangs_is_replaced() {
    let server = Server::start();
    let before = server.http_pid().unwrap();
    send_signal(before, "STOP");
    // Nobody accepts this client, until there is another process.
    server.assert_serves();
    assert_ne!(server.http_pid(), Some(before));
}

#[test]
fn the_http_process_ends_with_the_engine_process() {
    let mut server = Server::start();
    let http = server.http_pid().unwrap();
    server.signal("KILL");
    server.wait();
    eventually("the end of the HTTP process", || {
        (!std::path::Path::new(&format!("/proc/{http}")).exists()).then_some(())
    });
}

#[test]
fn signals_end_it_with_code_0_and_its_socket_file_goes() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let path = dir.path().join("observer.sock");
        let listen = format!("unix:{}", path.display());
        let mut server = Server::with(&["--listen", "127.0.0.1:0", "--listen", &listen]);
        let http = server.http_pid().unwrap();
        let socket = path.to_str().unwrap();
        let text = curl(&["-sSf", "--unix-socket", socket, "http://observer/metrics"]).stdout;
        assert!(String::from_utf8(text).unwrap().contains("observer_build_info"));
        assert!(path.exists());
        // A terminal and systemd signal both processes.
        send_signal(http, signal);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal}");
        assert!(!path.exists(), "{signal}: the file of the socket is still there");
        assert!(!std::path::Path::new(&format!("/proc/{http}")).exists(), "the HTTP process is still there");
        assert_eq!(server.line(), None, "it ends without a word");
    }
}

#[test]
fn a_stopped_engine_process_is_not_healthy() {
    let server = Server::start();
    server.signal("STOP");
    let status = |path: &str| {
        let output = curl(&["-sS", "-o", "/dev/null", "-w", "%{http_code}", &server.url(path)]);
        String::from_utf8(output.stdout).unwrap()
    };
    // A request waits for the engine, within its bound.
    assert_eq!(eventually("503", || Some(status("/snapshot")).filter(|code| code == "503")), "503");
    assert_eq!(eventually("503", || Some(status("/-/healthy")).filter(|code| code == "503")), "503");
    server.signal("CONT");
    assert_eq!(eventually("200", || Some(status("/-/healthy")).filter(|code| code == "200")), "200");
    server.assert_serves();
}

/// The next message of observer to its service manager.
fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn the_service_manager_learns_of_the_start_of_each_half_period_and_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // As systemd's own: observer is not root when it reports.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(OBSERVER);
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    let mut server = Server::spawn(&mut command);
    assert_eq!(message(&socket), "READY=1\n");
    assert_eq!(message(&socket), format!("STATUS=serving on {}\n", server.url("")));
    let started = Instant::now();
    for _ in 0..4 {
        assert_eq!(message(&socket), "WATCHDOG=1\n");
    }
    assert!(started.elapsed() >= Duration::from_millis(1500), "more often than each half second");
    // Without an HTTP process that answers the watchdog bites: messages end.
    send_signal(server.http_pid().unwrap(), "STOP");
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut bytes = [0; 4096];
    let mut later = 0;
    while socket.recv(&mut bytes).is_ok() {
        later += 1;
        assert!(later < 100, "the watchdog is answered for an HTTP process that stands still");
    }
    send_signal(server.http_pid().unwrap(), "CONT");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(message(&socket), "WATCHDOG=1\n");
    server.signal("TERM");
    eventually("STOPPING=1", || (message(&socket) == "STOPPING=1\n").then_some(()));
    assert_eq!(server.wait().code(), Some(0));
}
