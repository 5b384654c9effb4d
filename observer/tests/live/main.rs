//! Real eBPF against real sockets, each test in its own network namespace. The truth is what `ss` and the kernel say.
//! Needs root; without it every test fails and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod acceptors;
mod adversarial;
mod attach_methods;
mod calls;
mod cgroups;
mod churn;
mod connections;
mod cost;
mod counts;
mod devices;
mod drops;
mod failures;
mod fd_owners;
mod findings;
mod forecasts;
mod headroom;
mod hits;
mod kernel_text;
mod labs;
mod limits;
mod many_namespaces;
mod names;
mod namespaces;
mod owners;
mod pid_namespaces;
mod port_owners;
mod ports;
mod privileges;
mod processes;
#[path = "../program/mod.rs"]
mod program;
mod random;
mod recorder;
mod recording;
mod refusals;
mod refused;
mod rest;
mod scale;
mod slow_reader;
mod sockets;
mod ss;
mod streams;
mod stuck;
mod support;
mod throwaway;
mod time_namespaces;
mod time_wait;
