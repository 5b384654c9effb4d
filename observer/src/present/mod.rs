//! Each quantity that people and scripts see, defined once: its id, title, unit, help, source and value.
//!
//! - `field`: what a definition is, and how the widths of a table follow from its fields.
//! - `endpoint`, `destination`, `process`, `service`, `connection`, `limit`, `failure`: the fields of each kind of row.
//! - `metric`: every series that Prometheus gets.
//! - `cell`: a value of a row, drawn, compared and dimmed alike everywhere.
//! - `sort`: rows in the order of a field.
//! - `format`, `scope`, `sparkline`, `labelled`: numbers, addresses, scopes, a minute and labels as text.
//!
//! The screens, the `i` explanations, the plain tables, `--sort` and `docs/metrics.md` read these definitions.
//!
//! **Invariant**: this module knows the model only; no terminal, no clock, no IO.

pub(crate) mod cell;
pub(crate) mod connection;
pub(crate) mod destination;
pub(crate) mod endpoint;
pub(crate) mod failure;
pub(crate) mod field;
pub(crate) mod format;
pub(crate) mod labelled;
pub(crate) mod limit;
pub(crate) mod metric;
pub(crate) mod process;
pub(crate) mod scope;
pub(crate) mod service;
pub(crate) mod sort;
pub(crate) mod sparkline;

#[cfg(test)]
mod metrics;

pub(crate) use self::{
    cell::Cell,
    field::{Field, Fields, Order, columns},
};
