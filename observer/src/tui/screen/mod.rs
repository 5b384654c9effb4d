//! One file a screen, and which of them is shown.

mod connections;
mod destinations;
mod endpoints;
mod failures;
mod limits;
mod processes;
mod quality;
mod services;

pub(crate) use self::{
    connections::Connections, destinations::Destinations, endpoints::Endpoints, failures::Failures, limits::Limits,
    processes::Processes, services::Services,
};
use super::{pane::Pane, screen_name::ScreenName, table::TableState};
use crate::{
    frame::Frame,
    model::{filter::Filter, query::Of},
};

/// The user's choices for each screen; they stay while another screen is shown.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    pub(crate) shown: ScreenName,
    pub(crate) endpoints: TableState<Endpoints>,
    pub(crate) destinations: TableState<Destinations>,
    pub(crate) processes: TableState<Processes>,
    pub(crate) connections: TableState<Connections>,
    /// The scope of the connections that are shown.
    pub(crate) of: Of,
    /// The screen from which they were opened.
    pub(crate) from: Option<ScreenName>,
    pub(crate) limits: TableState<Limits>,
    pub(crate) failures: TableState<Failures>,
    pub(crate) services: TableState<Services>,
    pub(crate) quality: quality::QualityState,
}

impl Screens {
    /// Shows the connections of the selected row; without one, nothing happens. Returns whether there was one.
    pub(crate) fn enter(&mut self, data: &Frame, filter: &Filter) -> bool {
        let of = match self.shown {
            ScreenName::Endpoints => self.endpoints.selected(data, filter).map(|row| Of::Endpoint(row.key)),
            ScreenName::Destinations => self.destinations.selected(data, filter).map(|row| Of::Destination {
                netns: row.netns,
                local_ip: row.local_ip,
                device: row.device,
                remote: row.remote,
            }),
            ScreenName::Processes => self.processes.selected(data, filter).map(|row| Of::Process(row.process.pid)),
            ScreenName::Services => self.services.selected(data, filter).map(|row| Of::Service(row.service.clone())),
            ScreenName::Connections | ScreenName::Limits | ScreenName::Failures | ScreenName::Quality => None,
        };
        let Some(of) = of else { return false };
        self.from = Some(self.shown);
        (self.shown, self.of) = (ScreenName::Connections, of);
        self.connections = TableState::default();
        true
    }

    /// Back to the screen from which connections were opened; whether there was one.
    pub(crate) fn leave(&mut self) -> bool {
        let from = if self.shown == ScreenName::Connections { self.from.take() } else { None };
        if let Some(from) = from {
            (self.shown, self.of) = (from, Of::All);
        }
        from.is_some()
    }

    /// Whether a frame has the requested connections: one at which the display is paused may have others, or none.
    pub(crate) fn are_answered(&self, data: &Frame) -> bool {
        data.connections.as_ref().is_some_and(|it| it.query.of == self.of)
    }

    /// Whether single connections of one row are shown: then their scope has the place of the screens' names.
    pub(crate) fn has_scope(&self) -> bool {
        self.shown == ScreenName::Connections && self.of != Of::All
    }

    /// The screen that is shown.
    pub(crate) fn pane(&self) -> &dyn Pane {
        match self.shown {
            ScreenName::Endpoints => &self.endpoints,
            ScreenName::Destinations => &self.destinations,
            ScreenName::Processes => &self.processes,
            ScreenName::Connections => &self.connections,
            ScreenName::Limits => &self.limits,
            ScreenName::Failures => &self.failures,
            ScreenName::Services => &self.services,
            ScreenName::Quality => &self.quality,
        }
    }

    /// As [`Self::pane`].
    pub(crate) fn pane_mut(&mut self) -> &mut dyn Pane {
        match self.shown {
            ScreenName::Endpoints => &mut self.endpoints,
            ScreenName::Destinations => &mut self.destinations,
            ScreenName::Processes => &mut self.processes,
            ScreenName::Connections => &mut self.connections,
            ScreenName::Limits => &mut self.limits,
            ScreenName::Failures => &mut self.failures,
            ScreenName::Services => &mut self.services,
            ScreenName::Quality => &mut self.quality,
        }
    }
}
