//! The ABI between the kernel side and user space: what is written to the ring buffer, and what is handed down once at
//! load. Both sides compile these definitions, so there is one truth about every layout.
//!
//! Rules: `repr(C)`, integers and byte arrays only, no implicit padding, sizes asserted at compile time.

#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
