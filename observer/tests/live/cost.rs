//! `--max-cost`: hooks that cost too much are suspended, counts then come from scans alone, and hooks come back when the load has
//! gone. The truth is `ss`, and what the kernel times of its BPF programs.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use observer::{
    engine::{AfterAttach, Engine, EngineOptions, NewUser, Scans},
    model::cost::{Cost, CpuShare},
};

use crate::{
    sockets::reset,
    support::{Pairs, counted, eventually, in_private_netns, listen, options, start, truth},
};

/// Connections that are opened and reset without an end, in the namespace of the thread that starts them. Nothing is left behind.
struct Load {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(address: &'static str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let listener = listen(address, 128);
            while !stop.load(Ordering::Relaxed) {
                let client = TcpStream::connect(address).unwrap();
                let accepted = listener.accept().unwrap().0;
                reset(client.into());
                drop(accepted);
            }
        });
        Self { is_over, thread: Some(thread) }
    }

    fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// An engine that may take this share of all CPUs.
fn limited(ratio: f64, after_attach: AfterAttach) -> Engine {
    let max_cost = Some(CpuShare::from_ratio(ratio));
    start(EngineOptions { scans: Scans::Regularly, max_cost, after_attach, ..options() })
}

#[test]
fn hooks_that_cost_too_much_are_suspended_and_come_back_when_the_load_has_gone() {
    in_private_netns(|| {
        // Without rights, as the program runs: what is suspended has to come back all the same.
        let mut engine = limited(0.000_1, AfterAttach::DropRights(NewUser::Same));
        let load = Load::start("127.0.0.1:7000");
        let first = eventually(&mut engine, "suspended hooks", |snapshot| {
            snapshot.quality.cost.filter(|cost| cost.is_suspended)
        });
        assert!(first.share > first.at_most && first.suspensions == 1, "{first:?}");
        let quality = engine.snapshot(0).quality;
        assert!(quality.suspension().unwrap().contains("--max-cost 0.01 % of all CPUs"));
        // A hook may have been at work when they were suspended. A second later its record is in the ring no more.
        let between = eventually(&mut engine, "the next look at the cost", |snapshot| {
            snapshot.quality.cost.filter(|cost| cost.skipped > first.skipped)
        });
        let events = engine.snapshot(0).quality.events_total;
        let pairs = Pairs::open("127.0.0.1:7100", "127.0.0.1:7100", 37);
        let later = eventually(&mut engine, "skipped events", |snapshot| {
            snapshot.quality.cost.filter(|cost| cost.skipped > between.skipped + 1_000)
        });
        assert!(later.is_suspended, "the load goes on: {later:?}");
        assert_eq!(engine.snapshot(0).quality.events_total, events, "no hook has recorded anything");
        load.end();
        // Ten seconds are left for a scan, which comes every five.
        eventually(&mut engine, "the counts of ss, by scans alone", |snapshot| {
            let is_suspended = snapshot.quality.cost.is_some_and(|cost| cost.is_suspended);
            (is_suspended && counted(snapshot) == truth()).then_some(())
        });
        assert_eq!(engine.snapshot(0).quality.events_total, events);
        let last = eventually(&mut engine, "hooks again", |snapshot| {
            snapshot.quality.cost.filter(|cost| !cost.is_suspended && !snapshot.quality.is_unhealed())
        });
        assert!(last.suspensions == 1 && last.skipped >= later.skipped, "{last:?}");
        let more = Pairs::open("127.0.0.1:7101", "127.0.0.1:7101", 5);
        eventually(&mut engine, "the counts of ss, and events", |snapshot| {
            (counted(snapshot) == truth() && snapshot.quality.events_total > events).then_some(())
        });
        drop((pairs, more));
    });
}

#[test]
fn what_hooks_cost_is_what_the_kernel_times() {
    in_private_netns(|| {
        let mut engine = limited(1.0, AfterAttach::KeepRights);
        let figure = engine.snapshot(0).quality.cost.unwrap();
        assert!(!figure.is_measured && figure.hook_ns > 0);
        let load = Load::start("127.0.0.1:7000");
        let measured: Cost =
            eventually(&mut engine, "a measurement", |snapshot| snapshot.quality.cost.filter(|cost| cost.is_measured));
        load.end();
        // An empty program takes 20 ns and more, and no program of ours reads for 20 µs.
        assert!((20..20_000).contains(&measured.hook_ns), "{measured:?}");
        assert!(measured.share.ratio() > 0.0 && !measured.is_suspended, "{measured:?}");
    });
}
