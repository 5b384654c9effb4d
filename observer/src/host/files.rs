//! Open files of the host: `fs.file-nr`, `fs.file-max`, `fs.nr_open`.

use super::text::Reads;
use crate::model::snapshot::FileUse;

/// Allocated file handles, and how many there may be.
#[must_use]
pub fn read(files: &Reads) -> Option<FileUse> {
    parse_file_nr(&files.required("/proc/sys/fs/file-nr")?)
}

/// `fs.nr_open`: what no process may raise its `RLIMIT_NOFILE` above.
#[must_use]
pub fn nr_open(files: &Reads) -> Option<u64> {
    files.required("/proc/sys/fs/nr_open")?.trim().parse().ok()
}

/// `fs.file-nr`: allocated handles, a number that is always 0, and `fs.file-max`.
pub(super) fn parse_file_nr(text: &str) -> Option<FileUse> {
    let mut numbers = text.split_whitespace();
    Some(FileUse { allocated: numbers.next()?.parse().ok()?, max: numbers.nth(1)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_file_nr() {
        assert_eq!(
            parse_file_nr("1952\t0\t9223372036854775807\n"),
            Some(FileUse { allocated: 1952, max: 9_223_372_036_854_775_807 })
        );
        assert_eq!(parse_file_nr("1952\n"), None);
    }
}
