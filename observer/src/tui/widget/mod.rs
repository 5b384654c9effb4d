//! The parts around a screen.

pub(crate) mod explain;
pub(crate) mod gauge;
pub(crate) mod header;
pub(crate) mod headroom;
pub(crate) mod help;
pub(crate) mod limits;
pub(crate) mod parts;
pub(crate) mod quality;
pub(crate) mod timeline;
pub(crate) mod transcript;
