//! Errors of the system in the words of the manual pages: `EMFILE (Too many open files)`. Every error that a person
//! reads goes through this module, and every decision about an error goes by its number, never by its text.

use std::{error::Error, fmt, io, path::Path};

use nix::errno::Errno;

use crate::model::name::fold_text;

/// What the system refused: the operation with its object, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was attempted, on what.
    pub operation: String,
    /// The error number, where the system gave one.
    pub errno: Option<i32>,
    /// The cause in words.
    pub cause: String,
}

impl Refusal {
    /// `operation` failed with `error` and its sources.
    pub fn new(operation: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        Self { operation: operation.into(), errno: number_in(error), cause: chain(error) }
    }

    /// Whether the next attempt may succeed: descriptors, threads or memory ran short.
    #[must_use]
    pub fn is_scarcity(&self) -> bool {
        self.errno.is_some_and(is_scarcity)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operation.is_empty() {
            return f.write_str(&self.cause);
        }
        write!(f, "{}: {}", self.operation, self.cause)
    }
}

impl Error for Refusal {}

impl From<String> for Refusal {
    fn from(cause: String) -> Self {
        Self { operation: String::new(), errno: None, cause }
    }
}

/// `EMFILE`
#[must_use]
pub fn name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}

/// `EMFILE (Too many open files)`
#[must_use]
pub fn describe_number(errno: i32) -> String {
    // Words as strerror() has them; std adds the number, which the name stands for.
    let words = io::Error::from_raw_os_error(errno).to_string();
    let words = words.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&words);
    format!("{} ({words})", name(errno))
}

/// As [`describe_number`]; errors without a number say what they say.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), describe_number)
}

/// The error number of this error or of the first of its sources that has one.
#[must_use]
pub fn number_in(error: &(dyn Error + 'static)) -> Option<i32> {
    sources(error).find_map(number)
}

/// An error with all its sources in one line: `start a scan: BPF_ITER_CREATE: EMFILE (Too many open files)`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    joined(sources(error))
}

/// As [`chain`].
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    joined(error.chain())
}

/// Descriptors, threads or memory are short, of this process or of the host: a later attempt may succeed.
#[must_use]
pub const fn is_scarcity(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::ENOBUFS | libc::ENOSPC)
}

/// As [`is_scarcity`].
#[must_use]
pub fn is_scarce(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(is_scarcity)
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

fn number(error: &(dyn Error + 'static)) -> Option<i32> {
    let of_io = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    let of_rustix = || error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error());
    let of_nix = || error.downcast_ref::<Errno>().map(|errno| *errno as i32);
    let of_refusal = || error.downcast_ref::<Refusal>().and_then(|refusal| refusal.errno);
    of_io.or_else(of_rustix).or_else(of_nix).or_else(of_refusal)
}

fn joined<'a>(errors: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut text = String::new();
    for error in errors {
        let is_bare = error.downcast_ref::<Refusal>().is_none();
        let next = number(error).filter(|_| is_bare).map_or_else(|| error.to_string(), describe_number);
        if text.is_empty() {
            text = next;
        } else if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
    }
    // Names from outside are in it, of files and of whatever the kernel quotes.
    fold_text(&text.replace('\n', " "))
}

/// The name of a file as it is safe to print.
#[must_use]
pub fn printable(path: &Path) -> String {
    fold_text(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_have_the_names_of_the_manual() {
        assert_eq!(describe(&io::Error::from_raw_os_error(libc::EMFILE)), "EMFILE (Too many open files)");
        assert_eq!(describe_number(libc::EAGAIN), "EAGAIN (Resource temporarily unavailable)");
        assert_eq!(describe_number(12_345), "errno 12345 (Unknown error 12345)");
        assert_eq!(describe(&io::Error::other("no number")), "no number");
    }

    #[test]
    fn a_chain_names_each_operation_and_the_errno_once() {
        let error = Err::<(), _>(io::Error::from_raw_os_error(libc::EPERM)).context("open x").context("start");
        let error = error.unwrap_err();
        assert_eq!(sentence(&error), "start: open x: EPERM (Operation not permitted)");
        let refusal = Refusal::new("scan", &rustix::io::Errno::MFILE);
        assert_eq!(refusal.to_string(), "scan: EMFILE (Too many open files)");
        assert!(refusal.is_scarcity());
        let error = anyhow::Error::new(refusal).context("start");
        assert_eq!(sentence(&error), "start: scan: EMFILE (Too many open files)");
    }
}
