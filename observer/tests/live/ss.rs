//! Parses the output of `ss`.

use std::net::{IpAddr, SocketAddr};

use observer::model::units::TcpState;

use crate::support::run;

/// State and local address of every socket that `ss` shows in the calling thread's namespace.
pub(crate) fn ss() -> Vec<(TcpState, SocketAddr)> {
    parse(&run("ss", &["-Htan"]))
}

/// How many sockets are in this state: a state filter of `ss`, like `time-wait` or `connected exclude time-wait`.
pub(crate) fn sockets_in(state: &str) -> usize {
    let args: Vec<&str> = ["-Htan", "state"].into_iter().chain(state.split(' ')).collect();
    run("ss", &args).lines().count()
}

/// How many connections have a full `struct sock`. A TIME_WAIT and most FIN_WAIT2 have an
/// `inet_timewait_sock`, which has its own timer; a SYN_RECV without an inode is a `request_sock`.
pub(crate) fn full_sockets() -> usize {
    let full = |line: &&str| match line.split(' ').next() {
        Some("LISTEN") => false,
        Some("SYN-RECV") => !line.contains(" ino:0 "),
        _ => !line.contains("timer:(timewait,"),
    };
    run("ss", &["-Htanoe"]).lines().filter(full).count()
}

/// The same of what `ss -Htan` has printed elsewhere.
pub(crate) fn parse(text: &str) -> Vec<(TcpState, SocketAddr)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (state(words[0]), address(words[3]))
    };
    text.lines().map(line).collect()
}

/// `ss` has its own spelling of states.
fn state(name: &str) -> TcpState {
    match name {
        "ESTAB" => TcpState::Established,
        "SYN-SENT" => TcpState::SynSent,
        "SYN-RECV" => TcpState::SynReceived,
        "FIN-WAIT-1" => TcpState::FinWait1,
        "FIN-WAIT-2" => TcpState::FinWait2,
        "TIME-WAIT" => TcpState::TimeWait,
        "CLOSE-WAIT" => TcpState::CloseWait,
        "LAST-ACK" => TcpState::LastAck,
        "LISTEN" => TcpState::Listen,
        "CLOSING" => TcpState::Closing,
        other => panic!("ss shows a state {other}"),
    }
}

/// "127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "*:80" (every IPv4 and IPv6 address), "127.0.0.1%lo:80".
pub(crate) fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.rsplit_once(':').unwrap();
    let ip = ip.trim_matches(['[', ']']).split('%').next().unwrap();
    let ip: IpAddr = if ip == "*" { "::".parse().unwrap() } else { ip.parse().unwrap() };
    SocketAddr::new(ip.to_canonical(), port.parse().unwrap())
}
