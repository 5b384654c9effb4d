//! What observer gives up once its hooks are attached, what the kernel then refuses, and what each set of capabilities shows.
//! The truth is /proc/PID/status, errno, and `ss`. docs/privileges.md has the table whose rows run here.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Lines, Read as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _, unix::net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use observer::{
    engine::{AfterAttach, Engine, EngineOptions, NewUser, Watched},
    model::capability::{BPF, CAPABILITIES, DAC_READ_SEARCH, NET_ADMIN, SYS_ADMIN, SYS_PTRACE},
};
use serde_json::Value;

use crate::{
    namespaces::hold_in_new_namespace,
    processes::start_program,
    program::{OBSERVER, copy_for_everyone},
    sockets::reset,
    support::{PATIENCE, Pairs, assert_equals_ss, in_private_netns, options, run, wait_until},
};

const PAGE: &str = include_str!("../../../docs/privileges.md");
const AT: &str = "127.0.0.1:7000";
const NOBODY: &str = "65534";

type Status = BTreeMap<String, String>;

/// /proc/PID/task/TID/status of each thread.
fn threads(pid: u32) -> Vec<Status> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A helper thread may have ended meanwhile.
    let texts = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    let status = |text: String| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
    };
    texts.map(status).collect()
}

fn set(status: &Status, key: &str) -> u64 {
    u64::from_str_radix(&status[key], 16).unwrap()
}

/// What the kernel needs beside what the mode needs: CAP_BPF before 5.19 in a set without CAP_SYS_ADMIN, and before 6.2, where
/// the size of /proc/PID/fd is 0, what lists it.
fn needs_of_old_kernels(kept: u64) -> u64 {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let is_old = (numbers.next(), numbers.next()) < (Some(5), Some(19));
    let disabled = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap();
    let bpf = is_old && disabled.trim() != "0" && !SYS_ADMIN.is_in(kept);
    let by_listing = fs::metadata("/proc/self/fd").unwrap().size() == 0;
    (if bpf { BPF.mask() } else { 0 }) | (if by_listing { SYS_PTRACE.mask() | DAC_READ_SEARCH.mask() } else { 0 })
}

const LASTING: u64 = SYS_ADMIN.mask() | SYS_PTRACE.mask() | NET_ADMIN.mask() | DAC_READ_SEARCH.mask();

/// Each thread of a running observer has given up what it must; one has what the engine keeps, and the others that or none.
#[track_caller]
fn assert_reduced(pid: u32, kept: u64, is_root: bool) {
    // The thread that attached, and those that tried what is refused without rights, have been joined and may still be leaving.
    let has_left = |status: &Status| set(status, "NoNewPrivs") == 1 && status["Name"] != "rights";
    wait_until("threads without new privileges", || threads(pid).iter().all(has_left));
    let threads = threads(pid);
    let mut most = 0;
    for status in &threads {
        let effective = set(status, "CapEff");
        assert_eq!(effective, set(status, "CapPrm"), "{status:#?}");
        assert!(effective == 0 || effective == kept, "{effective:x}, not {kept:x}: {status:#?}");
        most |= effective;
        for (key, value) in [("CapInh", 0), ("CapAmb", 0), ("NoNewPrivs", 1)] {
            assert_eq!(set(status, key), value, "{key}: {status:#?}");
        }
        // An ordinary user has no CAP_SETPCAP.
        assert!(!is_root || set(status, "CapBnd") == 0, "{status:#?}");
        for key in ["Uid", "Gid"] {
            assert_eq!(status[key].split_whitespace().collect::<Vec<_>>(), [NOBODY; 4], "{key}: {status:#?}");
        }
        assert!(!is_root || status["Groups"].is_empty(), "{status:#?}");
    }
    assert_eq!(most, kept, "the engine's thread: {threads:#?}");
}

/// `observer watch`, line by line.
struct Watch {
    child: Child,
    lines: Lines<BufReader<UnixStream>>,
}

impl Watch {
    fn start(command: &mut Command) -> Self {
        let (child, line) = start_program(command.env_remove("SUDO_UID").stdout(Stdio::null())).unwrap();
        line.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { child, lines: BufReader::new(line).lines() }
    }

