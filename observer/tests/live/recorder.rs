//! The flight recorder: `observer record --keep`, what it leaves, and what `replay` and `report` say of that.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    processes::{output, start_program},
    program::{OBSERVER, copy_for_everyone},
    support::{in_private_netns, run, set_sysctl, truth, wait_until},
};

const SERVER: &str = "127.0.0.1:7000";
const MIB: u64 = 1 << 20;

/// A running recorder; killed when dropped.
struct Recorder {
    child: Child,
    #[expect(dead_code, reason = "its standard input")]
    line: UnixStream,
    path: PathBuf,
    /// Its standard error.
    said: PathBuf,
    #[expect(dead_code, reason = "its standard error is in it")]
    folder: tempfile::TempDir,
}

impl Recorder {
    /// In the calling thread's namespace. Waits until it records.
    fn start(path: &Path, bounds: &[&str]) -> Self {
        // The shell opens the file: no descriptor of this process reaches the program.
        let folder = folder();
        let said = folder.path().join("said");
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 2> "$SAID""#, OBSERVER, "record", "--own-netns"]).args(bounds).arg(path);
        command.env("SAID", &said).env_remove("SUDO_UID").env_remove("SUDO_GID");
        let (child, line) = start_program(&mut command).unwrap();
        let recorder = Self { child, line, path: path.to_owned(), said, folder };
        // Hooks are attached before it, and the first chunk is written after the first scan.
        wait_until("a segment", || recorder.segments().last().is_some_and(|(_, bytes)| *bytes > 1_000));
        recorder
    }

    /// By name, with their bytes.
    fn segments(&self) -> Vec<(String, u64)> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            // It may have gone meanwhile, or have got its name.
            if let Some(file) = entry.metadata().ok().filter(fs::Metadata::is_file) {
                segments.push((name, file.len()));
            }
        }
        segments.sort();
        segments
    }

    fn incidents(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.join("incidents")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn signal(&self, signal: &str) {
        run("kill", &[signal, &self.child.id().to_string()]);
    }

    /// Ends it; what it said.
    fn end(mut self) -> String {
        self.signal("-INT");
        let status = self.child.wait().unwrap();
        let said = fs::read_to_string(&self.said).unwrap();
        assert!(status.success(), "{said}");
        said
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a folder takes, each file once, whatever its names: by blocks as `du` has it, and by length.
fn room(path: &Path, files: &mut BTreeMap<u64, u64>) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    files.insert(found.ino(), (found.blocks() * 512).max(if found.is_file() { found.len() } else { 0 }));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        room(&entry.path(), files);
    }
}

fn bytes_in(path: &Path) -> u64 {
    let mut files = BTreeMap::new();
    room(path, &mut files);
    files.values().sum()
}

