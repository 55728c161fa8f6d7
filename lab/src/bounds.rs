//! Requests of the page, and their bounds. The sliders have the same bounds, but the server does not trust the page.

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Panes at most.
pub const PANES: usize = 4;
/// Tabs that are opened at once.
pub const TABS: RangeInclusive<usize> = 1..=8;
/// Slow requests at a time.
pub const BLOCKERS: RangeInclusive<usize> = 0..=256;
/// Length of a slow request, in ms.
pub const LENGTH_MS: RangeInclusive<u64> = 10..=9000;
/// Probes a second, for each pane.
pub const RATE: RangeInclusive<u32> = 10..=1000;
/// Threads of a server.
pub const THREADS: RangeInclusive<usize> = 1..=16;
/// Processes of a server.
pub const PROCESSES: RangeInclusive<usize> = 1..=8;

/// A page's request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Show these servers.
    Show {
        /// Their names.
        servers: Vec<String>,
        /// Threads of each.
        threads: usize,
        /// Processes of each.
        processes: usize,
        /// Or processes of the first, the second, and so on, as far as they are named.
        #[serde(default)]
        each: Vec<usize>,
    },
    /// Send probes at this rate, to each of them.
    Rate {
        /// Per second.
        per_s: u32,
    },
    /// Open tabs on the slow page of each, at the same instant.
    Tabs {
        /// Number of tabs.
        count: usize,
        /// Length of the request, in ms.
        length_ms: u64,
        /// The page spins, or else it sleeps.
        spins: bool,
    },
    /// Keep this many slow requests in flight on each, until told otherwise.
    Blockers {
        /// Number of slow requests; 0 ends them.
        count: usize,
        /// Length of each, in ms.
        length_ms: u64,
        /// They spin, or else they sleep.
        spins: bool,
    },
    /// Replace the processes of one pane, or of all.
    Reload {
        /// The pane.
        pane: Option<usize>,
    },
    /// Save a launch with each, and look for it on other connections.
    Launch,
    /// Kill one process of a pane, or of each.
    Kill {
        /// The pane.
        pane: Option<usize>,
    },
    /// Start a pane's server again.
    Start {
        /// The pane.
        pane: usize,
    },
}

impl Ask {
    /// Checks that it is within bounds.
    ///
    /// # Errors
    /// Names the value that is not, and its bounds.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Ask::Show { servers, threads, processes, each } => {
                within("servers", &servers.len(), &(1..=PANES))?;
                within("processes that are named", &each.len(), &(0..=servers.len()))?;
                each.iter().try_for_each(|processes| within("processes", processes, &PROCESSES))?;
                within("threads", threads, &THREADS)?;
                within("processes", processes, &PROCESSES)
            }
            Ask::Rate { per_s } => within("requests a second", per_s, &RATE),
            Ask::Tabs { count, length_ms, .. } => {
                within("tabs", count, &TABS)?;
                within("length in ms", length_ms, &LENGTH_MS)
            }
            Ask::Blockers { count, length_ms, .. } => {
                within("slow requests", count, &BLOCKERS)?;
                within("length in ms", length_ms, &LENGTH_MS)
            }
            Ask::Reload { pane: Some(pane) } | Ask::Kill { pane: Some(pane) } | Ask::Start { pane } => {
                within("pane", pane, &(0..=PANES - 1))
            }
            Ask::Reload { pane: None } | Ask::Kill { pane: None } | Ask::Launch => Ok(()),
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: &T, range: &RangeInclusive<T>) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!("{name}: {value} is not between {} and {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(), String> {
        serde_json::from_str::<Ask>(json).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_a_slider_can_ask_for_is_allowed_and_nothing_beyond() {
        for right in [
            r#"{"act":"show","servers":["a"],"threads":2,"processes":1}"#,
            r#"{"act":"show","servers":["a","b"],"threads":2,"processes":1,"each":[2]}"#,
            r#"{"act":"launch"}"#,
            r#"{"act":"tabs","count":8,"length_ms":9000,"spins":true}"#,
            r#"{"act":"blockers","count":0,"length_ms":10,"spins":false}"#,
            r#"{"act":"rate","per_s":1000}"#,
            r#"{"act":"kill","pane":null}"#,
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            (r#"{"act":"show","servers":["a","b","c","d","e"],"threads":2,"processes":1}"#, "servers: 5"),
            (r#"{"act":"show","servers":[],"threads":2,"processes":1}"#, "servers: 0"),
            (r#"{"act":"show","servers":["a"],"threads":17,"processes":1}"#, "threads: 17"),
            (r#"{"act":"show","servers":["a"],"threads":1,"processes":9}"#, "processes: 9"),
            (r#"{"act":"show","servers":["a"],"threads":1,"processes":1,"each":[9]}"#, "processes: 9"),
            (r#"{"act":"show","servers":["a"],"threads":1,"processes":1,"each":[1,1]}"#, "processes that are named: 2"),
            (r#"{"act":"tabs","count":9,"length_ms":900,"spins":true}"#, "tabs: 9"),
            (r#"{"act":"tabs","count":2,"length_ms":9001,"spins":true}"#, "length in ms: 9001"),
            (r#"{"act":"blockers","count":257,"length_ms":100,"spins":true}"#, "slow requests: 257"),
            (r#"{"act":"blockers","count":-1,"length_ms":100,"spins":true}"#, "invalid value"),
            (r#"{"act":"rate","per_s":1001}"#, "requests a second: 1001"),
            (r#"{"act":"reload","pane":4}"#, "pane: 4"),
            (r#"{"act":"shell","command":"true"}"#, "unknown variant"),
            (r#"{"act":"rate","per_s":10,"more":1}"#, "unknown field"),
        ] {
            let error = check(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
