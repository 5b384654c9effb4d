//! A line of parts that gives up the least important ones where room runs out.

use ratatui::text::{Line, Span};

/// Words that stay together.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The highest rank goes first.
    rank: usize,
    spans: Vec<Span<'static>>,
}

impl Part {
    pub(crate) const fn new(rank: usize, spans: Vec<Span<'static>>) -> Self {
        Self { rank, spans }
    }

    fn width(&self) -> usize {
        self.spans.iter().map(Span::width).sum()
    }
}

/// The columns that all parts take.
pub(crate) fn width(parts: &[Part], separator: &str) -> usize {
    let gaps = parts.len().saturating_sub(1) * Span::raw(separator).width();
    parts.iter().map(Part::width).sum::<usize>() + gaps
}

/// The parts that fit, and a mark where some do not.
pub(crate) fn fit_marked(parts: Vec<Part>, separator: &'static str, room: u16) -> Line<'static> {
    const MARK: &str = " …";
    if width(&parts, separator) <= usize::from(room) {
        return fit(parts, separator, room);
    }
    let mut line = fit(parts, separator, room.saturating_sub(2));
    line.push_span(Span::raw(MARK));
    line
}

/// The parts that fit, with `separator` between them.
pub(crate) fn fit(mut parts: Vec<Part>, separator: &'static str, room: u16) -> Line<'static> {
    while width(&parts, separator) > usize::from(room) && parts.len() > 1 {
        let worst = parts.iter().map(|part| part.rank).max();
        parts.retain(|part| Some(part.rank) != worst);
    }
    let mut line = Line::default();
    for (i, part) in parts.into_iter().enumerate() {
        if i > 0 {
            line.push_span(Span::raw(separator));
        }
        line.extend(part.spans);
    }
    line
}