    /// The first line that is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.next().expect("another line").unwrap();
            let json: Value = serde_json::from_str(&line).unwrap();
            if wanted(&json) {
                return json;
            }
            assert!(Instant::now() < deadline, "not seen: {what}: {:#}\n{:#}", json["namespaces"], json["quality"]);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn namespace(json: &Value, netns: u64) -> Option<&Value> {
    json["namespaces"].as_array().unwrap().iter().find(|row| row["netns"].as_u64() == Some(netns))
}

fn is_unread(json: &Value, kind: &str) -> bool {
    json["quality"]["unread"].as_array().unwrap().iter().any(|gap| gap["kind"] == kind)
}

fn established(json: &Value, netns: u64) -> u64 {
    namespace(json, netns).and_then(|row| row["established"].as_u64()).unwrap_or(0)
}

/// In the calling thread's namespace, by `ss`.
fn truly_established() -> u64 {
    run("ss", &["-Htn", "state", "established"]).lines().count() as u64
}

fn own_netns() -> u64 {
    u64::from(observer::host::netns::current().unwrap().0)
}

#[test]
fn each_thread_of_each_command_keeps_what_it_needs_and_no_more() {
    in_private_netns(|| {
        let dir = tempfile::tempdir().unwrap();
        let recording = dir.path().join("recording");
        for scope in [&[][..], &["--own-netns"]] {
            let kept = if scope.is_empty() { LASTING } else { 0 };
            let kept = kept | needs_of_old_kernels(kept);
            let mut command = Command::new("bash");
            command.args(["-c", "exec \"$@\" >&0", "bash", OBSERVER, "watch", "--interval", "0.1"]).args(scope);
            let mut watch = Watch::start(&mut command);
            watch.until("a line", |_| true);
            assert_reduced(watch.child.id(), kept, true);
            drop(watch);
            let mut command = Command::new(OBSERVER);
            command.args(["record", "--force"]).arg(&recording).args(scope).env_remove("SUDO_UID");
            let (mut child, _line) = start_program(command.stderr(Stdio::null())).unwrap();
            // The file has its name before the rights go.
            wait_until("the name of the recording", || recording.exists());
            wait_until("reduced threads of record", || {
                threads(child.id()).iter().all(|status| set(status, "NoNewPrivs") == 1)
            });
            wait_until("its engine has what it keeps", || {
                threads(child.id()).iter().fold(0, |most, status| most | set(status, "CapEff")) == kept
            });
            assert_reduced(child.id(), kept, true);
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            assert!(child.wait().unwrap().success(), "the recording is completed without rights");
            fs::remove_file(&recording).unwrap();
        }
    });
}

/// BPF_MAP_CREATE of an array with one element.
fn create_map() -> std::io::Result<()> {
    #[repr(C)]
    struct CreateMap {
        kind: u32,
        key_size: u32,
        value_size: u32,
        entries: u32,
    }
    let attr = CreateMap { kind: 2, key_size: 4, value_size: 4, entries: 1 };
    // SAFETY: the arm of BPF_MAP_CREATE (0), which outlives the call; its new descriptor is closed with the process.
    let made = unsafe { libc::syscall(libc::SYS_bpf, 0, &raw const attr, size_of::<CreateMap>()) };
    if made < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The rights of one thread: the other tests keep theirs.
#[test]
fn what_was_given_up_is_refused_and_counts_stay_right() {
    in_private_netns(|| {
        let mut pairs = Pairs::open(AT, AT, 5);
        let own = fs::File::open("/proc/thread-self/ns/net").unwrap();
        create_map().expect("root may create a map");
        let after_attach = AfterAttach::DropRights(NewUser::Nobody);
        let mut engine = Engine::start(EngineOptions { after_attach, watched: Watched::Own, ..options() }).unwrap();
        let entered = rustix::thread::move_into_link_name_space(own.as_fd(), None);
        assert_eq!(entered.unwrap_err(), rustix::io::Errno::PERM, "setns()");
        let root = rustix::process::Uid::ROOT;
        assert_eq!(rustix::thread::set_thread_res_uid(root, root, root).unwrap_err(), rustix::io::Errno::PERM);
        if needs_of_old_kernels(0) & BPF.mask() == 0 && unprivileged_bpf_is_disabled() {
            assert_eq!(create_map().unwrap_err().raw_os_error(), Some(libc::EPERM), "BPF_MAP_CREATE");
        }
        assert_equals_ss(&mut engine);
        pairs.more(AT, 4);
        assert_equals_ss(&mut engine);
        // Nothing that a timer ends stays behind.
        pairs.clients.split_off(3).into_iter().for_each(|client| reset(client.into()));
        assert_equals_ss(&mut engine);
        assert!(engine.snapshot(0).quality.gaps.skipped.rounds == 0);
    });
}

fn unprivileged_bpf_is_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap().trim() != "0"
}

/// A row of the page's table: capabilities, or root, and what they show.
struct Row {
    capabilities: Option<String>,
    shows: BTreeMap<&'static str, bool>,
}

fn rows() -> Vec<Row> {
    let table =
        PAGE.lines().skip_while(|line| !line.starts_with("| Capabilities |")).take_while(|line| !line.is_empty());
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let mut lines = table.map(cells);
    let head = lines.next().expect("the table of docs/privileges.md");
    let row = |cells: Vec<&'static str>| Row {
        capabilities: cells[0].strip_prefix('`').map(|set| set.trim_end_matches('`').to_owned()),
        shows: head[1..].iter().zip(&cells[1..]).map(|(title, cell)| (*title, yes_or_no(cell))).collect(),
    };
    lines.skip(1).map(row).collect()
}

fn yes_or_no(cell: &str) -> bool {
    assert!(["yes", "no"].contains(&cell), "{cell}");
    cell == "yes"
}

