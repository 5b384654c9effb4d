//! The local endpoints and what happens at each of them.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    text::Line,
    widgets::{Block, Borders, Cell, Paragraph, Row, Table, Widget, Wrap},
};

use super::fields::{Column, FIELDS, Field, Kind, columns};
use crate::{
    model::snapshot::{EndpointKey, EndpointRow, Snapshot},
    tui::{
        format,
        layout::scroll_offset,
        message::{Message, Move},
        theme::Theme,
    },
};

/// The title and the names of the columns.
const HEAD: u16 = 2;

/// What the user chose to see of the table.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) sort: Column,
    /// Against the column's natural order.
    pub(crate) reversed: bool,
    pub(crate) cursor: Option<Cursor>,
    /// The first visible row, when the user last did something.
    pub(crate) offset: usize,
}

/// The selected row. It is followed wherever the order takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) key: EndpointKey,
    /// Where it stood: the place to stay at when the row is gone.
    pub(crate) index: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { sort: Column::Sockets, reversed: false, cursor: None, offset: 0 }
    }
}

impl State {
    fn field(&self) -> &'static Field {
        FIELDS.iter().find(|field| field.column == self.sort).unwrap_or(&FIELDS[0])
    }

    fn is_descending(&self) -> bool {
        (self.field().kind == Kind::Number) != self.reversed
    }
}

pub(crate) fn update(state: &mut State, data: &Snapshot, area: Rect, message: Message) {
    match message {
        Message::Move(to) => move_cursor(state, data, area, to),
        Message::Close => state.cursor = None,
        Message::NextSort => {
            state.sort = next_sort(state.sort, area.width, data);
            state.reversed = false;
            reveal(state, data, area);
        }
        Message::ReverseSort => {
            state.reversed = !state.reversed;
            reveal(state, data, area);
        }
        Message::Quit
        | Message::Suspend
        | Message::Redraw
        | Message::ToggleHelp
        | Message::TogglePause
        | Message::Resize { .. }
        | Message::Silence(_) => {}
    }
}

fn move_cursor(state: &mut State, data: &Snapshot, area: Rect, to: Move) {
    let order = order(state, data);
    let page = page(area);
    let index = match (position(state, data, &order), to) {
        (Some(index), _) => to.apply(index, page, order.len()),
        // The first step goes to the top of what is seen.
        (None, Move::Up | Move::Down) => scroll_offset(None, state.offset, page, order.len()),
        (None, _) => to.apply(state.offset, page, order.len()),
    };
    state.cursor = order.get(index).map(|row| Cursor { key: data.endpoints[*row].key, index });
    state.offset = scroll_offset(state.cursor.map(|_| index), state.offset, page, order.len());
}

/// A new order starts at its top, unless there is a row to follow.
fn reveal(state: &mut State, data: &Snapshot, area: Rect) {
    let order = order(state, data);
    let index = position(state, data, &order);
    state.offset = scroll_offset(index, 0, page(area), order.len());
}

/// The columns in sight, and the one that the table begins with, which narrow tables do not show.
fn next_sort(now: Column, width: u16, data: &Snapshot) -> Column {
    let shown = columns(width, data);
    let is_choice = |field: &&Field| {
        let is_shown = shown.iter().any(|(shown, _)| shown.column == field.column);
        field.kind != Kind::Picture && (is_shown || field.column == State::default().sort)
    };
    let after = FIELDS.iter().skip_while(|field| field.column != now).skip(1);
    after.chain(FIELDS).find(is_choice).map_or(now, |field| field.column)
}

fn page(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(HEAD))
}

/// Indices into `data.endpoints` in the order of the table. Equals are in the order of their keys, so that they stand
/// still from snapshot to snapshot.
pub(crate) fn order(state: &State, data: &Snapshot) -> Vec<usize> {
    let get = state.field().get;
    let mut rows: Vec<_> = data.endpoints.iter().enumerate().map(|(i, row)| (get(row), row.key, i)).collect();
    let is_descending = state.is_descending();
    rows.sort_unstable_by(|(a, key_a, _), (b, key_b, _)| {
        let by_value = if is_descending { b.cmp(a) } else { a.cmp(b) };
        by_value.then_with(|| key_a.cmp(key_b))
    });
    rows.into_iter().map(|(_, _, i)| i).collect()
}

