//! One file a screen.

pub(crate) mod endpoints;
pub(crate) mod fields;

/// Which screen is shown, with its state.
#[derive(Debug)]
pub(crate) enum Screen {
    Endpoints(endpoints::State),
}
