//! What the screen shows, and what keys do to it.

mod behaviour;
mod drawing;
pub(crate) mod fixture;
mod gaps;
mod numbers;
mod possible;
mod property;
mod requests;
mod rows;
mod screens;
mod styles;
mod transcript;
