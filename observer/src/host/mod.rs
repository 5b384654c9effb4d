//! Readers of the host, one concern each: they parse what the kernel shows as text, and hold no state.

pub mod addresses;
pub mod cgroup;
pub mod clock;
pub mod conntrack;
pub mod descriptors;
pub mod devices;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod handle;
pub(crate) mod helper;
pub mod listening;
#[cfg(feature = "otlp")]
pub mod machine;
pub mod memory;
pub(crate) mod mib;
pub mod mounts;
pub mod namespace_id;
pub mod namespaces;
pub mod netns;
pub mod open_sockets;
pub mod pid_namespace;
pub mod privileges;
pub mod proc;
pub mod processes;
pub mod rights;
pub mod text;
