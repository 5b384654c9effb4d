//! A table that scrolls, sorts, and follows its selected row wherever the order takes it. Each screen that has rows is a
//! [`Source`]; its one list of fields decides drawing, sorting and help.

mod field;
mod value;

use std::{cmp::Ordering, fmt::Debug};

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Position, Rect},
    text,
    widgets::{Block, Borders, Cell, Paragraph, Row, Table, Widget, Wrap},
};

pub(crate) use self::{
    field::{Field, Kind, NAMESPACE, NAMESPACE_HELP, columns},
    value::Value,
};
use super::{
    format,
    layout::scroll_offset,
    message::{Message, Move},
    pane::Pane,
    text::cut,
    theme::Theme,
};
use crate::model::{filter::Filter, snapshot::Snapshot, units::NetnsId};

/// The title and the names of the columns.
const HEAD: u16 = 2;

/// Where the rows of a table come from.
pub(crate) trait Source: Sized + 'static {
    /// A row, as it stands in the snapshot.
    type Row: 'static;
    /// What a row is known by from snapshot to snapshot.
    type Key: Copy + Ord + Debug;

    /// In the title.
    const NAME: &'static str;
    /// The first one names the row and is never left out.
    const FIELDS: &'static [Field<Self::Row>];
    /// The index of the field that the table is sorted by at first.
    const SORT: usize;

    fn rows(data: &Snapshot) -> Vec<&Self::Row>;

    fn key(row: &Self::Row) -> Self::Key;

    /// Whether a filter lets the row through.
    fn passes(row: &Self::Row, filter: &Filter, data: &Snapshot) -> bool;

    /// What to say where there are no rows.
    fn nothing(data: &Snapshot) -> &'static str;

    /// Where the numbers of a row come from, beyond what the help says of their columns.
    fn explain(_row: &Self::Row, _data: &Snapshot) -> Vec<Line> {
        Vec::new()
    }

    /// The network namespace of a row, where it has one.
    fn netns(_row: &Self::Row) -> Option<NetnsId> {
        None
    }

    /// Whether a column says anything about these rows: their namespace does where there are several.
    fn has(field: &Field<Self::Row>, data: &Snapshot) -> bool {
        let mut namespaces = Self::rows(data).into_iter().filter_map(Self::netns);
        let first = namespaces.next();
        field.title() != NAMESPACE || namespaces.any(|netns| Some(netns) != first)
    }
}

/// A line of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) label: &'static str,
    /// What stands in the row, where the line is about a column.
    pub(crate) value: Option<String>,
    pub(crate) text: String,
}

impl Line {
    pub(crate) fn new(label: &'static str, text: impl Into<String>) -> Self {
        Self { label, value: None, text: text.into() }
    }
}

/// What the user chose to see of a table.
#[derive(Debug)]
pub(crate) struct State<S: Source> {
    /// The index of the field that it is sorted by.
    pub(crate) sort: usize,
    /// Against the column's natural order.
    pub(crate) reversed: bool,
    pub(crate) cursor: Option<Cursor<S::Key>>,
    /// The first visible row, when the user last did something.
    pub(crate) offset: usize,
}

/// The selected row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<K> {
    pub(crate) key: K,
    /// Where it stood: the place to stay at when the row is gone.
    pub(crate) index: usize,
}

impl<S: Source> Default for State<S> {
    fn default() -> Self {
        Self { sort: S::SORT, reversed: false, cursor: None, offset: 0 }
    }
}

