//! Real eBPF against real sockets, each test in a network namespace of its own. The truth is what `ss` and the kernel
//! say. Needs root; without it every test fails and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod acceptors;
mod churn;
mod connections;
mod failures;
mod findings;
mod headroom;
mod holders;
mod hostile;
mod labs;
mod namespaces;
mod owners;
mod pid_namespaces;
mod ports;
mod processes;
mod random;
mod recording;
mod refusals;
mod rungs;
mod scale;
mod sockets;
mod ss;
mod support;
mod throwaway;
mod walls;
