//! One file a hook. Entries decide how arguments arrive; the body is shared by all rungs.

mod accept;
mod connect;
mod destroy;
mod state;

pub(crate) use accept::sock_of_file;