impl Row {
    fn mask(&self) -> u64 {
        let Some(names) = &self.capabilities else { return u64::MAX };
        let bit = |name: &str| {
            let full = format!("CAP_{}", name.to_uppercase());
            CAPABILITIES.iter().find(|capability| capability.name == full).unwrap().mask()
        };
        names.split(',').map(bit).fold(0, |set, bit| set | bit)
    }

    /// `watch` with these capabilities, where root alone may look into tracefs, as wherever it is mounted.
    fn watch(&self, program: &Path) -> Watch {
        let credentials = self.capabilities.as_ref().map_or_else(String::new, |names| {
            let only = names.replace(',', ",+");
            let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all,+{only}"));
            format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {}", sets.join(" "))
        });
        let script = format!(
            "mount -t tracefs none /sys/kernel/tracing; ulimit -l unlimited; exec {credentials} {} watch --interval 0.2 >&0",
            program.display()
        );
        Watch::start(Command::new("unshare").args(["--mount", "bash", "-c", &script]).stderr(Stdio::null()))
    }
}

/// A process that holds a namespace without sockets until its standard input is closed.
fn idle_namespace() -> (Child, UnixStream, u64) {
    let script = "echo up >&0; read end";
    let (child, mut line) = start_program(Command::new("unshare").args(["--net", "bash", "-c", script])).unwrap();
    line.read_exact(&mut [0; 3]).unwrap();
    let netns = fs::metadata(format!("/proc/{}/ns/net", child.id())).unwrap().ino();
    (child, line, netns)
}

fn compare(row: &Row, program: &Path) {
    let shows = |title: &str| row.shows[title];
    let what = row.capabilities.as_deref().unwrap_or("root");
    let mut pairs = Pairs::open(AT, AT, 3);
    let by_socket = hold_in_new_namespace(2, false);
    let (mut idle, idle_line, idle_netns) = idle_namespace();
    let mut watch = row.watch(program);
    watch.until("a line", |_| true);
    let kept = row.mask() & LASTING;
    let kept = kept | (row.mask() & needs_of_old_kernels(kept));
    assert_reduced(watch.child.id(), kept, row.capabilities.is_none());
    // All of it after the rights are gone.
    pairs.more(AT, 4);
    let (mut other, other_line, new) = idle_namespace();
    let others = connect_inside(other.id(), 5);
    let (own, held) = (own_netns(), u64::from(by_socket.netns.0));
    let is_entered = |json: &Value, netns| namespace(json, netns).is_some_and(|row| row["port_range"].is_array());
    let entered = shows("Other namespaces entered");
    let all_entered = entered && shows("Namespaces of sockets entered");
    let truth = truly_established();
    let json = watch.until(what, |json| {
        established(json, own) == truth
            && established(json, new) == 10
            && is_entered(json, own)
            && is_entered(json, new) == entered
            && is_entered(json, held) == shows("Namespaces of sockets entered")
            && namespace(json, idle_netns).is_some() == shows("Idle namespaces")
            // What is not entered is said.
            && is_unread(json, "namespaces") != all_entered
    });
    assert!(shows("Own namespace"));
    assert_eq!(is_unread(&json, "files"), !shows("Files of root") && Path::new("/proc/slabinfo").exists(), "{what}");
    let missing = json["quality"]["hooks"].as_array().unwrap().iter().any(|hook| hook["method"].is_null());
    let is_refused = !SYS_ADMIN.is_in(row.mask()) && refuses_perf_events();
    assert_eq!(missing, !shows("All hooks") || is_refused, "{what}: {:#}", json["quality"]);
    assert_eq!(is_unread(&json, "tracefs"), !shows("All hooks"), "{what}");
    for capability in json["quality"]["capabilities"].as_array().unwrap() {
        let bit = CAPABILITIES.iter().find(|one| one.name == capability["capability"]).unwrap();
        assert_eq!(capability["holding"] == "held", bit.is_in(kept), "{what}: {capability}");
        let is_missing = !bit.is_in(row.mask());
        assert_eq!(capability["holding"] == "missing", is_missing, "{what}: {capability}");
    }
    // A connection that ends is gone here too.
    pairs.clients.clear();
    pairs.accepted.clear();
    watch.until("no connection left", |json| established(json, own) == 0);
    drop((others, by_socket, idle_line, other_line));
    idle.wait().unwrap();
    other.wait().unwrap();
}

/// Connections of this process in the namespace of another.
fn connect_inside(pid: u32, count: usize) -> Pairs {
    let inside = move || {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        Pairs::open(AT, AT, count)
    };
    std::thread::spawn(inside).join().unwrap()
}

/// Debian's kernels have a level 3, at which CAP_PERFMON is not enough.
fn refuses_perf_events() -> bool {
    let level: i32 = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap().trim().parse().unwrap();
    level >= 3
}

#[test]
fn each_set_of_capabilities_shows_what_the_page_says() {
    let rows = rows();
    assert!(rows.len() >= 6 && rows.iter().all(|row| row.shows.len() == 6));
    let (_dir, program) = copy_for_everyone();
    for row in rows {
        let program = program.clone();
        in_private_netns(move || compare(&row, &program));
    }
}
