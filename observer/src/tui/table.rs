//! A table that scrolls, sorts, and follows its selected row wherever the order takes it. Each screen with rows is a
//! [`TableSource`]; the fields of its rows decide drawing, sorting and help.

use std::fmt::Debug;

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text,
    widgets::{Block, Borders, Paragraph, Widget, Wrap},
};

use super::{
    layout::scroll_offset,
    message::{Message, Move},
    pane::{Explained, LABEL, Pane},
    text::{cut, put},
    theme::Theme,
};
use crate::{
    frame::Frame,
    model::{filter::Filter, service::Service, snapshot::Snapshot, units::NetnsId},
    present::{
        self, Field, Fields, Order,
        field::{NETNS_ID, SERVICE_ID},
        format,
        labelled::labelled,
        service,
        sort::sorted,
    },
};

/// The title and the names of the columns.
const HEAD: u16 = 2;

/// Where the rows of a table come from.
pub(crate) trait TableSource: Sized + 'static {
    /// A row, as it stands in the snapshot.
    type Row: Fields;
    /// Identifies a row from snapshot to snapshot.
    type Key: Clone + Ord + Debug;

    /// In the title.
    const NAME: &'static str;
    /// The fields of a row.
    const FIELDS: &'static [Field<Self::Row>] = <Self::Row as Fields>::FIELDS;
    /// The id of the field that the table is sorted by at first.
    const SORT: &'static str;

    fn rows(data: &Frame) -> Vec<&Self::Row>;

    fn key(row: &Self::Row) -> Self::Key;

    /// Whether a filter lets the row through.
    fn passes(row: &Self::Row, filter: &Filter, data: &Snapshot) -> bool;

    /// The text in place of rows where there are none.
    fn nothing(data: &Snapshot) -> &'static str;

    /// Paragraphs about a row beyond those of its fields.
    fn explain(_row: &Self::Row, _data: &Snapshot) -> Vec<Explained> {
        Vec::new()
    }

    /// Sentences that stand below the table, with their title: about the selected row, or about all of them where none is.
    /// No column has the room that they need.
    fn details(_: Option<&Self::Row>, _: &Frame) -> Option<Details> {
        None
    }

    /// Whether there are such sentences.
    const HAS_DETAILS: bool = false;

    /// The network namespace of a row, where it has one.
    fn netns(_row: &Self::Row) -> Option<NetnsId> {
        None
    }

    /// The service of a row, where it has one.
    fn service(_row: &Self::Row) -> Option<&Service> {
        None
    }

    /// Which rows a snapshot has of a longer list, and how many that list has: `the youngest`, 1,312. `None` where it has
    /// all of them.
    fn part_of(_: &Frame) -> Option<(&'static str, usize)> {
        None
    }

    /// Whether a column says anything about these rows: their namespace does where there are several, their service where
    /// one has a name.
    fn has(field: &Field<Self::Row>, data: &Frame) -> bool {
        match field.id {
            NETNS_ID => {
                let mut namespaces = Self::rows(data).into_iter().filter_map(Self::netns);
                let first = namespaces.next();
                namespaces.any(|netns| Some(netns) != first)
            }
            SERVICE_ID => Self::rows(data).into_iter().any(|row| service::name(Self::service(row)).is_some()),
            _ => true,
        }
    }
}

/// What stands below a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    pub(crate) title: &'static str,
    pub(crate) lines: Vec<Explained>,
}

/// The lines of a table and, below it, those of its details: by the size of the area alone, so that no row moves when another
/// one is selected.
fn parts<S: TableSource>(area: Rect) -> (Rect, Rect) {
    /// From here on there is room for both.
    const FROM: u16 = 14;
    let height = if S::HAS_DETAILS && area.height >= FROM { (area.height / 2).clamp(7, 12) } else { 0 };
    let rows = Rect { height: area.height - height, ..area };
    (rows, Rect { y: rows.bottom(), height, ..area })
}

/// The user's choices for a table.
#[derive(Debug)]
pub(crate) struct TableState<S: TableSource> {
    /// The id of the field that it is sorted by.
    pub(crate) sort: &'static str,
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

impl<S: TableSource> Default for TableState<S> {
    fn default() -> Self {
        Self { sort: S::SORT, reversed: false, cursor: None, offset: 0 }
    }
}

impl<S: TableSource> TableState<S> {
    fn field(&self) -> &'static Field<S::Row> {
        S::Row::field(self.sort).unwrap_or(&S::FIELDS[0])
    }

    fn is_descending(&self) -> bool {
        self.field().is_descending(self.reversed)
    }

    fn move_cursor(&mut self, data: &Frame, filter: &Filter, area: Rect, to: Move) {
        let rows = self.sorted(data, filter);
        let page = page(area);
        let index = match (self.position(&rows), to) {
            (Some(index), _) => to.apply(index, page, rows.len()),
            // The first step goes to the top of what is seen.
            (None, Move::Up | Move::Down) => scroll_offset(None, self.offset, page, rows.len()),
            (None, _) => to.apply(self.offset, page, rows.len()),
        };
        self.cursor = rows.get(index).map(|row| Cursor { key: S::key(row), index });
        self.offset = scroll_offset(self.cursor.as_ref().map(|_| index), self.offset, page, rows.len());
    }

