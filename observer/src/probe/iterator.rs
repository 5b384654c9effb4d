//! The link of an iterator, made once and kept. aya's link becomes a pass and is gone: each pass would make another one, inside
//! the namespace that it reads.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::programs::Iter;

use super::{
    error::reason,
    system_call::{self, ITER_CREATE, LINK_CREATE},
};
use crate::errno::Refusal;

/// A link of a loaded iterator program; dropping it detaches the program.
pub(super) struct IteratorLink {
    name: &'static str,
    link: OwnedFd,
}

impl IteratorLink {
    /// Links a program that is loaded.
    pub(super) fn new(name: &'static str, program: &Iter) -> Result<Self, Refusal> {
        /// `BPF_TRACE_ITER` of `enum bpf_attach_type`.
        const TRACE_ITER: u32 = 28;
        let program = program.fd().map_err(|error| reason(&error))?.as_fd().as_raw_fd().cast_unsigned();
        let mut attr = CreateLink { program, target: 0, attach_type: TRACE_ITER, flags: 0 };
        // SAFETY: the arm of this command, without pointers; it returns a new descriptor.
        let link = unsafe { system_call::new_fd(LINK_CREATE, &mut attr) };
        let link = link.map_err(|error| Refusal::new(format!("BPF_LINK_CREATE of {name}"), &error))?;
        Ok(Self { name, link })
    }

    /// The name of its program.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Starts a pass, in the network namespace of the calling thread.
    pub(super) fn start_pass(&self) -> Result<File, Refusal> {
        let mut attr = CreateIterator { link: self.link.as_raw_fd().cast_unsigned(), flags: 0 };
        // SAFETY: the arm of this command, without pointers; it returns a new descriptor.
        let iterator = unsafe { system_call::new_fd(ITER_CREATE, &mut attr) };
        let operation = || format!("BPF_ITER_CREATE of {}", self.name);
        iterator.map(File::from).map_err(|error| Refusal::new(operation(), &error))
    }
}

#[repr(C)]
struct CreateLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct CreateIterator {
    link: u32,
    flags: u32,
}
