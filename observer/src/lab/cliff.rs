//! The cost of connect() as the port range fills.

use std::net::SocketAddrV4;

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, Point},
    session::Session,
    stage::{self, LOCALHOST},
    worker::request::{ClientBind, Connect},
};
use crate::model::{limit::LimitKind, units::grouped};

/// The range is divided into this many parts. Each is a point of the curve.
const PARTS: u32 = 20;
/// The least duration in the slow half that confirms the claim, in percent of the fast half.
const SLOWER: u64 = 150;
/// Up to this, the difference may be noise, in percent of the fast half.
const CLEAR: u64 = 200;

pub(super) static LAB: Lab = Lab {
    name: "cliff",
    claim: "connect() gets many times slower when half of the ports towards a destination are in use, not when all are",
    theory: &[
        "connect() looks for a port in two passes. The first pass tries every second port of the range (the parity of \
         the lowest one). The second pass tries the others, which the kernel keeps for bind() as long as possible \
         (since Linux 4.2).",
        "While the first half has free ports, connect() finds one after a few tries. When the first half is in use, \
         each connect() tries all of it first, thousands of ports one by one, before it tries the other half.",
        "Therefore warn at 50 %, not at 90 %. A program that retries at a full range burns a processor: a \
         connect() that fails has tried both halves.",
    ],
    limits: &[LimitKind::Ports],
    scale: Scale { least: 4_000, usual: 28_232, most: 64_000, shrinks: false },
    needs: |scale| Ok(Needs::of_connections(scale)),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let range = stage::narrow_range(session.scale)?;
    let ports = range.size();
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let listener = stage::listen_long(at)?;
    session.workers.serve(&listener, ports)?;

    session.step(format!(
        "connect() has {} ports towards {at}. Use them all, and time every connect().",
        grouped(ports.into())
    ))?;
    session.theory(format!(
        "Fast up to {} connections, which is 50 %. From there on, each connect() first tries {} ports that are in use.",
        grouped((ports / 2).into()),
        grouped((ports / 2).into())
    ))?;
    for part in 0..PARTS {
        let most = ports * (part + 1) / PARTS - ports * part / PARTS;
        let connected = session.workers.connect(Connect { to: at, most, bind: ClientBind::Nothing })?;
        anyhow::ensure!(connected.opened == most, "the kernel refused connect() in part {part} of the range");
        session.curve.push(Point { used_percent: 100 * part / PARTS, connect_median_ns: connected.connect_median_ns });
        session.show_curve()?;
    }

    session.step("Compare the two halves.")?;
    let half = |is_slow: bool| {
        let points = session.curve.iter().filter(|point| (point.used_percent >= 50) == is_slow);
        let mut nanos: Vec<u64> = points.map(|point| point.connect_median_ns).collect();
        nanos.sort_unstable();
        nanos[nanos.len() / 2]
    };
    let (fast, slow) = (half(false), half(true));
    let percent = slow * 100 / fast.max(1);
    let jump = session.curve.iter().find(|point| point.connect_median_ns > 2 * fast).map(|point| point.used_percent);
    session.kernel(format!(
        "connect() takes {} µs in the first half (median) and {} µs in the second: {}.{} times as long.",
        grouped(fast / 1_000),
        grouped(slow / 1_000),
        percent / 100,
        percent % 100 / 10
    ))?;
    if let Some(jump) = jump {
        session.kernel(format!("The curve jumps at {jump} %."))?;
    }
    session.check(Check::above("time in the slow half, in % of the fast half", SLOWER, percent));
    if percent <= CLEAR {
        session.inconclusive_reason = Some(format!(
            "connect() took {percent} % as long in the second half as in the first, which may be noise. Use a wider \
             range (--scale) or a quieter machine"
        ));
    }
    session.measurement("median connect() time, fast half", fast, "ns");
    session.measurement("median connect() time, slow half", slow, "ns");
    if let Some(jump) = jump {
        session.measurement("where the curve jumps", jump.into(), "% in use");
    }
    Ok(())
}
