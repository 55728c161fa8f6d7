//! The user's terminal: interrupts, progress, output, and hints.

pub mod hint;
pub mod interrupt;
pub mod output;
pub mod progress;
