//! One file a screen, and which of them is shown.

mod connections;
mod destinations;
mod endpoints;
mod failures;
mod processes;
mod trust;
mod walls;

use ratatui::{buffer::Buffer, layout::Rect};

pub(crate) use self::{
    connections::Connections, destinations::Destinations, endpoints::Endpoints, failures::Failures,
    processes::Processes, walls::Walls,
};
use super::{
    message::Message,
    table::{Line, State},
    theme::Theme,
};
use crate::model::{filter::Filter, query::Of, snapshot::Snapshot};

/// A screen, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Screen {
    #[default]
    Endpoints,
    Destinations,
    Processes,
    Connections,
    Walls,
    Failures,
    Trust,
}

impl Screen {
    /// In the order of their digits.
    pub(crate) const ALL: [Self; 7] = [
        Self::Endpoints,
        Self::Destinations,
        Self::Processes,
        Self::Connections,
        Self::Walls,
        Self::Failures,
        Self::Trust,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "Endpoints",
            Self::Destinations => "Destinations",
            Self::Processes => "Processes",
            Self::Connections => "Connections",
            Self::Walls => "Walls",
            Self::Failures => "Failures",
            Self::Trust => "Trust",
        }
    }

    /// The one so many places further on, round and round.
    pub(crate) fn turned(self, by: usize) -> Self {
        let place = Self::ALL.iter().position(|screen| *screen == self).unwrap_or(0);
        Self::ALL[(place + by) % Self::ALL.len()]
    }
}

/// What the user chose to see of each screen; it stays while another one is shown.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    pub(crate) shown: Screen,
    pub(crate) endpoints: State<Endpoints>,
    pub(crate) destinations: State<Destinations>,
    pub(crate) processes: State<Processes>,
    pub(crate) connections: State<Connections>,
    /// Whose connections are shown.
    pub(crate) of: Of,
    /// Where they were asked for.
    pub(crate) from: Option<Screen>,
    pub(crate) walls: State<Walls>,
    pub(crate) failures: State<Failures>,
    pub(crate) trust: trust::State,
}

impl Screens {
    /// Shows the connections of the selected row; without one, nothing happens.
    pub(crate) fn enter(&mut self, data: &Snapshot, filter: &Filter) {
        let of = match self.shown {
            Screen::Endpoints => self.endpoints.selected(data, filter).map(|row| Of::Endpoint(row.key)),
            Screen::Destinations => self.destinations.selected(data, filter).map(|row| Of::Destination {
                netns: row.netns,
                local_ip: row.local_ip,
                remote: row.remote,
            }),
            Screen::Processes => self.processes.selected(data, filter).map(|row| Of::Process(row.process.pid)),
            Screen::Connections | Screen::Walls | Screen::Failures | Screen::Trust => None,
        };
        if let Some(of) = of {
            self.from = Some(self.shown);
            (self.shown, self.of) = (Screen::Connections, of);
            self.connections = State::default();
        }
    }

    /// Back to where connections were asked for; whether there was such a place.
    pub(crate) fn leave(&mut self) -> bool {
        let from = if self.shown == Screen::Connections { self.from.take() } else { None };
        if let Some(from) = from {
            (self.shown, self.of) = (from, Of::All);
        }
        from.is_some()
    }

    /// Whether a row is selected.
    pub(crate) fn has_cursor(&self) -> bool {
        match self.shown {
            Screen::Endpoints => self.endpoints.cursor.is_some(),
            Screen::Destinations => self.destinations.cursor.is_some(),
            Screen::Processes => self.processes.cursor.is_some(),
            Screen::Connections => self.connections.cursor.is_some(),
            Screen::Walls => self.walls.cursor.is_some(),
            Screen::Failures => self.failures.cursor.is_some(),
            Screen::Trust => false,
        }
    }

    pub(crate) fn update(&mut self, data: &Snapshot, filter: &Filter, area: Rect, message: Message) {
        match self.shown {
            Screen::Endpoints => self.endpoints.update(data, filter, area, message),
            Screen::Destinations => self.destinations.update(data, filter, area, message),
            Screen::Processes => self.processes.update(data, filter, area, message),
            Screen::Connections => self.connections.update(data, filter, area, message),
            Screen::Walls => self.walls.update(data, filter, area, message),
            Screen::Failures => self.failures.update(data, filter, area, message),
            Screen::Trust => self.trust.update(data, area, message),
        }
    }

    pub(crate) fn view(&self, data: &Snapshot, filter: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer) {
        match self.shown {
            Screen::Endpoints => self.endpoints.view(data, filter, theme, area, buf),
            Screen::Destinations => self.destinations.view(data, filter, theme, area, buf),
            Screen::Processes => self.processes.view(data, filter, theme, area, buf),
            Screen::Connections => self.connections.view(data, filter, theme, area, buf),
            Screen::Walls => self.walls.view(data, filter, theme, area, buf),
            Screen::Failures => self.failures.view(data, filter, theme, area, buf),
            Screen::Trust => self.trust.view(data, theme, area, buf),
        }
    }

    /// Every number of the selected row, with what it is.
    pub(crate) fn explained(&self, data: &Snapshot, filter: &Filter) -> Option<Vec<Line>> {
        match self.shown {
            Screen::Endpoints => self.endpoints.explained(data, filter),
            Screen::Destinations => self.destinations.explained(data, filter),
            Screen::Processes => self.processes.explained(data, filter),
            Screen::Connections => self.connections.explained(data, filter),
            Screen::Walls => self.walls.explained(data, filter),
            Screen::Failures => self.failures.explained(data, filter),
            Screen::Trust => None,
        }
    }
}