/// A folder that every user may enter.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Connections that come and go.
fn churn(listener: &TcpListener, count: usize) {
    for _ in 0..count {
        let client = TcpStream::connect(SERVER).unwrap();
        let (server, _) = listener.accept().unwrap();
        crate::sockets::reset(client.into());
        drop(server);
    }
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// RFC 3339.
fn time(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// How many ports are in use towards the fullest destination, and how many there are.
fn ports(json: &Value) -> (u64, u64) {
    let limits = json["limits"].as_array().unwrap();
    let ports = limits.iter().find(|limit| limit["kind"] == "ports").unwrap();
    (ports["used"].as_u64().unwrap(), ports["maximum"].as_u64().unwrap())
}

/// Takes every port towards the server, and then tries so often in vain.
fn exhaust(listener: &TcpListener, in_vain: usize) -> (Vec<TcpStream>, usize) {
    let mut kept = Vec::new();
    let mut refused = 0;
    while refused < in_vain {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        match socket.connect(&SERVER.parse::<SocketAddr>().unwrap().into()) {
            Ok(()) => kept.extend([socket.into(), listener.accept().unwrap().0]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
                refused += 1;
            }
        }
    }
    (kept, refused)
}

#[test]
fn ports_that_ran_out_under_the_recorder_are_shown_afterwards_without_rights() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        let folder = folder();
        let path = folder.path().join("recorder");
        let recorder = Recorder::start(&path, &["--keep", "1m", "--max-bytes", "2M"]);
        let listener = TcpListener::bind(SERVER).unwrap();
        let (kept, mut refused) = exhaust(&listener, 50);
        assert_eq!(kept.len(), 200, "as many connections as the range has ports");
        wait_until("an incident", || {
            // Rates need calls in more than one second.
            refused += exhaust(&listener, 1).1;
            recorder.incidents().iter().any(|name| name.ends_with("-ports-exhausted"))
        });
        // Its name has the next whole second: in all that is recorded no port becomes free.
        let said = recorder.end();
        drop(kept);
        assert!(said.contains("1 incidents are there") && !said.contains("lost"), "{said}");
        let (_dir, program) = copy_for_everyone();
        let observer = |args: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                "--bounding-set=-all",
            ]);
            output(command.arg(&program).args(args).env("TZ", "UTC")).unwrap()
        };
        let name = path.to_str().unwrap();
        let worst = json(&observer(&["replay", name, "--incident", "1", "--json"]));
        assert_eq!(ports(&worst), (100, 100));
        let kind = |json: &Value| ["kind", "errno"].map(|key| json["failures"][0][key].clone());
        assert_eq!(kind(&worst), ["ports_exhausted", "EADDRNOTAVAIL"].map(Value::from));
        // The end of it has all that the kernel refused.
        let end = json(&observer(&["replay", name, "--json"]));
        assert_eq!(end["failures_total"], refused);
        // The same moment by its time, which has milliseconds: the last calls may be later.
        let at = worst["taken_at"].as_str().unwrap();
        let by_time = json(&observer(&["replay", name, "--at", at, "--json"]));
        assert_eq!((ports(&by_time), kind(&by_time)), (ports(&worst), kind(&worst)));
        let report = json(&observer(&["report", name, "--json"]));
        let [failures, incidents, limits] =
            ["failures", "incidents", "limits"].map(|key| report[key].as_array().unwrap());
        assert_eq!((failures.len(), &failures[0]["count"]), (1, &refused.into()));
        assert_eq!((incidents.len(), &incidents[0]["what"]), (1, &"ports exhausted".into()));
        assert_eq!(ports(&report), (100, 100));
        let highest = limits.iter().find(|limit| limit["kind"] == "ports").unwrap();
        assert_eq!(highest["level"], "exhausted");
        // The same under pseudonyms.
        let public = folder.path().join("public");
        let public = public.to_str().unwrap();
        let rewritten = output(Command::new(OBSERVER).args(["replay", "--anonymize", public, name])).unwrap();
        assert!(rewritten.status.success(), "{rewritten:?}");
        let as_root = |args: &[&str]| json(&output(Command::new(OBSERVER).args(args)).unwrap());
        let anonymized = as_root(&["replay", public, "--incident", "1", "--json"]);
        assert_eq!((ports(&anonymized), kind(&anonymized)), (ports(&worst), kind(&worst)));
        let anonymized = as_root(&["report", public, "--json"]);
        assert_eq!((&anonymized["incidents"], ports(&anonymized)), (&report["incidents"], ports(&report)));
        assert_eq!(anonymized["failures"][0]["count"], refused);
        let table = String::from_utf8(observer(&["report", name]).stdout).unwrap();
        assert!(table.contains("connect() EADDRNOTAVAIL") && table.contains("ports exhausted"), "{table}");
        for (args, words) in [
            (["--at", "1999-12-31 23:59"], "1999-12-31 23:59:00 is not in "),
            (["--incident", "7"], "has no incident 7: it has 1"),
        ] {
            let refused = observer(&[&["replay", name][..], &args].concat());
            let said = String::from_utf8(refused.stderr).unwrap();
            assert!(refused.status.code() == Some(2) && said.contains(words) && said.lines().count() == 1, "{said}");
        }
    });
}

