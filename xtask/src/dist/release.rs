//! What is released: the version, its date and its changes. `docs/changelog.md` is the one place of changes; its first entry is
//! of the version in `Cargo.toml`.

use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::civil::Date;

use crate::process;

const CHANGELOG: &str = "docs/changelog.md";
/// Who makes the packages, in the variables that Debian's tools read.
const PACKAGER: [(&str, &str); 2] = [("DEBFULLNAME", "observer packagers"), ("DEBEMAIL", "packages@observer.invalid")];

/// One entry of the changelog.
pub(super) struct Release {
    pub(super) version: String,
    pub(super) date: Date,
    pub(super) groups: Vec<Group>,
    /// The time of the commit, in seconds: what archives say of each file.
    pub(super) epoch: u64,
}

/// Changes under one heading.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) title: String,
    /// One line each, without Markdown.
    pub(super) changes: Vec<String>,
}

impl Release {
    /// The first entry of the changelog. Fails unless it is of the version in `Cargo.toml`.
    pub(super) fn of_this_tree() -> Result<Self> {
        let text = fs::read_to_string(CHANGELOG).with_context(|| format!("read {CHANGELOG}"))?;
        let (version, date, groups) = first_entry(&text).with_context(|| format!("the first entry of {CHANGELOG}"))?;
        let built = env!("CARGO_PKG_VERSION");
        ensure!(version == built, "{CHANGELOG} begins with {version} and Cargo.toml has {built}: make them equal");
        Ok(Self { version, date, groups, epoch: epoch(date)? })
    }

    /// The number of the package of this version, which Debian and RPM join with a hyphen.
    pub(super) const REVISION: &'static str = "1";

    /// `NAME <ADDRESS>` of whoever makes the packages.
    pub(super) fn packager() -> String {
        let [name, address] =
            PACKAGER.map(|(variable, default)| env::var(variable).unwrap_or_else(|_| default.to_owned()));
        format!("{name} <{address}>")
    }
}

/// The version, the date and the changes of `## VERSION, DATE`.
fn first_entry(text: &str) -> Result<(String, Date, Vec<Group>)> {
    let mut entries = text.split("\n## ").skip(1);
    let entry = entries.next().context("there is no heading `## VERSION, DATE`")?;
    let (heading, body) = entry.split_once('\n').context("nothing follows the heading")?;
    let (version, date) = heading.split_once(", ").context("the heading is not `## VERSION, DATE`")?;
    let date = date.trim().parse().with_context(|| format!("the date {date}"))?;

    let mut groups = vec![Group { title: String::new(), changes: Vec::new() }];
    for line in body.lines().filter(|line| !line.is_empty()) {
        let group = groups.last_mut().context("no group")?;
        if let Some(change) = line.strip_prefix("- ") {
            group.changes.push(change.to_owned());
        } else if let Some(rest) = line.strip_prefix("  ") {
            let change = group.changes.last_mut().with_context(|| format!("`{rest}` belongs to no change"))?;
            change.push(' ');
            change.push_str(rest.trim());
        } else if let Some(title) = line.strip_suffix(':') {
            groups.push(Group { title: title.to_owned(), changes: Vec::new() });
        } else {
            bail!("`{line}` is neither a heading nor a change");
        }
    }
    groups.retain(|group| !group.changes.is_empty());
    ensure!(!groups.is_empty(), "it has no change");
    for change in groups.iter_mut().flat_map(|group| &mut group.changes) {
        *change = plain(change);
    }
    Ok((version.to_owned(), date, groups))
}

/// The text without links and backticks.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(words, tail)| Some((words, tail.split_once(')')?.1))) {
            Some((words, tail)) if !words.contains('[') => {
                text.push_str(words);
                rest = tail;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    text.push_str(rest);
    text.replace('`', "")
}

/// `SOURCE_DATE_EPOCH` if it is set, or else the time of the commit. Sources without Git have the date of the release.
fn epoch(date: Date) -> Result<u64> {
    if let Ok(value) = env::var("SOURCE_DATE_EPOCH") {
        return value.parse().with_context(|| format!("SOURCE_DATE_EPOCH={value}: give seconds since 1970"));
    }
    if let Ok(time) = process::stdout(Command::new("git").args(["log", "-1", "--format=%ct"])) {
        return time.trim().parse().with_context(|| format!("`git log` says {time}"));
    }
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).context("the date of the release")?;
    Ok(u64::try_from(midnight.timestamp().as_second())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_begins_with_the_version_of_cargo_toml() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/changelog.md");
        let (version, ..) = first_entry(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn changes_lose_their_markdown_and_keep_their_words() {
        let text = "# Changelog\n\n## 1.2.3, 2026-02-03\n\nNames:\n\n- `a` in\n  [b](c.md#d), [e].\n- f\n\n## 1.2.2, 2026-01-01\n";
        let (version, date, groups) = first_entry(text).unwrap();
        assert_eq!((version.as_str(), date.to_string().as_str()), ("1.2.3", "2026-02-03"));
        let changes = vec!["a in b, [e].".to_owned(), "f".to_owned()];
        assert_eq!(groups, [Group { title: "Names".to_owned(), changes }]);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in [
            "# Changelog\n",
            "\n## 1.0.0\n\n- a\n",
            "\n## 1.0.0, 2026-13-01\n\n- a\n",
            "\n## 1.0.0, 2026-01-01\n\nstray\n",
        ] {
            assert!(first_entry(text).is_err(), "{text}");
        }
    }
}
