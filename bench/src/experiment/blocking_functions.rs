//! Which functions hurt? Those that look harmless, each in turn, a few times a second.

use super::stream::{self, Stream};
use super::{Session, learn, learn_request, warm_up};
use crate::http::client::{get, post};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Requests per second.
pub const RATE: f64 = 5.0;
/// Records in the document that is read: it must not be longer than a body may be.
const RECORDS: usize = 5000;
/// Windows of the round in which each function is called.
const WINDOWS: u32 = 2;

/// One entry for each function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockingFunctions {
    /// In the order of the lecture.
    pub functions: Vec<Stream>,
}

/// The functions' names, and what to send.
fn functions() -> [(&'static str, Vec<u8>); 5] {
    [
        ("stringify", get("/json/stringify")),
        ("parse", post("/json/parse", &common::work::stringify(RECORDS))),
        ("sort", get("/sort")),
        ("pbkdf2", get("/pbkdf2")),
        ("scrypt", get("/scrypt")),
    ]
}

/// Names of the functions, as tables show them.
pub fn names() -> [&'static str; 5] {
    functions().map(|(name, _)| name)
}

/// Runs all functions on one fresh process.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn run(session: &Session<'_>) -> Result<BlockingFunctions> {
    let mut running = session.start("blocking-functions")?;
    let probe = learn(&mut running, "/")?;
    let warm = warm_up(session, &probe);
    running.explain(warm)?;
    let window = Duration::from_millis(session.settings.window_ms) * WINDOWS;
    let mut found = Vec::new();
    for (name, request) in functions() {
        if session.server.unsupported.contains_key(name) {
            continue;
        }
        let function = learn_request(&mut running, name, request)?;
        let _driver = session.settings.placement_of("blocking-functions").enter_driver(true);
        let stream = stream::run(session, name, (&probe, &function), RATE, window);
        found.push(running.explain(stream)?);
    }
    Ok(BlockingFunctions { functions: found })
}
