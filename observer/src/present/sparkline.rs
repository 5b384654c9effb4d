//! A minute in one line of text: a table's cell cannot hold ratatui's widget.

use ratatui::symbols::bar;

use crate::model::history::History;

const LEVELS: [&str; 8] = [
    bar::ONE_EIGHTH,
    bar::ONE_QUARTER,
    bar::THREE_EIGHTHS,
    bar::HALF,
    bar::FIVE_EIGHTHS,
    bar::THREE_QUARTERS,
    bar::SEVEN_EIGHTHS,
    bar::FULL,
];

/// The whole minute in at most `width` cells, the newest at the right, each the highest of its seconds. Zero is blank.
pub(crate) fn sparkline(history: &History, width: usize) -> String {
    let seconds = History::LEN.div_ceil(width.max(1));
    let newest_first: Vec<u32> = history.iter().rev().collect();
    let mut cells: Vec<u32> =
        newest_first.chunks(seconds).map(|chunk| chunk.iter().copied().max().unwrap_or(0)).collect();
    cells.reverse();
    let top = cells.iter().copied().max().unwrap_or(0);
    cells.into_iter().map(|value| symbol(value, top)).collect()
}

fn symbol(value: u32, top: u32) -> &'static str {
    if value == 0 {
        return " ";
    }
    let level = (u64::from(value) * LEVELS.len() as u64).div_ceil(u64::from(top.max(1)));
    usize::try_from(level).ok().and_then(|level| LEVELS.get(level.checked_sub(1)?)).copied().unwrap_or(bar::FULL)
}
