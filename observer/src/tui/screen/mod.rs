//! One file a screen, and which of them is shown.

mod connections;
mod destinations;
mod endpoints;
mod failures;
mod limits;
mod processes;
mod quality;

pub(crate) use self::{
    connections::Connections, destinations::Destinations, endpoints::Endpoints, failures::Failures, limits::Limits,
    processes::Processes,
};
use super::{pane::Pane, table::TableState};
use crate::model::{filter::Filter, query::Of, snapshot::Snapshot};

/// A screen, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Screen {
    #[default]
    Endpoints,
    Destinations,
    Processes,
    Connections,
    Limits,
    Failures,
    Quality,
}

impl Screen {
    /// In the order of their digits.
    pub(crate) const ALL: [Self; 7] = [
        Self::Endpoints,
        Self::Destinations,
        Self::Processes,
        Self::Connections,
        Self::Limits,
        Self::Failures,
        Self::Quality,
    ];

    /// Its short name: all of them fit into 80 columns.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "Endpoints",
            Self::Destinations => "Destinations",
            Self::Processes => "Processes",
            Self::Connections => "Connections",
            Self::Limits => "Limits",
            Self::Failures => "Failures",
            Self::Quality => "Data",
        }
    }

    /// Its full name, where there is room for it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Quality => "Data quality",
            other => other.name(),
        }
    }

    /// The one so many places further on, round and round.
    pub(crate) fn turned(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }

    /// The key that shows it.
    pub(crate) const fn digit(self) -> usize {
        self as usize + 1
    }
}

/// What the user chose to see of each screen; it stays while another one is shown.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    pub(crate) shown: Screen,
    pub(crate) endpoints: TableState<Endpoints>,
    pub(crate) destinations: TableState<Destinations>,
    pub(crate) processes: TableState<Processes>,
    pub(crate) connections: TableState<Connections>,
    /// The scope of the connections that are shown.
    pub(crate) of: Of,
    /// The screen from which they were opened.
    pub(crate) from: Option<Screen>,
    pub(crate) limits: TableState<Limits>,
    pub(crate) failures: TableState<Failures>,
    pub(crate) quality: quality::QualityState,
}

impl Screens {
    /// Shows the connections of the selected row; without one, nothing happens.
    pub(crate) fn enter(&mut self, data: &Snapshot, filter: &Filter) {
        let of = match self.shown {
            Screen::Endpoints => self.endpoints.selected(data, filter).map(|row| Of::Endpoint(row.key)),
            Screen::Destinations => self.destinations.selected(data, filter).map(|row| Of::Destination {
                netns: row.netns,
                local_ip: row.local_ip,
                device: row.device,
                remote: row.remote,
            }),
            Screen::Processes => self.processes.selected(data, filter).map(|row| Of::Process(row.process.pid)),
            Screen::Connections | Screen::Limits | Screen::Failures | Screen::Quality => None,
        };
        if let Some(of) = of {
            self.from = Some(self.shown);
            (self.shown, self.of) = (Screen::Connections, of);
            self.connections = TableState::default();
        }
    }

    /// Back to the screen from which connections were opened; whether there was one.
    pub(crate) fn leave(&mut self) -> bool {
        let from = if self.shown == Screen::Connections { self.from.take() } else { None };
        if let Some(from) = from {
            (self.shown, self.of) = (from, Of::All);
        }
        from.is_some()
    }

    /// Whether a snapshot has the requested connections: one at which the display is paused may have others, or none.
    pub(crate) fn are_answered(&self, data: &Snapshot) -> bool {
        data.connections.as_ref().is_some_and(|it| it.query.of == self.of)
    }

    /// Whether single connections of one row are shown: then their scope has the place of the screens' names.
    pub(crate) fn has_scope(&self) -> bool {
        self.shown == Screen::Connections && self.of != Of::All
    }

    /// The screen that is shown.
    pub(crate) fn pane(&self) -> &dyn Pane {
        match self.shown {
            Screen::Endpoints => &self.endpoints,
            Screen::Destinations => &self.destinations,
            Screen::Processes => &self.processes,
            Screen::Connections => &self.connections,
            Screen::Limits => &self.limits,
            Screen::Failures => &self.failures,
            Screen::Quality => &self.quality,
        }
    }

    /// As [`Self::pane`].
    pub(crate) fn pane_mut(&mut self) -> &mut dyn Pane {
        match self.shown {
            Screen::Endpoints => &mut self.endpoints,
            Screen::Destinations => &mut self.destinations,
            Screen::Processes => &mut self.processes,
            Screen::Connections => &mut self.connections,
            Screen::Limits => &mut self.limits,
            Screen::Failures => &mut self.failures,
            Screen::Quality => &mut self.quality,
        }
    }
}
