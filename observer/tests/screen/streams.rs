//! The live screen of a stream: through pipes, of a growing file, and of a service that others run.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use super::terminal::{DEADLINE, MAIN_SCREEN, OBSERVER, Terminal};

/// A program that is killed when the test ends.
struct Running(Child);

impl Running {
    fn observer(args: &[&str]) -> Self {
        let mut command = Command::new(OBSERVER);
        Self(command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn end(&mut self, signal: Signal) {
        let _ = kill_process(rustix::process::Pid::from_child(&self.0), signal);
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn eventually(what: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_there() {
        assert!(Instant::now() < deadline, "did not come: {what}");
        thread::yield_now();
    }
}

/// `observer serve` with a socket for viewers, which is there.
fn service(folder: &Path) -> (Running, PathBuf) {
    let socket = folder.join("attach.sock");
    let listen = format!("unix:{}", folder.join("http.sock").display());
    let args = ["serve", "--listen", &listen, "--attach-socket", socket.to_str().unwrap()];
    let service = Running::observer(&args);
    eventually("the socket for viewers", || socket.exists());
    (service, socket)
}

fn attached(socket: &Path) -> Terminal {
    Terminal::start(100, 30, OBSERVER, &["--attach-to", socket.to_str().unwrap()], &[])
}

fn run(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_screen_of_a_service_needs_no_right_and_loads_no_program() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    Command::new("chmod").arg("755").arg(folder.path()).status().unwrap();
    let (mut service, socket) = service(folder.path());
    let mode = fs::symlink_metadata(&socket).unwrap();
    assert!(mode.file_type().is_socket() && mode.mode() & 0o777 == 0o660, "{:o}", mode.mode());
    let copy = folder.path().join("observer");
    assert!(Command::new("cp").arg(OBSERVER).arg(&copy).status().unwrap().success());
    // Of the socket's group and nothing else.
    let group = format!("--groups={}", mode.gid());
    let nobody = ["--reuid=65534", "--regid=65534", &group, "--inh-caps=-all", "--", copy.to_str().unwrap()];
    let args = [&nobody[..], &["--attach-to", socket.to_str().unwrap()]].concat();
    let mut terminal = Terminal::start(100, 30, "setpriv", &args, &[]);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.wait_for_words(&["ATTACHED"]);
    let process = format!("/proc/{}", terminal.pid().as_raw_nonzero());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    for line in ["Uid:\t65534", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    for file in fs::read_dir(format!("{process}/fd")).unwrap() {
        let target = fs::read_link(file.unwrap().path()).unwrap_or_default();
        assert!(!target.to_string_lossy().contains("bpf"), "{target:?}");
    }

    // What happens now is shown.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(&address).unwrap()).collect();
    terminal.press(&format!("/port:{}\r", listener.local_addr().unwrap().port()));
    terminal.wait_for_words(&[&address]);

    // Without the group, nobody.
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", copy.to_str().unwrap()])
        .args(["snapshot", "--attach-to", socket.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(stranger.status.code() == Some(1) && said.contains("EACCES (Permission denied): the group"), "{said}");

    service.end(Signal::TERM);
    terminal.wait_for_words(&["ATTACHED, SERVICE ENDED"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_restored();
    assert!(!socket.exists(), "the socket goes with its service");
    drop(clients);
}

#[test]
fn several_viewers_have_a_view_of_their_own_and_their_number_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (service, socket) = service(folder.path());
    let (mut first, mut second) = (attached(&socket), attached(&socket));
    for terminal in [&first, &second] {
        terminal.wait_for_words(&MAIN_SCREEN);
    }
    first.press(" ");
    first.wait_for_words(&["PAUSED"]);
    second.press("8");
    second.wait_for_words(&[">8 Data"]);
    assert!(!second.screen().contains("PAUSED") && !first.screen().contains(">8 Data"));

    // Those that read nothing hold nobody up.
    let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut idle = Vec::new();
    let refused = loop {
        let mut stream = connect();
        let mut byte = [0; 128];
        let read = stream.read(&mut byte).unwrap();
        let greeting = String::from_utf8_lossy(&byte[..read]).into_owned();
        assert!(greeting.starts_with("observer-attach 1 "), "{greeting}");
        if greeting.contains("refused") {
            break greeting;
        }
        idle.push(stream);
        assert!(idle.len() < 100, "no bound");
    };
    assert!(refused.contains("8 viewers are attached") && idle.len() == 6, "{refused} after {}", idle.len());
    let late = run(&["snapshot", "--attach-to", socket.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(late.status.code() == Some(1) && said.contains("the service refuses: 8 viewers"), "{said}");
    second.press("1");
    second.wait_for_words(&[">1 "]);

    // A viewer that leaves makes room.
    drop(idle);
    eventually("room for another viewer", || {
        run(&["check", "--attach-to", socket.to_str().unwrap()]).stdout.starts_with(b"OBSERVER ")
    });
    for terminal in [&mut first, &mut second] {
        terminal.press("q");
        assert_eq!(terminal.ends(), 0);
    }
    drop(service);
}

#[test]
fn commands_print_of_a_service_what_they_print_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, socket) = service(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let clients: Vec<TcpStream> = (0..7).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let socket = socket.to_str().unwrap();
    let row = |args: &[&str]| {
        let output = run(args);
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let rows = json["endpoints"].as_array().unwrap().clone();
        let row = rows.into_iter().find(|row| row["direction"] == "inbound" && row["local_port"] == port);
        row.map(|row| (row["states"].clone(), row["netns_name"].clone(), row["service"].clone()))
    };
    let here = row(&["snapshot", "--json"]);
    assert!(here.is_some());
    assert_eq!(row(&["snapshot", "--attach-to", socket, "--json"]), here);
    assert_eq!(row(&["watch", "-n", "1", "--attach-to", socket]), here);
    assert!(run(&["limits", "--attach-to", socket, "--json"]).status.success());
    drop(clients);
}

#[test]
fn a_recording_in_a_pipe_is_shown_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let line = format!("{OBSERVER} record - | {OBSERVER} replay -");
    let mut terminal = Terminal::start(100, 30, "/bin/sh", &["-c", &line], &[]);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.wait_for_words(&["REPLAY, LIVE"]);
    terminal.press(&format!("/port:{}\r", listener.local_addr().unwrap().port()));
    terminal.wait_for_words(&[&address]);
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(&address).unwrap()).collect();
    terminal.press("7");
    terminal.press("1");
    terminal.wait_for_words(&[&address]);
    // Its reader goes, and that ends the recording.
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    drop(clients);
}

/// Through a pipe that takes a few hundred kilobytes a second, as a bad line does.
#[test]
fn a_recording_that_comes_slowly_is_shown_as_far_as_it_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut recorder = Command::new(OBSERVER)
        .args(["--own-netns", "record", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut source = recorder.stdout.take().unwrap();
    let line = format!("{OBSERVER} replay - < {}", fifo.display());
    let mut terminal = Terminal::start(100, 30, "/bin/sh", &["-c", &line], &[]);
    let relay = thread::spawn(move || {
        let mut sink = OpenOptions::new().write(true).open(fifo).unwrap();
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = source.read(&mut bytes) {
            if sink.write_all(&bytes[..read]).is_err() {
                break;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    });
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.wait_for_words(&["REPLAY"]);
    terminal.press("\x1b[D");
    terminal.wait_for_words(&["observed for "]);
    kill_process(rustix::process::Pid::from_child(&recorder), Signal::TERM).unwrap();
    assert!(recorder.wait().unwrap().success());
    terminal.wait_for_words(&["REPLAY, OVER"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    relay.join().unwrap();
}

#[test]
fn a_file_that_grows_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording");
    let mut recorder = Running::observer(&["record", file.to_str().unwrap()]);
    eventually("the file", || file.exists());
    let mut terminal = Terminal::start(100, 30, OBSERVER, &["replay", file.to_str().unwrap(), "--follow"], &[]);
    terminal.wait_for_words(&MAIN_SCREEN);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    terminal.press(&format!("/port:{}\r", listener.local_addr().unwrap().port()));
    terminal.wait_for_words(&[&listener.local_addr().unwrap().to_string()]);
    recorder.end(Signal::TERM);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    assert!(File::open(&file).is_ok());
}
