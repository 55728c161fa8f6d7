//! A round: one folder in `bench-results/`, added to and never overwritten; how it is measured, kept, found and read.
//!
//! `round.json` says what is measured, on what, and how; `trials.jsonl` gets a line as each trial ends, so that a killed round loses at most
//! one.

mod campaign;
mod find;
mod header;
mod plan;
mod read;
mod schema1;
mod settled;
mod store;
mod trial;

pub use campaign::{begin, measure, prepare, row, take, unsupported};
pub use find::{differences, find, name_of, new_folder, newest, null_for};
pub use header::{Header, Settings};
pub use plan::cut;
pub use read::{numbers, readings, remarks};
pub use settled::WIDTH as SETTLED_WIDTH;
pub use store::Round;
pub use trial::{Outcome, Trial};