impl<S: Source> State<S> {
    fn field(&self) -> &'static Field<S::Row> {
        &S::FIELDS[self.sort]
    }

    fn is_descending(&self) -> bool {
        (self.field().kind == Kind::Number) != self.reversed
    }

    fn move_cursor(&mut self, data: &Snapshot, filter: &Filter, area: Rect, to: Move) {
        let rows = self.sorted(data, filter);
        let page = page(area);
        let index = match (self.position(&rows), to) {
            (Some(index), _) => to.apply(index, page, rows.len()),
            // The first step goes to the top of what is seen.
            (None, Move::Up | Move::Down) => scroll_offset(None, self.offset, page, rows.len()),
            (None, _) => to.apply(self.offset, page, rows.len()),
        };
        self.cursor = rows.get(index).map(|row| Cursor { key: S::key(row), index });
        self.offset = scroll_offset(self.cursor.map(|_| index), self.offset, page, rows.len());
    }

    /// A new order starts at its top, unless there is a row to follow.
    fn reveal(&mut self, data: &Snapshot, filter: &Filter, area: Rect) {
        let rows = self.sorted(data, filter);
        let index = self.position(&rows);
        self.offset = scroll_offset(index, 0, page(area), rows.len());
    }

    /// A click on a row selects it; on the name of a column, sorts by that.
    fn click(&mut self, data: &Snapshot, filter: &Filter, area: Rect, at: Position) {
        if !area.contains(at) {
            return;
        }
        let rows = self.sorted(data, filter);
        let first = scroll_offset(self.position(&rows), self.offset, page(area), rows.len());
        match at.y - area.y {
            0 => {}
            1 => {
                let mut end = area.x;
                let clicked = columns::<S>(area.width, data).into_iter().find(|(_, width)| {
                    end += width;
                    at.x < end
                });
                let Some((index, _)) = clicked.filter(|(index, _)| S::FIELDS[*index].kind != Kind::Picture) else {
                    return;
                };
                (self.sort, self.reversed) = (index, index == self.sort && !self.reversed);
                self.reveal(data, filter, area);
            }
            line => {
                let index = first + usize::from(line - HEAD);
                if let Some(row) = rows.get(index) {
                    (self.cursor, self.offset) = (Some(Cursor { key: S::key(row), index }), first);
                }
            }
        }
    }

    /// The columns in sight, and the one that the table begins with, which narrow tables may not show.
    fn next_sort(&self, width: u16, data: &Snapshot) -> usize {
        let shown = columns::<S>(width, data);
        let is_choice = |index: &usize| {
            let is_shown = shown.iter().any(|(shown, _)| shown == index);
            S::FIELDS[*index].kind != Kind::Picture && (is_shown || *index == S::SORT)
        };
        let after = self.sort + 1..S::FIELDS.len();
        after.chain(0..S::FIELDS.len()).find(is_choice).unwrap_or(self.sort)
    }

    /// The rows in the order of the table. Equals are in the order of their keys, so that they stand still from snapshot
    /// to snapshot.
    pub(crate) fn sorted<'a>(&self, data: &'a Snapshot, filter: &Filter) -> Vec<&'a S::Row> {
        let get = self.field().get;
        let mut rows: Vec<(Value<'a>, &'a S::Row)> = S::rows(data)
            .into_iter()
            .filter(|row| filter.is_empty() || S::passes(row, filter, data))
            .map(|row| (get(row, data), row))
            .collect();
        let is_descending = self.is_descending();
        rows.sort_unstable_by(|(a, row_a), (b, row_b)| {
            let by_value: Ordering = if is_descending { b.cmp(a) } else { a.cmp(b) };
            by_value.then_with(|| S::key(row_a).cmp(&S::key(row_b)))
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// Where the selected row stands among `rows` now; where it stood, if it is gone.
    pub(crate) fn position(&self, rows: &[&S::Row]) -> Option<usize> {
        let cursor = self.cursor?;
        let last = rows.len().checked_sub(1)?;
        let found = rows.iter().position(|row| S::key(row) == cursor.key);
        Some(found.unwrap_or(cursor.index.min(last)))
    }

    /// The selected row.
    pub(crate) fn selected<'a>(&self, data: &'a Snapshot, filter: &Filter) -> Option<&'a S::Row> {
        let rows = self.sorted(data, filter);
        self.position(&rows).map(|index| rows[index])
    }

    fn title(&self, first: usize, visible: usize, all: usize) -> String {
        let count = |n: usize| format::count(n as u64);
        if all == 0 {
            return format!(" {} ", S::NAME);
        }
        let order = match (self.field().kind, self.is_descending()) {
            (Kind::Number, true) => "highest first",
            (Kind::Number, false) => "lowest first",
            (Kind::Time, false) => "shortest first",
            (Kind::Time, true) => "longest first",
            (_, true) => "last first",
            (_, false) => "in order",
        };
        let (from, to) = (count(first + 1), count(first + visible));
        format!(" {} {from}–{to} of {}, by {}, {order} ", S::NAME, count(all), self.field().title())
    }

    fn head_cell(&self, index: usize, width: u16) -> Cell<'static> {
        let field = &S::FIELDS[index];
        let title = format::cut_end(field.title_within(room(index, width)), room(index, width));
        let arrow = match (index == self.sort, self.is_descending()) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        // The arrow of a number takes the space before the column.
        Cell::from(match field.kind {
            Kind::Text => aligned(index, field.kind, format!("{title}{arrow}")),
            Kind::Number | Kind::Time | Kind::Picture => aligned(index, field.kind, format!("{arrow}{title}")),
        })
    }
}

