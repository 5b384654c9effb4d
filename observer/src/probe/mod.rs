//! What this kernel can do: its field offsets, the attach method of each hook, and the programs attached by that plan.

pub mod attach;
pub mod btf;
pub mod calls;
pub mod error;
mod failures;
pub mod offsets;
pub mod plan;
mod probe_link;
mod tracefs;
