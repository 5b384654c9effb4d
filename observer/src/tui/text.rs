//! Draws a line of text. A line that does not fit is cut and ends with `…`.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::Widget as _,
};

use super::format;

/// Draws a line at the top of `area`.
pub(crate) fn put<'a>(line: impl Into<Line<'a>>, area: Rect, buf: &mut Buffer) {
    cut(line.into(), area.width.into()).render(area, buf);
}

/// The line, or as much of it as fits, with `…` in the style of what is cut.
pub(crate) fn cut(mut line: Line<'_>, width: usize) -> Line<'_> {
    if line.width() <= width {
        return line;
    }
    let mut left = width;
    let mut kept = Vec::with_capacity(line.spans.len());
    let mut spans = std::mem::take(&mut line.spans).into_iter().peekable();
    while let Some(span) = spans.next() {
        let is_followed = spans.peek().is_some();
        let columns = span.width();
        // The mark needs a column of its own.
        if columns < left || columns == left && !is_followed {
            left -= columns;
            kept.push(span);
            continue;
        }
        // Longer than the room that is left: the cut sets the mark.
        kept.push(Span::styled(format::cut_end(&format!("{} ", span.content), left), span.style));
        break;
    }
    line.spans = kept;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_ends_with_a_mark_in_whatever_part_it_ends() {
        let cut = |width| cut(Line::from(vec!["abc".into(), "de".into(), "".into(), "日本".into()]), width).to_string();
        assert_eq!(cut(9), "abcde日本");
        assert_eq!(cut(8), "abcde日…");
        assert_eq!(cut(7), "abcde…");
        assert_eq!(cut(6), "abcde…");
        assert_eq!(cut(5), "abcd…");
        assert_eq!(cut(3), "ab…");
        assert_eq!(cut(1), "…");
        assert_eq!(cut(0), "");
    }
}
