//! `observer replay --anonymize`: a recording under pseudonyms, as a new file; a recorder's directory, as a new directory.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Context as _, ensure};

use super::{STANDARD_INPUT, rewritten_directory, source};
use crate::{
    anonymize::{self, Anonymizer, RewriteError},
    errno,
    model::units::grouped,
    new_file::{NewFile, Replaces},
    record::STANDARD,
    recording::Tally,
};

/// Writes the recording `from` to the new file `to`, `-` for standard input and output, with pseudonyms in the place of addresses
/// and names; returns a sentence on what it did. A recorder's directory becomes a new directory. Where it fails nothing new is there.
pub fn anonymize(from: &Path, to: &Path) -> anyhow::Result<String> {
    if from.is_dir() {
        return rewritten_directory::anonymize(from, to);
    }
    let mut anonymizer = Anonymizer::new()?;
    let name = if from == Path::new(STANDARD) { STANDARD_INPUT.to_owned() } else { errno::printable(from) };
    let recording = source(from)?;
    let written = |sink: &mut dyn Write| {
        anonymize::rewrite(&mut anonymizer, recording, sink).map_err(|error| {
            let name = if matches!(error, RewriteError::Read(_)) { name.clone() } else { errno::printable(to) };
            anyhow::Error::new(error).context(name)
        })
    };
    let tally = if to == Path::new(STANDARD) {
        let stdout = io::stdout();
        ensure!(
            !stdout.is_terminal(),
            "a recording is not for a terminal: send standard output to a file or a pipe, or name a file"
        );
        written(&mut stdout.lock())?
    } else {
        ensure!(!is_same(from, to), "{} is the recording itself: choose another name", errno::printable(to));
        let new = NewFile::create(to, Replaces::Nothing)?;
        let file: File = new.file().with_context(|| format!("open {}", to.display()))?;
        let tally = written(&mut BufWriter::new(file))?;
        new.keep()?;
        tally
    };
    let Tally { records, bytes, last_at, .. } = tally;
    let (records, bytes, seconds) = (grouped(records), grouped(bytes), last_at.as_secs_f64());
    let to = if to == Path::new(STANDARD) { "standard output".to_owned() } else { errno::printable(to) };
    Ok(format!("anonymized {seconds:.1} s of {name} to {to}: {records} records, {bytes} bytes"))
}

/// Whether both names lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}