impl<S: Source> Pane for State<S> {
    fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    fn update(&mut self, data: &Snapshot, filter: &Filter, area: Rect, message: Message) {
        match message {
            Message::Move(to) => self.move_cursor(data, filter, area, to),
            Message::Click { column, row } => self.click(data, filter, area, Position { x: column, y: row }),
            Message::Close => self.cursor = None,
            Message::NextSort => {
                self.sort = self.next_sort(area.width, data);
                self.reversed = false;
                self.reveal(data, filter, area);
            }
            Message::ReverseSort => {
                self.reversed = !self.reversed;
                self.reveal(data, filter, area);
            }
            _ => {}
        }
    }

    fn view(&self, data: &Snapshot, filter: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let rows = self.sorted(data, filter);
        let selected = self.position(&rows);
        let first = scroll_offset(selected, self.offset, page(area), rows.len());
        let visible = rows.iter().enumerate().skip(first).take(page(area));

        let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
        let title = text::Line::styled(self.title(first, visible.len(), rows.len()), theme.title);
        let block = block.title(cut(title, area.width.into()));
        if rows.is_empty() {
            let inner = block.inner(area);
            block.render(area, buf);
            let nothing = if filter.is_empty() { S::nothing(data) } else { "No row passes the filter." };
            return Paragraph::new(nothing).wrap(Wrap { trim: true }).render(inner, buf);
        }

        let columns = columns::<S>(area.width, data);
        let lines = visible.map(|(index, row)| {
            let cells = columns.iter().map(|(field, width)| cell::<S>(*field, *width, row, data, theme));
            let line = Row::new(cells);
            if selected == Some(index) { line.style(theme.selected) } else { line }
        });
        let head = columns.iter().map(|(field, width)| self.head_cell(*field, *width));
        Table::new(lines, columns.iter().map(|(_, width)| Constraint::Length(*width)))
            .column_spacing(0)
            .header(Row::new(head).style(theme.strong))
            .block(block)
            .render(area, buf);
    }

    fn explained(&self, data: &Snapshot, filter: &Filter) -> Option<Vec<Line>> {
        let row = self.selected(data, filter)?;
        let fields = S::FIELDS.iter().filter(|field| field.kind != Kind::Picture && S::has(field, data));
        let of_field = |field: &Field<S::Row>| {
            let value = Some((field.get)(row, data).text(usize::MAX));
            Line { value, ..Line::new(field.title(), field.help) }
        };
        let mut lines: Vec<Line> = fields.map(of_field).collect();
        let more = S::explain(row, data);
        if !more.is_empty() {
            lines.push(Line::new("", ""));
            lines.extend(more);
        }
        Some(lines)
    }
}

fn page(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(HEAD))
}

/// What a column leaves for its text: the first one has no space before it.
fn room(index: usize, width: u16) -> usize {
    usize::from(width) - usize::from(index != 0)
}

fn aligned(index: usize, kind: Kind, words: String) -> text::Line<'static> {
    match kind {
        Kind::Text if index == 0 => text::Line::raw(words),
        Kind::Text => text::Line::raw(format!(" {words}")),
        Kind::Number | Kind::Time | Kind::Picture => text::Line::raw(words).right_aligned(),
    }
}

fn cell<S: Source>(index: usize, width: u16, row: &S::Row, data: &Snapshot, theme: &Theme) -> Cell<'static> {
    let field = &S::FIELDS[index];
    let value = (field.get)(row, data);
    let line = aligned(index, field.kind, value.text(room(index, width)));
    match value.level() {
        _ if value.is_nothing() => Cell::from(line).style(theme.dim),
        Some(level) => Cell::from(line).style(theme.level(level)),
        None => Cell::from(line),
    }
}
