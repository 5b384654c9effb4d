//! The ABI between the kernel side and user space: the records of the ring buffer, and the settings that user space passes
//! once at load. Both sides compile these definitions: each layout is defined once.
//!
//! Rules: `repr(C)`, integers and byte arrays only, no implicit padding, sizes asserted at compile time.

#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
