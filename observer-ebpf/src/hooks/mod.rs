//! One file a hook. Entries decide how arguments arrive; the body is shared by all attach methods.

mod accept;
mod connect;
mod descriptors;
mod destroy;
mod failures;
mod state;

pub(crate) use accept::sock_of_file;
pub(crate) use failures::Call;
