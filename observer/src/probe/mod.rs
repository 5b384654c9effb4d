//! What this kernel can do: its field offsets, the attach methods that work, and the attached programs.
//!
//! `kernel` reads BTF. `attach` loads the object and tries the attach methods of `model::hook::HOOKS` in order, each with
//! `program`. `plan` holds the choices of `--attach`.

pub mod attach;
pub mod btf;
pub mod calls;
pub mod error;
mod iterator;
pub mod kernel;
pub mod offsets;
pub mod plan;
mod probe_link;
mod program;
mod program_counts;
mod system_call;
mod tracefs;
