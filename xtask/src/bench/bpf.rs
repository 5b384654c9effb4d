//! The few calls of bpf(2) that a measurement needs: <https://elixir.bootlin.com/linux/v6.12/source/include/uapi/linux/bpf.h>

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_ENABLE_STATS: libc::c_int = 32;

const BPF_PROG_TYPE_TRACEPOINT: u32 = 5;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// `_IOW('$', 8, __u32)`
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
/// `_IO('$', 0)`
const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;

/// bpf(2) with an attribute of 64-bit words, zeroes behind them; returns what it returns.
fn bpf<const N: usize>(command: libc::c_int, attribute: &mut [u64; N]) -> io::Result<RawFd> {
    // SAFETY: the attribute is as long as it is said to be, and each address in it is of something that outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(attribute)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(answer).map_err(io::Error::other) }
}

/// The same, where what it returns is a descriptor.
fn bpf_fd<const N: usize>(command: libc::c_int, attribute: &mut [u64; N]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two 32-bit fields of an attribute, the first one first in memory.
fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// The kernel measures every run of every program while this is held, and stops however its owner ends.
pub(super) struct Stats(#[expect(dead_code, reason = "to hold it is all")] OwnedFd);

impl Stats {
    pub(super) fn enable() -> Result<Self> {
        // type: BPF_STATS_RUN_TIME
        Ok(Self(bpf_fd(BPF_ENABLE_STATS, &mut [0]).context("have BPF programs measured")?))
    }
}

/// What the kernel has measured of a program since it was loaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    pub(super) id: u32,
    pub(super) count: u64,
    pub(super) time: Duration,
}

/// The same of every program that a process holds.
pub(super) fn runs_of(process: &str) -> Result<Vec<Runs>> {
    let mut all: Vec<Runs> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo")).context("read a process's descriptors")? {
        // A descriptor may have been closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let runs = runs_in(&text);
        all.extend(runs.filter(|runs| all.iter().all(|other| other.id != runs.id)));
    }
    Ok(all)
}

/// The descriptor of a link names its program too, but has no count of its runs.
fn runs_in(fdinfo: &str) -> Option<Runs> {
    let field = |name| fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let id = u32::try_from(field("prog_id:")?).ok()?;
    Some(Runs { id, count: field("run_cnt:")?, time: Duration::from_nanos(field("run_time_ns:")?) })
}

/// A program's name: its first 15 characters.
pub(super) fn name(id: u32) -> Result<String> {
    const NAME_AT: usize = 64;
    let program = bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut [pair(id, 0), 0]).with_context(|| format!("BPF program {id}"))?;
    // The beginning of struct bpf_prog_info, up to the end of its name.
    let mut info = [0_u8; NAME_AT + 16];
    let fd = u32::try_from(program.as_raw_fd())?;
    let mut attribute = [pair(fd, u32::try_from(info.len())?), info.as_mut_ptr().addr() as u64];
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attribute).with_context(|| format!("name of BPF program {id}"))?;
    let name = info[NAME_AT..].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// A hook with a program that does nothing: what every program there costs at least.
pub(super) struct EmptyHook {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl EmptyHook {
    pub(super) fn on_raw_tracepoint(name: &str) -> Result<Self> {
        let program = empty(BPF_PROG_TYPE_RAW_TRACEPOINT)?;
        let name = CString::new(name)?;
        let fd = u32::try_from(program.as_raw_fd())?;
        let mut attribute = [name.as_ptr().addr() as u64, pair(fd, 0)];
        let link = bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &mut attribute);
        Ok(Self { _link: link.with_context(|| format!("attach to {name:?}"))?, _program: program })
    }

    /// `name` is a folder of tracefs, such as `syscalls/sys_exit_accept4`.
    pub(super) fn on_tracepoint(name: &str) -> Result<Self> {
        let path = format!("/sys/kernel/tracing/events/{name}/id");
        let id: u64 = fs::read_to_string(&path).with_context(|| format!("read {path}"))?.trim().parse()?;
        let program = empty(BPF_PROG_TYPE_TRACEPOINT)?;
        // struct perf_event_attr of 64 bytes: type PERF_TYPE_TRACEPOINT, its size, and the tracepoint as config.
        let attribute = [pair(2, 64), id, 0, 0, 0, 0, 0, 0_u64];
        let (any_process, first_cpu, no_group) = (-1, 0, -1);
        // SAFETY: the attribute is as long as it says.
        let event = unsafe {
            let pointer = attribute.as_ptr();
            libc::syscall(libc::SYS_perf_event_open, pointer, any_process, first_cpu, no_group, PERF_FLAG_FD_CLOEXEC)
        };
        ensure!(event >= 0, "open tracepoint {name}: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just made it for us.
        let link = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(event)?) };
        for (call, argument) in [(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()), (PERF_EVENT_IOC_ENABLE, 0)] {
            // SAFETY: both take a number.
            let answer = unsafe { libc::ioctl(link.as_raw_fd(), call, argument) };
            ensure!(answer == 0, "attach to {name}: {}", io::Error::last_os_error());
        }
        Ok(Self { _program: program, _link: link })
    }
}

/// `return 0`
fn empty(kind: u32) -> Result<OwnedFd> {
    // BPF_MOV64_IMM(r0, 0); BPF_EXIT_INSN(): eight bytes each, the operation in the first.
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let license = c"GPL";
    let mut attribute = [0_u64; 16];
    attribute[0] = pair(kind, u32::try_from(instructions.len())?);
    attribute[1] = instructions.as_ptr().addr() as u64;
    attribute[2] = license.as_ptr().addr() as u64;
    bpf_fd(BPF_PROG_LOAD, &mut attribute).context("load an empty BPF program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_have_runs() {
        let program = "pos:\t0\nprog_type:\t17\nprog_id:\t42\nrun_time_ns:\t1500\nrun_cnt:\t10\nrecursion_misses:\t0\n";
        let runs = runs_in(program).unwrap();
        assert_eq!((runs.id, runs.count, runs.time), (42, 10, Duration::from_nanos(1500)));
        assert!(runs_in("link_type:\traw_tracepoint\nprog_id:\t42\n").is_none());
    }
}
