//! Draws the whole screen. Changes nothing: it only ever sees shared references.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Block, Borders, Widget},
};

use super::{
    SILENCE, keymap,
    layout::{self, Areas, HeadroomArea, LimitsArea, MIN_HEIGHT, MIN_WIDTH},
    message::Message,
    prompt::Prompt,
    screen_name::ScreenName,
    tabs, text,
    theme::Theme,
    ui::Ui,
    widget::{
        explain, header, headroom, help, limits,
        parts::{self, Part},
        quality, timeline, transcript,
    },
};
use crate::{
    frame::{Attached, Frame, Playback},
    model::{PORT_NUMBERS, query::Of, snapshot::Snapshot},
    present::{format, labelled::labelled},
};

/// How long a badge stays that reports a moment.
const MOMENT: Duration = Duration::from_mins(1);

/// Draws `ui`; `latest` is the newest frame, shown or not.
pub(crate) fn view(ui: &Ui, latest: &Frame, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let (area, beside) = transcript::split(area, latest.transcript.as_deref());
    if let Some((words, beside)) = latest.transcript.as_deref().zip(beside) {
        transcript::view(words, theme, beside, buf);
    }
    let (area, below) = timeline::split(area, latest.timeline.as_ref());
    if let Some((timeline, below)) = latest.timeline.as_ref().zip(below) {
        timeline::view(timeline, theme, below, buf);
    }
    if layout::is_too_small(area) {
        return too_small(theme, area, buf);
    }
    let shown = ui.shown(latest);
    let data = &shown.snapshot;
    let alarm = quality::alarm(data);
    let areas = Areas::of(area, alarm.is_some(), !data.findings.is_empty(), ui.screens.shown);

    let badge = badge(ui, latest, theme);
    let badge_width = badge.as_ref().map_or(0, |badge| format::columns(badge.width()));
    header::view(data, theme, areas.header, badge_width, buf);
    if let Some(badge) = badge {
        let x = areas.header.right().saturating_sub(badge_width).max(areas.header.x);
        text::put(badge, Rect { x, width: badge_width.min(areas.header.width), height: 1, ..areas.header }, buf);
    }
    if let Some(alarm) = alarm {
        quality::banner(&alarm, theme, areas.banner, buf);
    }
    if ui.screens.has_scope() {
        scope(ui, shown, theme, areas.tabs, buf);
    } else {
        text::put(tabs::line(ui.screens.shown, theme, areas.tabs.width), areas.tabs, buf);
    }
    if ui.screens.shown == ScreenName::Connections && !ui.screens.are_answered(shown) {
        unanswered(ui, theme, areas.screen, buf);
    } else {
        ui.screens.pane().view(shown, &ui.prompt.filter, theme, areas.screen, buf);
    }
    match areas.headroom {
        HeadroomArea::None => {}
        HeadroomArea::Beside(area) => headroom::panel(data, theme, area, buf),
        HeadroomArea::Below(area) => headroom::compact(data, theme, area, buf),
    }
    let known = if areas.headroom == HeadroomArea::None { limits::Known::Nothing } else { limits::Known::Headroom };
    match areas.limits {
        LimitsArea::Panel(area) => limits::panel(data, theme, area, buf),
        LimitsArea::Strip(area) => limits::strip(data, known, theme, area, buf),
    }
    quality::view(data, theme, areas.quality, buf);
    if ui.prompt.is_open || !ui.prompt.text.is_empty() {
        prompt(&ui.prompt, theme, areas.footer, buf);
    } else {
        footer(ui, latest, theme, areas.footer, buf);
    }
    let explained = ui.explain.and_then(|top| Some((top, ui.screens.pane().explained(shown, &ui.prompt.filter)?)));
    if let Some((top, lines)) = explained {
        explain::view(ui.screens.shown.title(), &lines, top, theme, area, buf);
    }
    if let Some(top) = ui.help {
        help::view(top, theme, area, buf);
    }
}

/// The scope of the connections that are shown, and how many there are, in place of the other screens' names.
fn scope(ui: &Ui, data: &Frame, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let screens = &ui.screens;
    let scope = match &screens.of {
        Of::All => "of all processes".to_owned(),
        Of::Endpoint(key) => format!("of {}", format::address(key.local_ip, key.local_port, key.device)),
        Of::Destination { local_ip, device, remote, .. } => {
            format::printable(&format!("{} → {remote}", device.scoped(*local_ip)))
        }
        Of::Process(pid) => {
            let process = data.snapshot.processes.iter().map(|row| row.process).find(|process| process.pid == *pid);
            process.map_or_else(|| format!("of process {pid}"), |process| format!("of {process}"))
        }
        Of::Service(Some(service)) => format!("of {}", service.label()),
        Of::Service(None) => "of unknown services".to_owned(),
    };
    let answer = data.connections.as_ref().filter(|it| Some(&it.query) == ui.query().as_ref());
    let count = answer.map_or_else(String::new, |it| format!(": {}", format::count(it.matching as u64)));
    let text = format!(">{} {} {scope}{count}   Esc goes back", screens.shown.digit(), screens.shown.name());
    text::put(Span::styled(text, theme.title), area, buf);
}

/// In place of connections that this frame does not have.
fn unanswered(ui: &Ui, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let words = match ui.paused {
        Some(_) => "The display is paused at a snapshot without these connections. Space resumes it.",
        None => "Loading…",
    };
    let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
    let block = block.title(Line::styled(format!(" {} ", ui.screens.shown.title()), theme.title));
    let inner = block.inner(area);
    block.render(area, buf);
    for (line, row) in labelled("", 0, words, inner.width.into()).into_iter().zip(inner.rows()) {
        text::put(line.text, row, buf);
    }
}

