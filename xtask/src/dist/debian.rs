//! The package for Debian, made with debhelper from `packaging/debian`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

use super::release::Release;
use super::{SYSTEMD, Shared, Tree, UNITS};
use crate::process;

const SOURCE: &str = "packaging/debian";
/// Debian's limit of a line in a changelog.
const WIDTH: usize = 80;

/// Makes the package; returns its name and its bytes.
pub(super) fn package(shared: &Shared, work: &Path) -> Result<(String, Vec<u8>)> {
    let folder = super::fresh(work.join("deb/observer"))?;
    shared.installed("usr/share/zsh/vendor-completions")?.write_to(&folder.join("root"))?;
    let debian = folder.join("debian");
    let mut tree = Tree::default();
    tree.add_folder("debian", Path::new(SOURCE))?;
    tree.add_file("debian/observer.sysusers", Path::new("packaging/systemd/sysusers.conf"))?;
    for unit in UNITS {
        tree.add_file(&format!("debian/{unit}"), &Path::new(SYSTEMD).join(unit))?;
    }
    tree.add("debian/changelog", changelog(shared.release)?.as_bytes());
    tree.add("debian/source/format", b"3.0 (quilt)\n");
    tree.write_to(&folder)?;
    let control = debian.join("control");
    let text = fs::read_to_string(&control).with_context(|| format!("read {}", control.display()))?;
    fs::write(&control, text.replace("@MAINTAINER@", &Release::packager()))
        .with_context(|| format!("write {}", control.display()))?;

    let mut rules = Command::new("make");
    rules.args(["--file", "debian/rules", "binary"]).current_dir(&folder);
    process::run_silently(rules.env("SOURCE_DATE_EPOCH", shared.release.epoch.to_string()))?;
    let name = format!("observer_{}-{}_amd64.deb", shared.release.version, Release::REVISION);
    let path = folder.with_file_name(&name);
    Ok((name, fs::read(&path).with_context(|| format!("read {}", path.display()))?))
}

/// The entry of the release, in Debian's format.
fn changelog(release: &Release) -> Result<String> {
    let date = release.date.to_zoned(TimeZone::UTC).context("the date of the release")?;
    let date = DateTimePrinter::new().zoned_to_string(&date).context("the date of the release")?;
    let mut text = format!("observer ({}-{}) unstable; urgency=medium\n", release.version, Release::REVISION);
    for group in &release.groups {
        let _ = writeln!(text, "\n  [ {} ]", group.title);
        for change in &group.changes {
            text.push_str(&wrapped("  * ", "    ", change));
        }
    }
    let _ = writeln!(text, "\n -- {}  {date}", Release::packager());
    Ok(text)
}

/// Lines of at most [`WIDTH`] columns.
fn wrapped(first: &str, others: &str, words: &str) -> String {
    let mut text = String::new();
    let mut line = first.to_owned();
    for word in words.split(' ') {
        let begins = line.trim_start().is_empty() || line == first;
        if !begins && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            others.clone_into(&mut line);
        } else if !begins {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::release::Group;

    #[test]
    fn dpkg_reads_the_changelog() {
        let changes = vec!["word ".repeat(60).trim_end().to_owned(), "x".repeat(100)];
        let groups = vec![Group { title: "Names".to_owned(), changes }];
        let release = Release { version: "1.2.3".to_owned(), date: jiff::civil::date(2026, 2, 3), groups, epoch: 0 };
        let text = changelog(&release).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, &text).unwrap();
        let field = |name| {
            let mut parse = Command::new("dpkg-parsechangelog");
            process::stdout(parse.arg("--file").arg(file.path()).args(["--show-field", name])).unwrap()
        };
        assert_eq!(field("Version"), "1.2.3-1\n");
        assert_eq!(field("Timestamp"), "1770076800\n");
        let changes = text.lines().filter(|line| !line.starts_with(" -- "));
        let long: Vec<_> = changes.filter(|line| line.len() > WIDTH).collect();
        assert_eq!(long, [format!("  * {}", "x".repeat(100))]);
        assert_eq!(text.matches("word").count(), 60);
    }
}
