//! Calls that the kernel refuses, the counters that it keeps of refusals, and the failure rows that observer makes of
//! them.

use std::{fs, io, net::SocketAddr};

use observer::{
    engine::Engine,
    model::{
        failure::{FailureKind, FailureRow},
        quality::Losses,
        snapshot::Snapshot,
    },
};
use socket2::{Domain, Socket, Type};

use crate::support::eventually;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// The errno of a call that must fail.
pub(crate) fn errno<T>(result: io::Result<T>) -> i32 {
    result.err().expect("the call is refused").raw_os_error().unwrap()
}

/// The failure rows of this process, once they count `count`. No record of them was lost.
pub(crate) fn refused(engine: &mut Engine, kind: FailureKind, count: u64) -> Vec<FailureRow> {
    let of_kind = |snapshot: &Snapshot| -> Vec<FailureRow> {
        snapshot.failures.iter().filter(|row| row.key.kind == kind).cloned().collect()
    };
    let rows = eventually(engine, &format!("{count} of {kind:?}"), |snapshot| {
        let rows = of_kind(snapshot);
        (rows.iter().map(|row| row.count).sum::<u64>() >= count).then_some(rows)
    });
    engine.poll().unwrap();
    let snapshot = engine.snapshot(0);
    assert_eq!(of_kind(&snapshot), rows, "each failure is reported once");
    assert_eq!(Losses { missed: None, ..snapshot.quality.losses }, Losses::default());
    for row in &rows {
        assert_eq!(row.key.process.unwrap().pid.0, std::process::id());
    }
    rows
}

/// The row of a kind, once it counts `count`. Refusals on the kernel's own account have no process.
pub(crate) fn counted(engine: &mut Engine, kind: FailureKind, count: u64) -> FailureRow {
    eventually(engine, &format!("{count} of {kind:?}"), |snapshot| {
        snapshot.failures.iter().find(|row| row.key.kind == kind && row.count == count).cloned()
    })
}

/// A counter of the group `TcpExt` in the calling thread's namespace, under `nstat`'s name.
pub(crate) fn kernel_counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let column = names.split_whitespace().position(|other| other == name).unwrap();
    values.split_whitespace().nth(column).unwrap().parse().unwrap()
}
