//! What connect() costs as the range of ports fills.

use std::net::SocketAddrV4;

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, Point},
    session::Session,
    stage::{self, LOCALHOST},
    worker::order::{Bind, Connect},
};
use crate::model::{limit::LimitKind, units::grouped};

/// Into so many parts the range is divided: each is a point of the curve.
const PARTS: u32 = 20;
/// The dear half is dearer by at least this, in percent of the cheap one.
const DEARER: u64 = 150;
/// Less than this is not told from noise.
const CLEAR: u64 = 200;

pub(super) static LAB: Lab = Lab {
    name: "cliff",
    claim: "connect() gets many times dearer when half of the ports towards a destination are in use, not when all are",
    theory: &[
        "connect() looks for a port in two passes: first every second port of the range (those with the parity of its lowest \
         one), then the others, which are kept for bind() as long as possible. This is so since Linux 4.2.",
        "While the first half has free ports, one is found after a few tries. When it is used up, each connect() walks it \
         from end to end in vain before it tries the other half: thousands of ports, one by one.",
        "So the warning belongs at 50 %, not at 90 %. And a program that retries at a full range burns a processor: a \
         connect() that fails has walked both halves.",
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
    session.crew.serve(&listener, ports)?;

    session.step(format!(
        "connect() has {} ports towards {at}. Fill them, and time every connect().",
        grouped(ports.into())
    ))?;
    session.theory(format!(
        "Cheap up to {} connections, which is 50 %. Then each one walks {} ports in vain.",
        grouped((ports / 2).into()),
        grouped((ports / 2).into())
    ))?;
    for part in 0..PARTS {
        let most = ports * (part + 1) / PARTS - ports * part / PARTS;
        let connected = session.crew.connect(Connect { to: at, most, bind: Bind::Nothing })?;
        anyhow::ensure!(connected.opened == most, "connect() was refused in part {part} of the range");
        session.curve.push(Point { percent: 100 * part / PARTS, median_nanos: connected.median_nanos });
        session.show_curve()?;
    }

    session.step("Compare the two halves.")?;
    let half = |dear: bool| {
        let points = session.curve.iter().filter(|point| (point.percent >= 50) == dear);
        let mut nanos: Vec<u64> = points.map(|point| point.median_nanos).collect();
        nanos.sort_unstable();
        nanos[nanos.len() / 2]
    };
    let (cheap, dear) = (half(false), half(true));
    let percent = dear * 100 / cheap.max(1);
    let jump = session.curve.iter().find(|point| point.median_nanos > 2 * cheap).map(|point| point.percent);
    session.kernel(format!(
        "A connect() takes {} µs in the first half (median), {} µs in the second: {}.{} times as long.",
        grouped(cheap / 1_000),
        grouped(dear / 1_000),
        percent / 100,
        percent % 100 / 10
    ))?;
    if let Some(jump) = jump {
        session.kernel(format!("The curve jumps at {jump} %."))?;
    }
    session.check(Check::above("dear half in percent of the cheap half", DEARER, percent));
    if percent <= CLEAR {
        session.inconclusive = Some(format!(
            "the second half took {percent} % of the first: too near to be told from noise. A wider range (--scale) or a \
             quieter machine shows it"
        ));
    }
    session.fact("median connect() in the cheap half", cheap, "ns");
    session.fact("median connect() in the dear half", dear, "ns");
    if let Some(jump) = jump {
        session.fact("where it jumps", jump.into(), "% in use");
    }
    Ok(())
}
