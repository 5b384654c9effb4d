//! A bar with its percentage and, from 70 % on, a word.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    symbols::{block, shade},
    widgets::{LineGauge, Widget},
};

use crate::tui::{
    format,
    theme::{Level, Theme},
};

/// `100 % full`, `98 % critical`: wide enough that bars below each other line up.
const LABEL: usize = "98 % critical".len();

/// Draws `ratio`, 0 to 1.
pub(crate) fn view(ratio: f64, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
    let level = theme.level(ratio);
    let label = format!("{} {}", format::percent(ratio), Level::of(ratio).word());
    LineGauge::default()
        .ratio(ratio)
        .label(ratatui::text::Line::styled(format!("{label:<LABEL$}"), level))
        .filled_symbol(block::FULL)
        .unfilled_symbol(shade::LIGHT)
        .filled_style(level)
        .unfilled_style(theme.dim)
        .render(area, buf);
}
