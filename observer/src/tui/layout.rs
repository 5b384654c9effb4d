//! The layout: pure functions of the terminal's size, shared by `update` and `view`.

use ratatui::layout::Rect;

use super::screen_name::ScreenName;

/// Columns that the screen needs at least.
pub const MIN_WIDTH: u16 = 60;
/// Lines that the screen needs at least.
pub const MIN_HEIGHT: u16 = 16;

/// From here on the headroom stands beside the table. Less, and the table would have to give up columns for it that it
/// shows at 80.
const BESIDE_FROM: u16 = 117;
const PANEL_WIDTH: u16 = 38;

/// From here on there is room for a third header line, a second quality line and the longer headroom.
const TALL_FROM: u16 = 20;

/// From here on the panel has room for the limits below the headroom.
const LIMITS_BESIDE_FROM: u16 = 44;
const LIMITS_PANEL: u16 = 12;
/// From here on there is room for more than one limit below the table.
const LIMITS_BELOW_FROM: u16 = 30;

/// The parts of the screen; those that are left out have no height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) header: Rect,
    pub(crate) banner: Rect,
    pub(crate) tabs: Rect,
    pub(crate) screen: Rect,
    pub(crate) headroom: HeadroomArea,
    pub(crate) limits: LimitsArea,
    pub(crate) quality: Rect,
    pub(crate) footer: Rect,
}

/// The place of the headroom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadroomArea {
    /// Only the main screen has it.
    None,
    Beside(Rect),
    Below(Rect),
}

/// The place of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitsArea {
    Panel(Rect),
    Strip(Rect),
}

/// Whether anything but a complaint fits.
pub(crate) const fn is_too_small(area: Rect) -> bool {
    area.width < MIN_WIDTH || area.height < MIN_HEIGHT
}

/// At least the minimum, so that arithmetic on hidden parts stays sane while the terminal is too small.
pub(crate) fn usable(area: Rect) -> Rect {
    Rect::new(area.x, area.y, area.width.max(MIN_WIDTH), area.height.max(MIN_HEIGHT))
}

impl Areas {
    /// `banner`: whether something is missing; `findings`: whether something is likely to be wrong.
    pub(crate) fn of(area: Rect, banner: bool, findings: bool, shown: ScreenName) -> Self {
        let tall = area.height >= TALL_FROM;
        let is_main = shown == ScreenName::Endpoints;
        let beside = tall && area.width >= BESIDE_FROM;
        let below = if tall { 6 } else { 3 };
        let limits_beside = beside && area.height >= LIMITS_BESIDE_FROM;
        let limits_below = match area.height {
            _ if limits_beside || !is_main => 0,
            // A finding is worth a row of the table.
            _ if !tall => u16::from(findings),
            LIMITS_BELOW_FROM.. if !beside => 5 + u16::from(findings),
            _ => 1 + u16::from(findings),
        };
        let [header, banner, tabs, middle, low, strip, quality, footer] = stack(
            area,
            [
                Some(if tall { 3 } else { 2 }),
                Some(u16::from(banner)),
                Some(1),
                None,
                Some(if beside || !is_main { 0 } else { below }),
                Some(limits_below),
                Some(if tall { 2 } else { 1 }),
                Some(1),
            ],
        );
        let (screen, headroom, limits) = if !is_main {
            (middle, HeadroomArea::None, LimitsArea::Strip(strip))
        } else if beside {
            let screen = Rect { width: middle.width - PANEL_WIDTH - 1, ..middle };
            let panel = Rect { x: screen.right() + 1, width: PANEL_WIDTH, ..middle };
            let [headroom, limits] = stack(panel, [None, Some(if limits_beside { LIMITS_PANEL } else { 0 })]);
            let limits = if limits_beside { LimitsArea::Panel(limits) } else { LimitsArea::Strip(strip) };
            (screen, HeadroomArea::Beside(headroom), limits)
        } else {
            (middle, HeadroomArea::Below(low), LimitsArea::Strip(strip))
        };
        Self { header, banner, tabs, screen, headroom, limits, quality, footer }
    }
}

/// Parts below one another, of these heights; one without a height has what the others leave. Where they leave nothing, the lowest are
/// cut. ratatui's solver of constraints took a third of a drawing for this.
fn stack<const N: usize>(area: Rect, heights: [Option<u16>; N]) -> [Rect; N] {
    let left = area.height.saturating_sub(heights.into_iter().flatten().sum());
    let mut y = area.y;
    heights.map(|height| {
        let height = height.unwrap_or(left).min(area.bottom() - y);
        let part = Rect { y, height, ..area };
        y += height;
        part
    })
}

/// The first visible row: `old`, moved by as little as shows `selected` and leaves no empty lines at the end.
pub(crate) const fn scroll_offset(selected: Option<usize>, old: usize, height: usize, len: usize) -> usize {
    let last = len.saturating_sub(height);
    let old = if old > last { last } else { old };
    match selected {
        Some(selected) if selected < old => selected,
        Some(selected) if height > 0 && selected >= old + height => selected + 1 - height,
        _ => old,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::{Constraint, Layout};

    use super::*;

    #[test]
    fn parts_are_where_ratatui_puts_them() {
        for height in 0..60 {
            let area = Rect::new(3, 5, 80, height);
            let heights = [Some(2), Some(0), None, Some(6), Some(1)];
            let constraints = heights.map(|height| height.map_or(Constraint::Fill(1), Constraint::Length));
            // Where there is no room for all, what is cut does not matter: such a terminal is too small.
            if height >= 9 {
                assert_eq!(stack(area, heights), Layout::vertical(constraints).areas(area), "{height} lines");
            }
            assert!(stack(area, heights).iter().all(|part| area.union(*part) == area), "{height} lines");
        }
    }
}
