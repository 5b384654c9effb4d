//! What the process that speaks HTTP has, by /proc.

use std::{collections::BTreeMap, fs};

use super::server::Server;

fn status(pid: u32) -> BTreeMap<String, String> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
}

fn parse(status: &str) -> BTreeMap<String, String> {
    status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The status of each thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread that enters a namespace may have ended.
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    statuses.map(|status| parse(&status)).collect()
}

/// What each descriptor of a process is, sorted.
fn descriptors(pid: u32) -> Vec<String> {
    let listing = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = listing.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let mut all: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

/// The inode of the listener of a port, by /proc/net/tcp.
fn listener_inode(port: u16) -> String {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let suffix = format!(":{port:04X}");
    let row = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let row = row.into_iter().find(|row| row[1].ends_with(&suffix) && row[3] == "0A").unwrap();
    format!("socket:[{}]", row[9])
}

#[test]
fn the_http_process_has_no_capability_no_file_and_no_other_user() {
    let server = Server::start();
    let pid = server.http_pid().unwrap();
    let status = status(pid);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    let nobody = ["65534"; 4].join("\t");
    let expected =
        [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Uid", &nobody), ("Gid", &nobody), ("Groups", ""), ("Threads", "1")];
    for (key, value) in expected {
        assert_eq!(status[key], value, "{key}");
    }
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "observer-http\n");
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty(), "it has an environment");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for limit in ["Max core file size", "Max file size", "Max processes"] {
        let row = limits.lines().find_map(|row| row.strip_prefix(limit)).unwrap();
        assert_eq!(row.split_ascii_whitespace().next(), Some("0"), "{limit}");
    }
    server.assert_serves();
    let (listener, unix) = (listener_inode(server.address.unwrap().port()), unix_sockets());
    let mut listeners = 0;
    for descriptor in descriptors(pid) {
        let is_listener = descriptor == listener;
        listeners += u32::from(is_listener);
        let is_known = is_listener
            || ["/dev/null", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"].contains(&descriptor.as_str())
            // Its channel, and that on which tokio would hear of signals: Unix sockets without a name.
            || unix.contains(&descriptor)
            || is_closing(&descriptor);
        assert!(is_known, "the HTTP process has {descriptor}");
    }
    assert_eq!(listeners, 1);
    let bpf: Vec<String> = descriptors(server.pid()).into_iter().filter(|name| name.contains("bpf")).collect();
    assert!(bpf.len() > 3, "the engine process has them: {bpf:?}");
}

#[test]
fn each_thread_of_the_engine_process_gives_up_its_rights() {
    /// CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN.
    const OF_ENGINE: &str = "0000000000281004";
    const NONE: &str = "0000000000000000";
    let server = Server::start();
    server.assert_serves();
    // The thread that attached has been joined, and may still be leaving its mount namespace.
    let threads = super::eventually("threads without new privileges", || {
        let threads = threads(server.pid());
        threads.iter().all(|status| status["NoNewPrivs"] == "1").then_some(threads)
    });
    let nobody = ["65534"; 4].join("\t");
    let mut kept = BTreeMap::new();
    for status in threads {
        let none = [("CapInh", NONE), ("CapBnd", NONE), ("CapAmb", NONE), ("Groups", "")];
        for (key, value) in none.into_iter().chain([("NoNewPrivs", "1"), ("Uid", &nobody), ("Gid", &nobody)]) {
            assert_eq!(status[key], value, "{key}: {status:#?}");
        }
        assert_eq!(status["CapPrm"], status["CapEff"]);
        kept.insert(status["Name"].clone(), status["CapEff"].clone());
    }
    assert_eq!(kept["observer"], NONE, "the thread that renders");
    assert_eq!(kept["engine"], OF_ENGINE);
}

/// Every Unix socket without a name.
fn unix_sockets() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        (columns.len() == 7).then(|| format!("socket:[{}]", columns[6]))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// A connection that curl has just closed: its socket is in no table any more, or in CLOSE_WAIT.
fn is_closing(descriptor: &str) -> bool {
    let Some(inode) = descriptor.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else { return false };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).find(|row| row[9] == inode);
    row.is_some_and(|row| row[3] != "0A")
}

/// The version of this kernel's Landlock, by its own answer; `None` where it has none.
fn landlock_version() -> Option<i64> {
    const ASK_FOR_VERSION: libc::c_uint = 1;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: the kernel reads no memory of this process: there is no ruleset, and its length is 0.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, ASK_FOR_VERSION) };
    (version > 0).then_some(version)
}

#[test]
fn what_the_sandbox_lacks_is_on_the_page_on_standard_error_and_a_series() {
    let server = Server::start();
    // TCP came with version 4, the rest of what is restricted with 6.
    let (lack, missing) = match landlock_version() {
        None => (Some("this kernel has no Landlock"), [1, 1]),
        Some(..6) => (Some("this kernel has only a part of Landlock"), [0, 1]),
        Some(_) => (None, [0, 0]),
    };
    let page = server.get("/");
    let row = page.lines().find(|line| line.contains("HTTP process</th>")).unwrap();
    let said = server.said.iter().find(|line| line.contains("the HTTP process has no capability"));
    if let Some(lack) = lack {
        assert!(row.contains(&format!("no capability, few system calls; but {lack}<")), "{row}");
        assert!(said.is_some_and(|line| line.ends_with(&format!("; but {lack}"))), "{:?}", server.said);
    } else {
        assert!(row.contains("complete: no capability, no file, few system calls"), "{row}");
        assert_eq!(said, None);
    }
    let text = server.get("/metrics");
    let parts = [("landlock", missing[0]), ("whole_landlock", missing[1])].into_iter();
    for (part, missing) in parts.chain(["other_user", "no_groups", "empty_bounding_set"].map(|part| (part, 0))) {
        let line = format!("observer_http_sandbox_missing{{part=\"{part}\"}} {missing}");
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
}