#[test]
fn under_load_the_bound_holds_the_oldest_go_and_what_a_killed_recorder_leaves_is_replayed() {
    in_private_netns(|| {
        let folder = folder();
        let path = folder.path().join("recorder");
        let mut recorder = Recorder::start(&path, &["--max-bytes", "1M"]);
        let listener = TcpListener::bind(SERVER).unwrap();
        let mut most = 0;
        let mut look = || most = bytes_in(&path).max(most);
        // More at once than a segment may have.
        for _ in 0..50 {
            churn(&listener, 200);
            look();
        }
        wait_until("the end of the oldest segment", || {
            look();
            // A segment that is large enough gets no more: its successor begins with a round of scans, for which a machine that is
            // busy with tests has little time.
            if recorder.segments().last().is_some_and(|(_, bytes)| *bytes < MIB / 8) {
                churn(&listener, 100);
            }
            recorder.segments().first().is_some_and(|(name, _)| !name.starts_with("00000001-"))
        });
        assert!(most > MIB / 2 && most <= MIB, "{most} bytes");
        recorder.signal("-KILL");
        recorder.child.wait().unwrap();
        let left = recorder.segments();
        assert!(left.last().unwrap().0.contains(".part"), "{left:?}");
        let replayed =
            json(&output(Command::new(OBSERVER).args(["replay", path.to_str().unwrap(), "--json"])).unwrap());
        assert!(replayed["totals"]["opened_total"].as_u64().unwrap() > 200, "{}", replayed["totals"]);
        // The next recorder goes on with it, within the bound.
        let recorder = Recorder::start(&path, &["--max-bytes", "1M"]);
        wait_until("its first segment", || {
            recorder.segments().last().is_some_and(|(name, _)| name.contains(".part") && *name > left.last().unwrap().0)
        });
        let parts = recorder.segments().into_iter().filter(|(name, _)| name.contains(".part")).count();
        assert_eq!(parts, 1, "what was left has its name");
        recorder.end();
        assert!(bytes_in(&path) <= MIB);
        let observer = |args: &[&str]| output(Command::new(OBSERVER).args(args).env("TZ", "UTC")).unwrap();
        let name = path.to_str().unwrap();
        let report = json(&observer(&["report", name, "--json"]));
        assert_eq!(report["spans"].as_array().unwrap().len(), 2);
        // Under pseudonyms segments follow each other as before, and what was lost stays lost.
        let public = folder.path().join("public");
        let public = public.to_str().unwrap();
        assert!(observer(&["replay", "--anonymize", public, name]).status.success());
        assert!(bytes_in(Path::new(public)) > 0);
        let anonymized = json(&observer(&["report", public, "--json"]));
        for key in ["spans", "peak_sockets", "lost", "failures_total"] {
            assert_eq!(anonymized[key], report[key], "{key}");
        }
        let [before, after] = [name, public].map(|path| json(&observer(&["replay", path, "--json"])));
        assert_eq!(after["totals"], before["totals"]);
    });
}

/// A filesystem of its own; unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Self {
        let folder = folder();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs", folder.path().to_str().unwrap()],
        );
        Self(folder)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_the_end_of_a_segment_and_the_recorder_goes_on_when_there_is_room() {
    in_private_netns(|| {
        let tmpfs = Tmpfs::mount("2M");
        let path = tmpfs.0.path().join("recorder");
        // No segment ends by its length.
        let recorder = Recorder::start(&path, &["--keep", "5h", "--max-bytes", "64M"]);
        let listener = TcpListener::bind(SERVER).unwrap();
        churn(&listener, 500);
        let before = recorder.segments();
        let ballast = tmpfs.0.path().join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        // A file that is open keeps its blocks after it is removed.
        drop(file);
        wait_until("the end of the segment", || recorder.segments().iter().all(|(name, _)| !name.contains(".part")));
        let complete = recorder.segments();
        assert!(complete.len() == before.len() && complete[0].1 >= before[0].1, "{before:?} {complete:?}");
        fs::remove_file(&ballast).unwrap();
        wait_until("the next segment", || {
            let segments = recorder.segments();
            segments.len() > complete.len() && segments.iter().all(|(_, bytes)| *bytes > 0)
        });
        let said = recorder.end();
        assert!(said.contains("ENOSPC") && said.contains("inputs lost"), "{said}");
        let replayed =
            json(&output(Command::new(OBSERVER).args(["replay", path.to_str().unwrap(), "--json"])).unwrap());
        assert!(
            replayed["quality"]["stream_lost_total"].as_u64().is_some_and(|lost| lost > 0),
            "{}",
            replayed["quality"]
        );
    });
}

#[test]
fn the_report_of_a_time_without_a_socket_has_the_peak_in_that_time() {
    in_private_netns(|| {
        let folder = folder();
        let path = folder.path().join("recorder");
        Recorder::start(&path, &["--keep", "1m"]).end();
        let report = output(Command::new(OBSERVER).args(["report", path.to_str().unwrap(), "--json"])).unwrap();
        let report = json(&report);
        assert_eq!(truth().len(), 0, "no socket is there");
        assert_eq!(report["peak_sockets"]["sockets"], 0);
        // RFC 3339 in UTC: in the order of the text.
        let (span, at) = (&report["spans"][0], time(&report["peak_sockets"]["at"]));
        assert!(time(&span["from"]) <= at && at <= time(&span["to"]), "{report}");
    });
}