    /// A new order starts at its top, unless there is a row to follow.
    fn reveal(&mut self, data: &Frame, filter: &Filter, area: Rect) {
        let rows = self.sorted(data, filter);
        let index = self.position(&rows);
        self.offset = scroll_offset(index, 0, page(area), rows.len());
    }

    /// A click on a row selects it; on the name of a column, sorts by that.
    fn click(&mut self, data: &Frame, filter: &Filter, area: Rect, at: Position) {
        if !area.contains(at) {
            return;
        }
        let rows = self.sorted(data, filter);
        let first = scroll_offset(self.position(&rows), self.offset, page(area), rows.len());
        match at.y - area.y {
            0 => {}
            1 => {
                let mut end = area.x;
                let clicked = columns::<S>(area.width, self.sort, data).into_iter().find(|(_, width)| {
                    end += width;
                    at.x < end
                });
                let clicked = clicked.map(|(index, _)| &S::FIELDS[index]);
                let Some(Field { id, .. }) = clicked.filter(|field| field.order != Order::None) else {
                    return;
                };
                (self.sort, self.reversed) = (id, *id == self.sort && !self.reversed);
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

    /// The columns in sight, and the one that the table begins with, which tables below 80 columns may not show.
    fn next_sort(&self, width: u16, data: &Frame) -> &'static str {
        let shown = columns::<S>(width, self.sort, data);
        let is_choice = |field: &&Field<S::Row>| {
            let is_shown = shown.iter().any(|(shown, _)| S::FIELDS[*shown].id == field.id);
            field.order != Order::None && (is_shown || field.id == S::SORT)
        };
        let mut after =
            S::FIELDS.iter().cycle().skip_while(|field| field.id != self.sort).skip(1).take(S::FIELDS.len());
        after.find(is_choice).map_or(self.sort, |field| field.id)
    }

    /// The rows in the order of the table. Equals are in the order of their keys, so that they stand still from snapshot
    /// to snapshot.
    pub(crate) fn sorted<'a>(&self, data: &'a Frame, filter: &Filter) -> Vec<&'a S::Row> {
        let rows = S::rows(data).into_iter().filter(|row| filter.is_empty() || S::passes(row, filter, &data.snapshot));
        sorted(rows, &data.snapshot, self.field(), self.reversed, |a, b| S::key(a).cmp(&S::key(b)))
    }

    /// Where the selected row stands among `rows` now; where it stood, if it is gone.
    pub(crate) fn position(&self, rows: &[&S::Row]) -> Option<usize> {
        let cursor = self.cursor.as_ref()?;
        let last = rows.len().checked_sub(1)?;
        let found = rows.iter().position(|row| S::key(row) == cursor.key);
        Some(found.unwrap_or(cursor.index.min(last)))
    }

    /// The selected row.
    pub(crate) fn selected<'a>(&self, data: &'a Frame, filter: &Filter) -> Option<&'a S::Row> {
        let rows = self.sorted(data, filter);
        self.position(&rows).map(|index| rows[index])
    }

    fn title(&self, data: &Frame, first: usize, visible: usize, all: usize) -> String {
        let count = |n: usize| format::count(n as u64);
        if all == 0 {
            return format!(" {} ", S::NAME);
        }
        let order = match (self.field().order, self.is_descending()) {
            (Order::Number, true) => "highest first",
            (Order::Number, false) => "lowest first",
            (Order::Time, false) => "shortest first",
            (Order::Time, true) => "longest first",
            (Order::Rank, false) => "1 first",
            (Order::Rank, true) => "1 last",
            (_, true) => "last first",
            (_, false) => "in order",
        };
        let (from, to) = (count(first + 1), count(first + visible));
        let part = S::part_of(data).map_or_else(String::new, |(which, whole)| format!(", {which} of {}", count(whole)));
        format!(" {} {from}–{to} of {}{part}, by {}, {order} ", S::NAME, count(all), self.field().title())
    }

    fn head_cell(&self, index: usize, width: u16) -> text::Line<'static> {
        let field = &S::FIELDS[index];
        let title = format::cut_end(field.title_within(room(index, width)), room(index, width));
        let arrow = match (field.id == self.sort, self.is_descending()) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        // The arrow of a number takes the space before the column.
        match field.order {
            Order::Text => aligned(index, field.order, format!("{title}{arrow}")),
            Order::Number | Order::Time | Order::Rank | Order::None => {
                aligned(index, field.order, format!("{arrow}{title}"))
            }
        }
    }
}

