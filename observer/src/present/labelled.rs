//! A label with words beside it, in as many lines as they need: the one writer of that form.

use std::io::{self, Write};

use super::format;
use crate::model::name::padded;

/// Columns of plain text, on a terminal of any width and in a file.
pub(crate) const PLAIN_WIDTH: usize = 80;

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelledLine {
    /// The label, padded to its columns; blanks from the second line on.
    pub(crate) label: String,
    /// Words.
    pub(crate) text: String,
}

impl LabelledLine {
    /// Both, without blanks at the end.
    pub(crate) fn joined(&self) -> String {
        format!("{}{}", self.label, self.text).trim_end().to_owned()
    }
}

/// Words in lines of at most `width` columns, of which the first `indent` are the label's.
pub(crate) fn labelled(label: &str, indent: usize, words: &str, width: usize) -> Vec<LabelledLine> {
    let room = width.saturating_sub(indent).max(1);
    let lines = format::wrapped(words, room).into_iter().enumerate();
    lines.map(|(i, text)| LabelledLine { label: padded(if i == 0 { label } else { "" }, indent), text }).collect()
}

/// Writes them.
pub(crate) fn write(out: &mut impl Write, label: &str, indent: usize, words: &str, width: usize) -> io::Result<()> {
    labelled(label, indent, words, width).iter().try_for_each(|line| writeln!(out, "{}", line.joined()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_beside_the_label_and_below_each_other() {
        let text = |label, indent| -> Vec<String> {
            labelled(label, indent, "one two three", 10).iter().map(LabelledLine::joined).collect()
        };
        assert_eq!(text("risk", 6), ["risk  one", "      two", "      thre", "      e"]);
        assert_eq!(text("", 0), ["one two", "three"]);
        assert_eq!(text("日本", 5), ["日本 one", "     two", "     three"]);
    }
}
