//! A recorder's directory under pseudonyms, as a new directory that `replay` and `report` read as they read the original.
//!
//! **Invariant**: nothing of a segment gets there but through the [`Anonymizer`], one for all of them. Names of segments and
//! incidents are numbers, times and ids of JSON.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufReader, BufWriter, ErrorKind},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::trail::{add_segments, is_being_written, names, none_there};
use crate::{
    anonymize::{self, Anonymizer, RewriteError},
    errno,
    model::units::grouped,
    record::STANDARD,
    recording::{
        ReadError,
        recorder::name::{INCIDENTS, IncidentName, SegmentName},
    },
};

/// What was written.
struct Copies {
    anonymizer: Anonymizer,
    /// Segments by their numbers; nothing for those that could not be read.
    segments: BTreeMap<u64, Option<PathBuf>>,
    unread: Vec<String>,
    incidents: usize,
    records: u64,
    bytes: u64,
}

/// Writes the directory `to` with everything in `from`; returns a sentence on what it did. Where it fails `to` is not there.
pub(super) fn anonymize(from: &Path, to: &Path) -> anyhow::Result<String> {
    let (name, new_name) = (errno::printable(from), errno::printable(to));
    ensure!(
        to != Path::new(STANDARD),
        "{name} is a directory and becomes one: name it in the place of standard output"
    );
    match fs::symlink_metadata(to) {
        Ok(_) => bail!("{new_name} is there already: choose another name"),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("make the directory {new_name}")),
    }
    let parent = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder_in(from, parent).with_context(|| format!("make the directory {new_name}"))?;
    let (segments, incidents) = (BTreeMap::new(), 0);
    let mut copies =
        Copies { anonymizer: Anonymizer::new()?, segments, unread: Vec::new(), incidents, records: 0, bytes: 0 };
    copies.add_folder(from, temporary.path())?;
    copies.add_incidents(from, &temporary.path().join(INCIDENTS))?;
    let Copies { segments, unread, incidents, records, bytes, .. } = copies;
    let written = segments.values().flatten().count();
    match unread.first() {
        Some(first) if written == 0 => bail!("{first}"),
        None if written == 0 => {
            bail!("{name} has no recording: it is no directory of a recorder, or that has not begun")
        }
        _ => {}
    }
    renameat_with(CWD, temporary.path(), CWD, to, RenameFlags::NOREPLACE)
        .map_err(|error| anyhow!(io::Error::from(error)).context(format!("give {new_name} its name")))?;
    // Nothing has its name any more.
    let _ = temporary.keep();
    let (records, bytes) = (grouped(records), grouped(bytes));
    let left_out = if unread.is_empty() { String::new() } else { format!("; left out: {}", unread.join("; ")) };
    Ok(format!(
        "anonymized {written} segments and {incidents} incidents of {name} to {new_name}: {records} records, {bytes} bytes{left_out}"
    ))
}

/// A folder that goes unless it gets its name. A recorder takes nothing in its directory that it does not know.
fn folder_in(recorder: &Path, parent: &Path) -> anyhow::Result<TempDir> {
    let is_within = fs::canonicalize(parent)?.starts_with(fs::canonicalize(recorder)?);
    ensure!(!is_within, "it would be in the recorder's directory, choose another name");
    let mut builder = tempfile::Builder::new();
    builder.prefix(".observer-").suffix(".part").permissions(Permissions::from_mode(0o700));
    Ok(builder.tempdir_in(parent)?)
}

impl Copies {
    /// The segments of a folder: those that are there already get another name.
    fn add_folder(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let mut found = BTreeMap::new();
        add_segments(from, &mut found).with_context(|| format!("list the directory {}", errno::printable(from)))?;
        for (number, path) in found {
            let Some(name) = segment_name(&path) else { continue };
            // What a copy has is complete.
            let new = to.join(name.closed().to_string());
            match self.segments.get(&number) {
                Some(None) => {}
                // Not every filesystem has links.
                Some(Some(copy)) => fs::hard_link(copy, &new)
                    .or_else(|_| fs::copy(copy, &new).map(drop))
                    .with_context(|| format!("write {}", errno::printable(&new)))?,
                None => self.add_segment(number, &path, new)?,
            }
        }
        Ok(())
    }

    fn add_segment(&mut self, number: u64, path: &Path, new: PathBuf) -> anyhow::Result<()> {
        let source = match File::open(path) {
            Ok(file) => BufReader::new(file),
            // The recorder is running, and it was the oldest. An incident may have it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("open {}", errno::printable(path))),
        };
        let write = || format!("write {}", errno::printable(&new));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).with_context(write)?;
        match anonymize::rewrite(&mut self.anonymizer, source, BufWriter::new(file)) {
            Ok(tally) => {
                self.records += tally.records;
                self.bytes += tally.bytes;
                self.segments.insert(number, Some(new));
            }
            // One that has a hole is none: what follows it would seem to go on without a gap.
            Err(RewriteError::Read(error)) => {
                fs::remove_file(&new).with_context(write)?;
                self.segments.insert(number, None);
                let has_begun = !matches!(error, ReadError::NotARecording | ReadError::NoHeader);
                if has_begun || !is_being_written(path) {
                    self.unread.push(format!("{}: {}", errno::printable(path), errno::chain(&error)));
                }
            }
            Err(error) => return Err(error).with_context(write),
        }
        Ok(())
    }

    fn add_incidents(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        fs::create_dir(to).and_then(|()| fs::set_permissions(to, Permissions::from_mode(0o700)))?;
        let from = from.join(INCIDENTS);
        let list = || format!("list the directory {}", errno::printable(&from));
        for name in names(&from).or_else(none_there).with_context(list)? {
            if IncidentName::parse(&name).is_some() {
                let new = to.join(&name);
                fs::create_dir(&new)
                    .and_then(|()| fs::set_permissions(&new, Permissions::from_mode(0o700)))
                    .with_context(|| format!("make the directory {}", errno::printable(&new)))?;
                self.add_folder(&from.join(&name), &new)?;
                self.incidents += 1;
            }
        }
        Ok(())
    }
}

fn segment_name(path: &Path) -> Option<SegmentName> {
    SegmentName::parse(path.file_name()?.to_str()?)
}
