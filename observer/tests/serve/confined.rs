//! What the process that speaks HTTP has, by /proc.

use std::{collections::BTreeMap, fs};

use super::server::Server;

fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
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

#[test]
fn the_state_page_says_how_far_it_is_confined() {
    let server = Server::start();
    let page = server.get("/");
    let row = page.lines().find(|line| line.contains("HTTP process</th>")).unwrap();
    // Standard error says it once more.
    let without_landlock = server.said.iter().any(|line| line.contains("this kernel has no Landlock"));
    assert_eq!(row.contains("this kernel has no Landlock"), without_landlock, "{row}");
    assert!(row.contains("no capability"), "{row}");
}
