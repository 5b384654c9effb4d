//! `observer`: a live TCP socket observer for Linux.
//!
//! The code follows the data:
//!
//! - `probe`: what this kernel can do; loads and attaches the BPF programs of the crate `observer-ebpf`.
//! - `source`: records of the ring buffer, written by hooks and by scans alike.
//! - `decode`: records to events. With `probe` the only place that knows the ABI.
//! - `model`: events to counts. Pure: no clock, no IO.
//! - `input`: all that goes into the model, from a live engine or from a recording.
//! - `engine`: owns source and model, publishes snapshots.
//! - `recording`: inputs in a file; `record`, `replay`: the ways into it and out of it.
//! - `present`: each quantity's id, title, unit, help and value, defined once.
//! - `frame`: a snapshot and where it is seen from, live or in a recording; every output is made of one.
//! - `tui`, `export`, `doctor`: what people and scripts see.
//! - `lab`: experiments that put what observer says to the test.
//! - `outlet`, `new_file`: writes to terminals that may be stopped, and to names from the user.
//! - `host`: readers of /proc and sysctls. `errno`: errors in words. `cli`, `config`: the command line and the settings.

pub mod cli;
pub mod config;
pub mod decode;
pub mod doctor;
pub mod engine;
pub mod errno;
pub mod export;
pub mod frame;
pub mod host;
pub mod input;
pub mod lab;
pub mod last_words;
pub mod logging;
pub mod model;
mod new_file;
pub mod outlet;
mod present;
pub mod probe;
pub mod record;
pub mod recording;
pub mod replay;
pub mod screen;
pub mod source;
pub mod tui;
