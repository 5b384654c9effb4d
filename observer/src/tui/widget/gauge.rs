//! A bar with its percentage and, from notice on, the level.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    symbols::{block, shade},
    widgets::{LineGauge, Widget},
};

use crate::{
    model::limit::level::Level,
    tui::{format, theme::Theme},
};

/// `100 % exhausted`, `98 % critical`: wide enough that bars below each other line up.
const LABEL: usize = "100 % exhausted".len();

/// Draws `ratio`, 0 to 1.
pub(crate) fn view(ratio: f64, level: Level, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
    let word = if level == Level::Ok { "" } else { level.name() };
    let label = format!("{} {word}", format::percent(ratio));
    let style = theme.level(level);
    LineGauge::default()
        .ratio(ratio)
        .label(ratatui::text::Line::styled(format!("{label:<LABEL$}"), style))
        .filled_symbol(block::FULL)
        .unfilled_symbol(shade::LIGHT)
        .filled_style(style)
        .unfilled_style(theme.dim)
        .render(area, buf);
}
