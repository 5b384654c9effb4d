//! Text from outside: names that processes and administrators choose. They are bytes. What they are is kept as it is; what
//! is shown of them can neither steer a terminal nor break a line or a column.

use std::{cmp::Ordering, fmt, hash, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns of the longest name that is shown.
const LONGEST: usize = 64;
/// Stands for what is not shown.
const HIDDEN: char = '?';

/// A name from outside. Its identity is its bytes; it is shown, and derefs to, the folded form of [`fold`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Arc<Text>);

/// Behind one pointer: a snapshot copies thousands of names, and each copy touches one count.
struct Text {
    bytes: Box<[u8]>,
    shown: Arc<str>,
}

impl Name {
    /// The name of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(Arc::new(Text { bytes: bytes.into(), shown: bounded(&fold(bytes), LONGEST).into() }))
    }

    /// The bytes as they were chosen.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// As every output shows it.
    #[must_use]
    pub fn shown(&self) -> &Arc<str> {
        &self.0.shown
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.shown
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl From<Vec<u8>> for Name {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(&bytes)
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0.bytes.to_vec()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.bytes.cmp(&other.0.bytes)
    }
}

impl hash::Hash for Name {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.bytes.hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.shown)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.bytes.escape_ascii())
    }
}

/// What a network namespace is called. Names are chosen outside: another namespace may have the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsName {
    /// As it was chosen.
    pub name: Name,
    /// Another namespace is called the same, or has the number that this name looks like: the number has to stand beside it.
    pub is_ambiguous: bool,
}

impl Deref for NetnsName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl From<Name> for NetnsName {
    fn from(name: Name) -> Self {
        Self { name, is_ambiguous: false }
    }
}

impl From<&str> for NetnsName {
    fn from(text: &str) -> Self {
        Name::from(text).into()
    }
}

impl fmt::Display for NetnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// The bytes as text for people: each run of invalid UTF-8, and each character that would steer a terminal, break a line,
/// take no column, or reorder or hide its neighbours, is one `?`.
#[must_use]
pub fn fold(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(fold_char));
        if !chunk.invalid().is_empty() {
            out.push(HIDDEN);
        }
    }
    out
}

/// As [`fold`], of text.
#[must_use]
pub fn fold_text(text: &str) -> String {
    text.chars().map(fold_char).collect()
}

fn fold_char(c: char) -> char {
    // U+00AD soft hyphen, U+061C Arabic letter mark, U+115F and U+3164 fillers, U+200B.. zero-width and direction marks,
    // U+2028.. line separators, embeddings and overrides, U+2060.. joiners and isolates, U+FEFF byte-order mark,
    // U+FFF9.. annotation marks, and U+FFFD, which some reader before us has put in place of invalid bytes.
    let is_hidden = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{3164}'
            | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | char::REPLACEMENT_CHARACTER
    );
    let takes_columns = c.width().is_some_and(|width| width > 0);
    if is_hidden || !takes_columns { HIDDEN } else { c }
}

/// The columns that a text takes.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// The text and as many spaces as make it `width` columns wide.
#[must_use]
pub fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(columns(text));
    format!("{text}{:missing$}", "")
}

/// As [`padded`], with the spaces first.
#[must_use]
pub fn padded_left(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(columns(text));
    format!("{:missing$}{text}", "")
}

fn bounded(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width - 1;
    let fits = |c: &char| {
        let needed = c.width().unwrap_or(0);
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_steer_or_hide_is_shown_as_a_question_mark() {
        for (bytes, shown) in [
            (&b"nginx"[..], "nginx"),
            (b"caf\xe9", "caf?"),
            (b"\xff\xfe", "??"),
            (b"a\x1b[31mb", "a?[31mb"),
            (b"a\nb\tc\\d", "a?b?c\\d"),
            ("a\u{202e}b\u{2066}c\u{2069}".as_bytes(), "a?b?c?"),
            ("a\u{200b}b\u{feff}".as_bytes(), "a?b?"),
            ("e\u{301}".as_bytes(), "e?"),
            ("\u{9b}2J".as_bytes(), "?2J"),
            ("数据库".as_bytes(), "数据库"),
        ] {
            assert_eq!(Name::new(bytes).shown().as_ref(), shown, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn identity_is_that_of_the_bytes_also_in_recordings() {
        let (one, other) = (Name::new(b"caf\xe9"), Name::new(b"caf\xe8"));
        assert_ne!(one, other);
        assert_eq!(one.shown(), other.shown());
        let recorded: Name = postcard::from_bytes(&postcard::to_stdvec(&one).unwrap()).unwrap();
        assert_eq!(recorded.as_bytes(), b"caf\xe9");
    }

    #[test]
    fn padding_counts_columns() {
        assert_eq!(padded("数据", 6), "数据  ");
        assert_eq!(padded_left("数据", 5), " 数据");
        assert_eq!(padded("long", 2), "long");
    }

    #[test]
    fn a_long_name_is_cut_where_it_is_shown_and_nowhere_else() {
        let name = Name::new(&[b'x'; 255]);
        assert_eq!((name.as_bytes().len(), columns(&name)), (255, LONGEST));
        assert!(name.ends_with('…'));
    }

    proptest! {
        #[test]
        fn no_bytes_reach_a_terminal_unfolded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let name = Name::new(&bytes);
            prop_assert!(columns(&name) <= LONGEST);
            prop_assert!(name.chars().all(|c| !c.is_control() && c.width().is_some_and(|width| width > 0)));
            prop_assert_eq!(name.as_bytes(), &bytes[..]);
        }

        #[test]
        fn folding_twice_is_folding_once(text in ".{0,80}") {
            let once = fold_text(&text);
            prop_assert_eq!(fold_text(&once), once);
        }
    }
}
