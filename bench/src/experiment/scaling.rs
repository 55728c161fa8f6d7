//! Up or out? The same server with more threads or processes: what it gets done, and how many blockers freeze it.

use super::Session;
use super::collateral::{BLOCK, Kind, Plan, Run, climb_on_fresh};
use crate::catalog::Server;
use crate::host::placement::cores;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Numbers of blockers; the climb ends at the limit.
const BLOCKERS: [usize; 6] = [1, 2, 4, 8, 16, MOST];
/// The most of them.
pub const MOST: usize = 32;
/// Blockers of the run that measures how much work gets done.
const WORKERS: usize = 16;
/// The limit: what feels instant.
const LIMIT: Duration = Duration::from_millis(100);

/// One entry for each number of threads or processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scaling {
    /// By ascending number.
    pub sizes: Vec<Size>,
}

/// A number of threads or processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Size {
    /// W.
    pub width: usize,
    /// Blockers that wait, until `/` freezes.
    pub sleep: Run,
    /// Blockers that work, many at once.
    pub work: Run,
}

/// The numbers that are compared: 1, 2, 4, ... to twice as many as there are cores.
pub fn widths() -> Vec<usize> {
    let most = 2 * cores().len();
    std::iter::successors(Some(1), |width| Some(width * 2)).take_while(|width| *width <= most).collect()
}

/// Whether there is a number to change.
pub fn has_width(server: &Server) -> bool {
    server.args.iter().any(|argument| argument.contains("{W}"))
}

/// Runs each number on fresh processes.
///
/// # Errors
/// A server that does not start, answers wrongly, or has no such number.
pub fn run(session: &Session<'_>) -> Result<Scaling> {
    if !has_width(session.server) {
        bail!("it has no number of threads or processes");
    }
    let sizes = widths().into_iter().map(|width| {
        let mut settings = session.settings.clone();
        settings.threads = width;
        let session = Session { settings: &settings, ..*session };
        let climb = |kind: Kind, blockers: &[usize]| {
            let window = Duration::from_millis(settings.window_ms);
            let plan = Plan { kind: kind.name(), block: BLOCK, window, limit: LIMIT, blockers: blockers.to_vec() };
            climb_on_fresh(&session, "scaling", kind, &plan, false).map(|(_, run)| run)
        };
        Ok(Size { width, sleep: climb(Kind::Sleep, &BLOCKERS)?, work: climb(Kind::Cpu, &[WORKERS])? })
    });
    Ok(Scaling { sizes: sizes.collect::<Result<_>>()? })
}
