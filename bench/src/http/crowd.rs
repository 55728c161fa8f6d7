//! Several clients at once.

use anyhow::Result;
use std::thread;

/// Runs a function for each of several clients, each on a thread of its own.
///
/// # Errors
/// The first of theirs.
pub fn at_once<T: Send>(clients: usize, run: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let run = &run;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|client| scope.spawn(move || run(client))).collect();
        let ended = clients.into_iter().map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect()
    })
}
