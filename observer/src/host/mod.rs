//! Readers of the host, one concern each: they parse what the kernel shows as text, and hold no state.

pub mod clock;
pub mod files;
pub mod namespaces;
pub mod netns;
pub mod rights;
