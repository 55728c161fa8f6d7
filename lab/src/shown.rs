//! The list of panes, as pages see it.

use crate::pane::Status;
use serde::Serialize;

/// A pane as pages see it.
#[derive(Serialize)]
pub struct Shown<'s> {
    pub name: &'s str,
    pub about: &'s str,
    pub runs_on: String,
    pub is_own: bool,
    /// The number of the order that started it, so that a page tells one start from the next.
    pub start: u64,
    #[serde(flatten)]
    pub status: &'s Status,
}

/// All panes.
#[derive(Serialize)]
pub struct Panes<'s> {
    pub panes: Vec<Shown<'s>>,
    pub servers: Vec<(&'s str, &'s str)>,
    pub threads: usize,
    pub processes: usize,
    pub rate: u32,
    pub blockers: usize,
    pub length_ms: u64,
    pub spins: bool,
}
