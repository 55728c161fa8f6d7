//! The user's terminal: interrupts, progress, output, hints, and errors of usage.

pub mod hint;
pub mod interrupt;
pub mod output;
pub mod progress;
pub mod usage;
