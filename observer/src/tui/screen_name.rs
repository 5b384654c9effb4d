//! Which screens there are.

/// A screen, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ScreenName {
    #[default]
    Endpoints,
    Destinations,
    Processes,
    Connections,
    Limits,
    Failures,
    Services,
    Quality,
}

impl ScreenName {
    /// In the order of their digits.
    pub(crate) const ALL: [Self; 8] = [
        Self::Endpoints,
        Self::Destinations,
        Self::Processes,
        Self::Connections,
        Self::Limits,
        Self::Failures,
        Self::Services,
        Self::Quality,
    ];

    /// Its name in sentences and titles of tabs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "Endpoints",
            Self::Destinations => "Destinations",
            Self::Processes => "Processes",
            Self::Connections => "Connections",
            Self::Limits => "Limits",
            Self::Failures => "Failures",
            Self::Services => "Services",
            Self::Quality => "Data",
        }
    }

    /// Its short name: all of them fit into 80 columns.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Destinations => "Dests",
            Self::Connections => "Conns",
            other => other.name(),
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
