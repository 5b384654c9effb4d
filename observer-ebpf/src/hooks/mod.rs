//! One file for each hook. The entries differ in how arguments arrive; all attach methods of a hook share one body.

mod accept;
mod connect;
mod descriptors;
mod destroy;
mod failures;
mod state;

pub(crate) use accept::sock_of_file;
