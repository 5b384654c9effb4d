//! The seccomp profile and what strace sees the program call.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    http::get,
    kubernetes, packaging,
    pod::OBSERVER,
    runtimes::{run, wait_until},
};

/// What no observer calls, and what would help who got into it most.
const NEVER: [&str; 16] = [
    "add_key",
    "chroot",
    "delete_module",
    "execveat",
    "finit_module",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mknodat",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "reboot",
    "userfaultfd",
];

fn allowed() -> BTreeSet<String> {
    let profile: Value = serde_json::from_slice(&fs::read(packaging(kubernetes::PROFILE)).unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let groups = profile["syscalls"].as_array().unwrap().iter();
    let names = groups.flat_map(|group| group["names"].as_array().unwrap());
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// `listns`, which strace knows by its number alone.
const LISTNS: (&str, &str) = ("syscall_0x1d6", "listns");

/// The names in a file that `strace -f` wrote: `123 openat(...` and `123 <... openat resumed>`.
fn called(trace: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (_, call) = line.split_once(char::is_whitespace)?;
        let call = call.trim_start();
        let word = call.strip_prefix("<... ").map_or_else(|| call.split('('), |resumed| resumed.split(' ')).next()?;
        let is_name =
            !word.is_empty() && word.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_');
        is_name.then(|| if word == LISTNS.0 { LISTNS.1 } else { word }.to_owned())
    };
    trace.lines().filter_map(name).collect()
}

#[test]
fn the_seccomp_profile_allows_what_the_program_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (trace, socket) = (dir.path().join("trace"), dir.path().join("socket"));
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&trace).args([OBSERVER, "serve", "--listen", &address.to_string()]);
    strace.arg("--listen").arg(format!("unix:{}", socket.display()));
    let mut strace = strace.stdin(Stdio::null()).spawn().expect("strace is needed");
    for path in ["/metrics", "/snapshot", "/", "/-/healthy", "/-/ready", "/none"] {
        let mut answer = None;
        wait_until(path, || {
            answer = get(address, path);
            answer.is_some() || path == "/none"
        });
    }
    let observer = run(Command::new("pgrep").args(["--parent", &strace.id().to_string()]));
    run(Command::new("kill").args(["-TERM", observer.trim()]));
    assert!(strace.wait().unwrap().success());
    let called = called(&fs::read_to_string(&trace).unwrap());
    let allowed = allowed();
    assert!(called.contains("bpf") && called.contains("accept4") && called.contains("unlink"), "{called:?}");
    assert_eq!(called.difference(&allowed).collect::<Vec<_>>(), Vec::<&String>::new());
    let never: Vec<&&str> = NEVER.iter().filter(|name| allowed.contains(**name)).collect();
    assert!(never.is_empty(), "{never:?}");
}
