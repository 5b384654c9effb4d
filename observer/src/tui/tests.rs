//! What the screen shows, and what keys do to it.

mod behaviour;
mod fixture;
mod gaps;
mod narration;
mod numbers;
mod property;
mod requests;
mod screens;
mod styles;