/// What must not be overlooked, at the right of the first line.
fn badge(ui: &Ui, latest: &Frame, theme: &Theme) -> Option<Span<'static>> {
    let mut words = Vec::new();
    if ui.silence >= SILENCE {
        words.push(format!("NO NEW DATA FOR {}", format::duration(ui.silence)));
    }
    if let Some(paused) = &ui.paused {
        let age = latest.snapshot.uptime.saturating_sub(paused.snapshot.uptime) + ui.silence;
        words.push(format!("PAUSED, {} old", format::duration(age)));
    }
    if let Some(playback) = latest.playback {
        words.push(replayed(playback));
    }
    words.extend(latest.attached.map(attached));
    words.extend(passed_port_numbers(&ui.shown(latest).snapshot));
    (!words.is_empty()).then(|| Span::styled(format!(" {} ", words.join(" · ")), theme.badge))
}

fn replayed(playback: Playback) -> String {
    let state = match playback {
        Playback { is_over: true, .. } => ", OVER",
        Playback { is_stopped: true, .. } => ", STOPPED",
        Playback { is_live: true, .. } => ", LIVE",
        _ => "",
    };
    if playback.speed.to_bits() == 1_f64.to_bits() {
        format!("REPLAY{state}")
    } else {
        format!("REPLAY ×{}{state}", playback.speed)
    }
}

fn attached(stream: Attached) -> String {
    match stream {
        Attached { is_over: true, .. } => "ATTACHED, SERVICE ENDED".to_owned(),
        Attached { silence, .. } if silence >= SILENCE => {
            format!("ATTACHED, NO NEW DATA FOR {}", format::duration(silence))
        }
        Attached { .. } => "ATTACHED".to_owned(),
    }
}

/// For a minute, the endpoint that got more connections than there are port numbers.
fn passed_port_numbers(data: &Snapshot) -> Option<String> {
    let is_recent = |at: &Duration| data.uptime.saturating_sub(*at) < MOMENT;
    let newest = data.endpoints.iter().filter(|row| row.beyond_port_numbers.as_ref().is_some_and(is_recent));
    let row = newest.max_by_key(|row| row.beyond_port_numbers)?;
    let ago = format::duration(data.uptime.saturating_sub(row.beyond_port_numbers?));
    Some(format!(
        "{} PASSED {} {ago} AGO",
        format::address(row.key.local_ip, row.key.local_port, row.key.device),
        format::count(PORT_NUMBERS.into())
    ))
}

fn footer(ui: &Ui, latest: &Frame, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let is_paused = ui.paused.is_some() || latest.playback.is_some_and(|playback| playback.is_stopped);
    let shown = ui.screens.shown;
    let does_nothing = |message| match message {
        Message::Enter => !matches!(
            shown,
            ScreenName::Endpoints | ScreenName::Destinations | ScreenName::Processes | ScreenName::Services
        ),
        Message::Explain | Message::Filter | Message::NextSort | Message::ReverseSort => shown == ScreenName::Quality,
        _ => false,
    };
    let taught = keymap::KEYMAP.iter().filter(|binding| !does_nothing(binding.message)).filter_map(|binding| {
        let word = match binding.message {
            Message::TogglePause if is_paused => Some("resume"),
            _ => binding.footer,
        }?;
        Some((binding.keys.first()?.label(), word))
    });
    let moving = ("↑ ↓".to_owned(), "move");
    let parts = (0..).zip(taught.chain([moving])).map(|(rank, (key, word))| {
        Part::new(rank, vec![Span::styled(key, theme.strong), Span::raw(format!(" {word}"))])
    });
    text::put(parts::fit(parts.collect(), "   ", area.width), area, buf);
}

fn prompt(prompt: &Prompt, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let cursor = if prompt.is_open { "█" } else { "" };
    let text = format::printable(&prompt.text);
    // The end is where letters are added.
    let room = usize::from(area.width).saturating_sub("filter ".len() + format::text_width(cursor));
    let text = format::cut_start(&text, room);
    let (hint, style) = match (&prompt.error, prompt.is_open) {
        (Some(error), _) => (format::printable(&error.to_string()), theme.warning),
        (None, true) => ("Enter keeps it, Esc discards it".to_owned(), theme.dim),
        (None, false) => ("Esc clears it, / edits it".to_owned(), theme.dim),
    };
    let parts = vec![
        Part::new(0, vec![Span::styled("filter ", theme.strong), Span::raw(format!("{text}{cursor}"))]),
        Part::new(1, vec![Span::styled(hint, style)]),
    ];
    text::put(parts::fit(parts, "   ", area.width), area, buf);
}

fn too_small(theme: &Theme, area: Rect, buf: &mut Buffer) {
    let lines = [
        Line::styled("This terminal is too small.", theme.strong),
        Line::raw(format!("observer needs {MIN_WIDTH} columns by {MIN_HEIGHT} lines,")),
        Line::raw(format!("here are {} by {}.", area.width, area.height)),
        Line::raw("Make it larger, or press q to quit."),
    ];
    let height = format::columns(lines.len()).min(area.height);
    let [_, middle, _] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    for (line, row) in lines.into_iter().zip(middle.rows()) {
        text::put(line.centered(), row, buf);
    }
}
