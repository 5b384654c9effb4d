//! A running `observer serve`, and clients of it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
};

use observer::model::gaps::Unread;

use super::{PATIENCE, eventually};

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// `observer serve`; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where it listens on TCP, if it does.
    pub(crate) address: Option<SocketAddr>,
    /// What it said before it was ready.
    pub(crate) said: Vec<String>,
}

impl Server {
    /// On a free port of loopback.
    pub(crate) fn start() -> Self {
        Self::with(&["--listen", "127.0.0.1:0"])
    }

    pub(crate) fn with<S: AsRef<OsStr>>(args: &[S]) -> Self {
        Self::spawn(Command::new(OBSERVER).arg("serve").args(args))
    }

    /// Waits until it serves.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, stderr, address: None, said: Vec::new() };
        loop {
            let line = server.line().unwrap_or_else(|| panic!("it does not serve: {:?}", server.said));
            server.said.push(line.clone());
            if let Some(addresses) = line.strip_prefix("observer: serving on ") {
                let tcp = addresses.split(", ").find_map(|address| address.strip_prefix("http://"));
                server.address = tcp.map(|address| address.parse().unwrap());
                return server;
            }
        }
    }

    /// The next line that it says, but for what it cannot read on this machine.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stderr.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let line = line.trim_end();
            if !Unread::ALL.iter().any(|kind| line.ends_with(kind.consequence())) {
                return Some(line.to_owned());
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that speaks HTTP, once there is one.
    pub(crate) fn http_pid(&self) -> Option<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_ascii_whitespace().next().map(|child| child.parse().unwrap())
    }

    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.pid(), signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address.unwrap())
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own; returns all that comes back until the server closes it.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may have closed it meanwhile.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_end(&mut stream)
    }

    /// One document, as curl gets it.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        String::from_utf8(curl(&["-sSf", &self.url(path)]).stdout).unwrap()
    }

    /// The sum of a series' numbers, in the text format.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str) -> f64 {
        sum(&self.get("/metrics"), name)
    }

    /// It still serves.
    #[track_caller]
    pub(crate) fn assert_serves(&self) {
        assert!(self.get("/metrics").contains("\nobserver_build_info{"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn sum(text: &str, name: &str) -> f64 {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(is_it).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// Everything until the end; a reset is an end.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    all
}

/// The status of the first response in these bytes.
pub(crate) fn status(response: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(response);
    text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()
}

pub(crate) fn send_signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -s {signal} {pid}");
}

#[track_caller]
pub(crate) fn curl(args: &[&str]) -> Output {
    let output = Command::new("curl").args(["--max-time", "60"]).args(args).output().unwrap();
    assert!(output.status.success(), "curl {args:?}: {output:?}");
    output
}

/// Runs `observer serve` where it has to fail; returns the sentence.
#[track_caller]
pub(crate) fn refusal(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "not one sentence: {said}");
    said.strip_prefix("observer: ").unwrap().trim_end().to_owned()
}

/// Another HTTP process than this one, that serves.
pub(crate) fn another_http_process(server: &Server, before: u32) -> u32 {
    eventually("another HTTP process", || server.http_pid().filter(|pid| *pid != before))
}