impl Details {
    /// The explanation of a selected row has what does not fit.
    fn view(&self, is_selected: bool, theme: &Theme, area: Rect, buf: &mut Buffer) {
        const LABEL: usize = 10;
        let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
        let inner = block.inner(area);
        let room = usize::from(inner.width);
        let all = self.lines.iter().flat_map(|line| labelled(line.label, LABEL, &line.text, room));
        let all: Vec<_> = all.collect();
        let hidden = all.len().saturating_sub(inner.height.into());
        let key = if is_selected { ": i" } else { "" };
        let more = if hidden > 0 { format!(" … {hidden} more lines{key} ") } else { String::new() };
        let title = text::Line::styled(format!(" {} ", self.title), theme.title);
        block.title(title).title(text::Line::styled(more, theme.strong).right_aligned()).render(area, buf);
        for (line, row) in all.into_iter().zip(inner.rows()) {
            let (label, words) = (text::Span::styled(line.label, theme.strong), text::Span::raw(line.text));
            put(text::Line::from(vec![label, words]), row, buf);
        }
    }
}

impl<S: TableSource> Pane for TableState<S> {
    fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    fn update(&mut self, data: &Frame, filter: &Filter, area: Rect, message: Message) {
        let (area, _) = parts::<S>(area);
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

    fn view(&self, data: &Frame, filter: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let rows = self.sorted(data, filter);
        let selected = self.position(&rows);
        let (area, below) = parts::<S>(area);
        let details = if rows.is_empty() { None } else { S::details(selected.map(|index| rows[index]), data) };
        if let Some(details) = details {
            details.view(selected.is_some(), theme, below, buf);
        }
        let first = scroll_offset(selected, self.offset, page(area), rows.len());
        let visible = rows.iter().enumerate().skip(first).take(page(area));

        let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
        let title = text::Line::styled(self.title(data, first, visible.len(), rows.len()), theme.title);
        let block = block.title(cut(title, area.width.into()));
        if rows.is_empty() {
            let inner = block.inner(area);
            block.render(area, buf);
            let nothing = if filter.is_empty() { S::nothing(&data.snapshot) } else { "No row matches the filter." };
            return Paragraph::new(nothing).wrap(Wrap { trim: true }).render(inner, buf);
        }

        let columns = columns::<S>(area.width, self.sort, data);
        let mut places = block.inner(area).rows();
        // Its line alone: a block goes through all cells of its area, to give them no style.
        block.render(Rect { height: area.height.min(1), ..area }, buf);
        if let Some(place) = places.next() {
            buf.set_style(place, theme.strong);
            let head = columns.iter().map(|(field, width)| (self.head_cell(*field, *width), *width));
            put_cells(head, place, buf);
        }
        for ((index, row), place) in visible.zip(places) {
            if selected == Some(index) {
                buf.set_style(place, theme.selected);
            }
            let cell = |(field, width): &(usize, u16)| (cell::<S>(*field, *width, row, &data.snapshot, theme), *width);
            put_cells(columns.iter().map(cell), place, buf);
        }
    }

    fn explained(&self, data: &Frame, filter: &Filter) -> Option<Vec<Explained>> {
        let row = self.selected(data, filter)?;
        let fields = S::FIELDS.iter().filter(|field| field.order != Order::None && S::has(field, data));
        let of_field = |field: &Field<S::Row>| {
            let value = Some((field.get)(row, &data.snapshot).text(usize::MAX));
            Explained { value, ..Explained::new(field.title_within(LABEL), field.explanation()) }
        };
        let mut lines: Vec<Explained> = fields.map(of_field).collect();
        // What is special about this row, and what to do, stands before what every row has.
        let more = S::explain(row, &data.snapshot);
        if !more.is_empty() {
            lines.splice(1..1, more.into_iter().chain([Explained::new("", "")]));
        }
        Some(lines)
    }
}

/// Cells side by side. ratatui's own table solves a system of constraints for that, which takes longer than to draw all cells.
fn put_cells(cells: impl Iterator<Item = (text::Line<'static>, u16)>, area: Rect, buf: &mut Buffer) {
    let mut left = area;
    for (line, width) in cells {
        let width = width.min(left.width);
        line.render(Rect { width, ..left }, buf);
        left = Rect { x: left.x + width, width: left.width - width, ..left };
    }
}

fn page(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(HEAD))
}

/// The room of a column for its text: the first one has no space before it.
fn room(index: usize, width: u16) -> usize {
    usize::from(width) - usize::from(index != 0)
}

fn aligned(index: usize, order: Order, words: String) -> text::Line<'static> {
    match order {
        Order::Text if index == 0 => text::Line::raw(words),
        Order::Text => text::Line::raw(format!(" {words}")),
        Order::Number | Order::Time | Order::Rank | Order::None => text::Line::raw(words).right_aligned(),
    }
}

/// The columns that a table of this width has, as indices of fields, and how wide each of them is.
pub(crate) fn columns<S: TableSource>(width: u16, sort: &str, data: &Frame) -> Vec<(usize, u16)> {
    present::columns(width, [S::SORT, sort], |field| S::has(field, data))
}

fn cell<S: TableSource>(index: usize, width: u16, row: &S::Row, data: &Snapshot, theme: &Theme) -> text::Line<'static> {
    let field = &S::FIELDS[index];
    let value = (field.get)(row, data);
    let line = aligned(index, field.order, value.text(room(index, width)));
    match value.level() {
        _ if value.is_nothing() => line.style(theme.dim),
        Some(level) => line.style(theme.level(level)),
        None => line,
    }
}
