//! `observer`: a live TCP socket observer for Linux.
//!
//! # From a hook to a number on the screen
//!
//! 1. A BPF program of the crate `observer-ebpf` runs at a hook and writes a record to the ring buffer. `probe` loaded and
//!    attached it. Scans are iterator programs that write to the same ring buffer.
//! 2. `engine` polls. [`source::live::Live::drain`] hands each record to `engine/feed.rs` as an [`input::Input`], where a
//!    recording can keep it.
//! 3. [`input::apply`] is the only way into the model. [`decode::event`] turns the bytes into a [`model::event::Event`].
//! 4. [`model::Model::apply`] changes one socket and the totals that it counts in.
//! 5. [`engine::Engine::snapshot`] copies the totals into a [`model::snapshot::Snapshot`], which never changes.
//! 6. `tui` draws the snapshot, or `export` prints it. Both read it only.
//!
//! To follow one number, start at its column, read the field of the snapshot row that it shows, and search `model` for the
//! place that sets this field.
//!
//! # Modules, in the order of the data
//!
//! - `probe`: what this kernel can do. Loads and attaches the programs of the table [`model::hook::HOOKS`].
//! - `source`: records of the ring buffer, from hooks and from scans.
//! - `decode`: records to events.
//! - `input`: everything that goes into the model, from a live engine or from a recording.
//! - `model`: events to counts, limits, findings and data quality.
//! - `engine`: owns the source and the model, schedules scans, publishes snapshots.
//! - `recording`: inputs in a file. `record` writes it, `replay` plays it, `anonymize` takes addresses and names out of it.
//! - `report`: a replay of all that a recorder has kept, in sums and peaks.
//! - `present`: each quantity's id, title, unit, help and value, defined once.
//! - `frame`: a snapshot and where it is seen from, live or in a recording; every output is made of one.
//! - `tui`, `screen`: the live screen. `export`: tables, JSON, the check line, series. `doctor`: what works on this host.
//! - `serve`: documents over HTTP, from a process without rights, and inputs for viewers. `attach`: such a viewer.
//! - `lab`: experiments that test a claim, and compare it with what observer says and what the kernel does.
//! - `host`: readers of /proc, sysctls and netlink. `errno`: errors in words.
//! - `cli`, `config`: the command line and the settings. `logging`: the log file.
//! - `outlet`, `new_file`, `last_words`: writes to terminals that may be stopped, to new files, and after a panic.
//!
//! # Entry points
//!
//! `main.rs` parses [`cli::Cli`] and runs one command. Most commands start an [`engine::Engine`] or open a
//! [`recording::Reader`]; both give snapshots. [`doctor::run`] and the labs have an entry of their own.
//! [`serve::run_if_asked`] and [`lab::worker::run_if_asked`] are the entries of processes that observer starts itself.
//!
//! # Invariants
//!
//! - One ring buffer keeps the order: records of scans and hooks about one socket stand in their true order.
//! - `model` is pure: no clock, no IO. The same inputs give the same snapshots, live and replayed.
//! - Every loss is counted where it happens, and shown. Scans repair what losses left wrong, and count it as drift.
//! - Only `decode` and `probe` know the records of `observer-ebpf`. Only `probe` and `source` name aya.
//! - Only `host/text.rs` reads files of /proc and /sys.
//! - Drawing changes nothing.
//!
//! `tests/tidy.rs` holds those that a search can hold. `docs/architecture.md` gives the reasons, `docs/CONTRIBUTING.md` the
//! files to touch for a change.

pub mod anonymize;
pub mod attach;
pub mod cli;
pub mod config;
pub mod decode;
pub mod doctor;
mod end_signals;
pub mod engine;
pub mod errno;
pub mod export;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
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
pub mod report;
pub mod screen;
pub mod serve;
pub mod source;
pub mod tui;
