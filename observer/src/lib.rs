//! `observer`: a live TCP socket observer for Linux.
//!
//! The code follows the data:
//!
//! - `probe`: what this kernel can do; loads and attaches the BPF programs of the crate `observer-ebpf`.
//! - `source`: records of the ring buffer, written by hooks and by scans alike.
//! - `decode`: records to events. With `probe` the only place that knows the ABI.
//! - `model`: events to counts. Pure: no clock, no IO.
//! - `engine`: owns source and model, publishes snapshots.
//! - `tui`, `export`, `doctor`: what people and scripts see.
//! - `host`: readers of /proc and sysctls. `cli`: the command line.

pub mod cli;
pub mod decode;
pub mod doctor;
pub mod engine;
pub mod export;
pub mod host;
pub mod logging;
pub mod model;
pub mod probe;
pub mod screen;
pub mod source;
pub mod tui;
