//! Memory that is free, what a socket takes of it, and what we take.

use super::text::{self, Reads};

/// The slab caches that an idle established socket of a process has one object of each: the socket, its inode, its
/// file, its directory entry.
const CACHES: [&str; 4] = ["TCP", "sock_inode_cache", "filp", "dentry"];

/// `MemAvailable` of /proc/meminfo, in bytes.
#[must_use]
pub fn available(files: &Reads) -> Option<u64> {
    parse_available(&files.required("/proc/meminfo")?)
}

/// What an idle established IPv4 socket takes of the kernel's memory, in bytes. /proc/slabinfo is for root, and not on
/// every kernel.
#[must_use]
pub fn per_socket(files: &Reads) -> Option<u64> {
    parse_per_socket(&files.optional("/proc/slabinfo")?)
}

/// Resident memory of this process in bytes: the second number of /proc/self/statm, which counts pages.
#[must_use]
pub fn resident() -> Option<u64> {
    parse_resident(&text::string("/proc/self/statm").ok()?)
}

pub(super) fn parse_resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

pub(super) fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Not the size of an object but its part of a slab: what packing wastes is taken too.
pub(super) fn parse_per_socket(slabinfo: &str) -> Option<u64> {
    CACHES.iter().try_fold(0, |sum: u64, cache| sum.checked_add(parse_slab(slabinfo, cache)?))
}

/// Of "TCP 92 143 2368 13 8 : …" the last two: 13 objects in a slab of 8 pages.
fn parse_slab(slabinfo: &str, cache: &str) -> Option<u64> {
    let line = slabinfo.lines().find(|line| line.split_whitespace().next() == Some(cache))?;
    let mut numbers = line.split_whitespace().skip(4).map(|word| word.parse::<u64>().ok());
    let (objects, pages) = (numbers.next()??, numbers.next()??);
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page)?.checked_div(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLABINFO: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
        tw_sock_TCP          208    272    256   16    1 : tunables    0    0    0\n\
        TCP                   92    143   2368   13    8 : tunables    0    0    0\n\
        sock_inode_cache     261    323    832   19    4 : tunables    0    0    0\n\
        filp                 703    735    192   21    1 : tunables    0    0    0\n\
        dentry            283185 283185    192   21    1 : tunables    0    0    0\n";

    #[test]
    fn a_socket_takes_its_part_of_four_slabs() {
        let page = rustix::param::page_size() as u64;
        let expected = 8 * page / 13 + 4 * page / 19 + page / 21 + page / 21;
        assert_eq!(parse_per_socket(SLABINFO), Some(expected));
        assert_eq!(parse_per_socket(&SLABINFO.replace("filp", "merged")), None, "a part unknown, the sum unknown");
    }

    #[test]
    fn parses_available_memory() {
        assert_eq!(parse_available("MemTotal: 9 kB\nMemAvailable:   23606776 kB\n"), Some(23_606_776 * 1024));
        assert_eq!(parse_available("MemTotal: 9 kB\n"), None);
    }
}
