//! What the kernel counts for a BPF program. It is asked several times a second: the same numbers in /proc/self/fdinfo take ten
//! times as long.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::Program;

use super::system_call::{self, OBJ_GET_INFO_BY_FD};

/// The counts of one program since it was loaded.
pub(super) struct ProgramCounts {
    /// Nanoseconds in which it ran, while the kernel timed programs.
    pub(super) run_time_ns: u64,
    /// Missed runs: the program was running on that CPU already. `None` before 5.12.
    pub(super) missed: Option<u64>,
}

impl ProgramCounts {
    /// `None` for a program that is not loaded, and where the kernel does not say.
    pub(super) fn of(program: &Program) -> Option<Self> {
        /// `struct bpf_prog_info` of include/uapi/linux/bpf.h as far as `recursion_misses`, in words of 8 bytes. The kernel fills
        /// in as much as it knows.
        const WORDS: usize = 27;
        const RUN_TIME_NS: usize = 24;
        const RECURSION_MISSES: usize = 26;
        #[repr(C)]
        struct GetInfo {
            fd: u32,
            info_len: u32,
            info: u64,
        }
        let fd = program.fd().ok()?;
        let mut info = [0_u64; WORDS];
        let mut attr = GetInfo {
            fd: fd.as_fd().as_raw_fd().cast_unsigned(),
            info_len: u32::try_from(size_of_val(&info)).ok()?,
            info: (&raw mut info) as u64,
        };
        // SAFETY: the arm of this command; its buffer is `info`, with its true size, and both outlive the call. Without room for
        // instructions, maps and names the kernel writes nothing else.
        unsafe { system_call::bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.ok()?;
        let word = |at: usize| (attr.info_len as usize > at * size_of::<u64>()).then(|| info[at]);
        Some(Self { run_time_ns: word(RUN_TIME_NS)?, missed: word(RECURSION_MISSES) })
    }
}
