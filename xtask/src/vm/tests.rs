//! The runner itself, on a real kernel: what a guest may do wrong is told for what it is.
