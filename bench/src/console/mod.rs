//! The person at the terminal: interrupts and progress.

pub mod interrupt;
pub mod progress;