/// Where the selected row stands now; where it stood, if it is gone.
pub(crate) fn position(state: &State, data: &Snapshot, order: &[usize]) -> Option<usize> {
    let cursor = state.cursor?;
    let last = order.len().checked_sub(1)?;
    let found = order.iter().position(|row| data.endpoints[*row].key == cursor.key);
    Some(found.unwrap_or(cursor.index.min(last)))
}

pub(crate) fn view(state: &State, data: &Snapshot, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let order = order(state, data);
    let selected = position(state, data, &order);
    let first = scroll_offset(selected, state.offset, page(area), order.len());
    let visible = order.iter().enumerate().skip(first).take(page(area));

    let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
    let block = block.title(Line::styled(title(state, first, visible.len(), order.len()), theme.title));
    if order.is_empty() {
        let inner = block.inner(area);
        block.render(area, buf);
        return Paragraph::new(nothing(data)).wrap(Wrap { trim: true }).render(inner, buf);
    }

    let columns = columns(area.width, data);
    let rows = visible.map(|(index, row)| {
        let cells = columns.iter().map(|(field, width)| cell(field, *width, &data.endpoints[*row], theme));
        let row = Row::new(cells);
        if selected == Some(index) { row.style(theme.selected) } else { row }
    });
    let head = columns.iter().map(|(field, width)| head_cell(field, *width, state));
    Table::new(rows, columns.iter().map(|(_, width)| Constraint::Length(*width)))
        .column_spacing(0)
        .header(Row::new(head).style(theme.strong))
        .block(block)
        .render(area, buf);
}

fn title(state: &State, first: usize, visible: usize, all: usize) -> String {
    let count = |n: usize| format::count(n as u64);
    if all == 0 {
        return " Endpoints ".to_owned();
    }
    let order = match (state.field().kind, state.is_descending()) {
        (Kind::Number, true) => "highest first",
        (Kind::Number, false) => "lowest first",
        (_, true) => "last first",
        (_, false) => "in order",
    };
    let (from, to) = (count(first + 1), count(first + visible));
    format!(" Endpoints {from}–{to} of {}, by {}, {order} ", count(all), state.field().title())
}

fn nothing(data: &Snapshot) -> &'static str {
    if data.trust.last_scan.is_some() {
        "Nothing listens and nothing is connected. New connections appear here at once."
    } else {
        "Waiting for the first scan of the kernel's socket table…"
    }
}

/// What a column leaves for its text: the first one has no space before it.
fn room(field: &Field, width: u16) -> usize {
    usize::from(width) - usize::from(field.column != Column::Endpoint)
}

fn aligned(field: &Field, text: String) -> Line<'static> {
    match field.kind {
        Kind::Text if field.column == Column::Endpoint => Line::raw(text),
        Kind::Text => Line::raw(format!(" {text}")),
        Kind::Number | Kind::Picture => Line::raw(text).right_aligned(),
    }
}

fn cell(field: &Field, width: u16, row: &EndpointRow, theme: &Theme) -> Cell<'static> {
    let value = (field.get)(row);
    let line = aligned(field, value.text(room(field, width)));
    if value.is_nothing() { Cell::from(line).style(theme.dim) } else { Cell::from(line) }
}

fn head_cell(field: &Field, width: u16, state: &State) -> Cell<'static> {
    let title = field.title_within(room(field, width));
    let arrow = match (field.column == state.sort, state.is_descending()) {
        (false, _) => "",
        (true, true) => "▼",
        (true, false) => "▲",
    };
    // The arrow of a number takes the space before the column.
    Cell::from(match field.kind {
        Kind::Text => aligned(field, format!("{title}{arrow}")),
        Kind::Number | Kind::Picture => aligned(field, format!("{arrow}{title}")),
    })
}
