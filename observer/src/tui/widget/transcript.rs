//! A lab's transcript, beside the screen on a wide terminal and below it on others.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Widget},
};

use crate::{
    frame::transcript::{Speaker, Transcript, TranscriptLine},
    present::{format, labelled::labelled},
    tui::{
        layout::{MIN_HEIGHT, MIN_WIDTH},
        text,
        theme::Theme,
    },
};

/// From this width on it is beside the screen, which keeps the columns that it shows at 80.
const BESIDE_FROM: u16 = 140;
const BESIDE: u16 = 60;
/// Columns of the speaker before each paragraph.
const LABEL: usize = 9;

/// The least height of a terminal that has room for both.
pub(crate) const LEAST_HEIGHT: u16 = MIN_HEIGHT + 6;

/// The parts of a terminal: the screen, and the transcript if there is one.
pub(crate) fn split(area: Rect, transcript: Option<&Transcript>) -> (Rect, Option<Rect>) {
    if transcript.is_none() {
        return (area, None);
    }
    let (screen, beside) = if area.width >= BESIDE_FROM {
        let [screen, beside] = Layout::horizontal([Constraint::Min(MIN_WIDTH), Constraint::Length(BESIDE)]).areas(area);
        (screen, beside)
    } else {
        let height = area.height.saturating_sub(MIN_HEIGHT).min(area.height / 2);
        let [screen, beside] = Layout::vertical([Constraint::Fill(1), Constraint::Length(height)]).areas(area);
        (screen, beside)
    };
    (screen, Some(beside))
}

/// A box with the newest words at its end; what does not fit is cut at its beginning.
pub(crate) fn view(transcript: &Transcript, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let hint = match transcript {
        Transcript { is_over: true, .. } => " q quits ",
        Transcript { is_waiting: true, .. } => " n: next step ",
        _ => "",
    };
    let inner = Rect {
        x: area.x + 2,
        y: area.y + 1,
        width: area.width.saturating_sub(4),
        height: area.height.saturating_sub(2),
    };
    let mut lines: Vec<Line> =
        transcript.lines.iter().flat_map(|event| paragraph(event, inner.width.into(), theme)).collect();
    if let Some((done, of)) = transcript.progress {
        let text = format!("{:LABEL$}{} of {}", "", format::count(done), format::count(of));
        lines.push(Line::styled(text, theme.strong));
    }
    let cut = lines.len().saturating_sub(inner.height.into());
    let title = match cut {
        0 => format!(" lab {} ", transcript.title),
        _ => format!(" lab {}, {cut} lines before … ", transcript.title),
    };
    Block::bordered()
        .border_style(theme.dim)
        .title(Line::styled(title, theme.title))
        .title(Line::styled(hint, theme.badge).right_aligned())
        .render(area, buf);
    for (line, row) in lines.into_iter().skip(cut).zip(inner.rows()) {
        text::put(line, row, buf);
    }
}

fn paragraph<'a>(event: &TranscriptLine, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    let (style, indent): (Style, _) = match event.speaker {
        Speaker::Step => (theme.strong, 0),
        Speaker::Opening => (Style::new(), 0),
        Speaker::Drawing => return vec![Line::raw(event.text.clone())],
        Speaker::Good => (theme.ok, 0),
        Speaker::Bad => (theme.critical, 0),
        Speaker::Theory | Speaker::Kernel | Speaker::Observer => (Style::new(), LABEL),
    };
    let speaker = if indent == 0 { "" } else { event.speaker.name() };
    let gap = (event.speaker == Speaker::Step).then(Line::default);
    let lines = labelled(speaker, indent, &format::printable(&event.text), width).into_iter();
    let lines = lines.map(|it| Line::from(vec![Span::styled(it.label, theme.title), Span::styled(it.text, style)]));
    gap.into_iter().chain(lines).collect()
}
