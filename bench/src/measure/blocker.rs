//! Blockers: requests whose handler blocks its thread, for a known time T or for as long as a database takes.

use super::{Backend, Keeping, Session, learn, learn_request, lenient, save_launch};
use crate::http::{Client, Request};
use crate::load::Target;
use crate::process::Running;
use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A kind of blocker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Threads that wait
    Sleep,
    /// Threads that work, for a time on their own clock
    Cpu,
    /// Threads that derive a key, with as many rounds as take this server as long
    Pbkdf2,
    /// Threads that save a launch in their process's memory, which blocks nothing: what the requests alone do
    LaunchesMemory,
    /// Threads that save a launch in SQLite
    LaunchesSqlite,
    /// Threads that save a launch in SQLite and wait for the disk
    LaunchesSqliteFull,
    /// Threads that save a launch in PostgreSQL
    LaunchesPostgres,
}

/// The server of a climb; dropped, it ends, with its backend.
pub enum Serving {
    /// It keeps nothing.
    Plain(Running),
    /// It keeps launches.
    Keeping(Keeping),
}

impl Serving {
    /// The server itself.
    pub fn running(&mut self) -> &mut Running {
        match self {
            Serving::Plain(running) => running,
            Serving::Keeping(keeping) => &mut keeping.running,
        }
    }
}

impl Kind {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sleep => "sleep",
            Kind::Cpu => "cpu",
            Kind::Pbkdf2 => "pbkdf2",
            Kind::LaunchesMemory => "launches-memory",
            Kind::LaunchesSqlite => "launches-sqlite",
            Kind::LaunchesSqliteFull => "launches-sqlite-full",
            Kind::LaunchesPostgres => "launches-postgres",
        }
    }

    /// The backend of one that saves launches.
    pub fn backend(self) -> Option<Backend> {
        match self {
            Kind::Sleep | Kind::Cpu | Kind::Pbkdf2 => None,
            Kind::LaunchesMemory => Some(Backend::Memory),
            Kind::LaunchesSqlite => Some(Backend::Sqlite),
            Kind::LaunchesSqliteFull => Some(Backend::SqliteFull),
            Kind::LaunchesPostgres => Some(Backend::Postgres),
        }
    }

    /// All that save launches, as far as this machine has their backends.
    fn launches() -> Vec<Kind> {
        let is_here = |kind: &Kind| kind.backend().is_some_and(|backend| backend.missing().is_none());
        Kind::value_variants().iter().copied().filter(is_here).collect()
    }

    /// A fresh process of the server for it.
    ///
    /// # Errors
    /// A server or database that does not get ready.
    pub fn start(self, session: &Session<'_>) -> Result<Serving> {
        Ok(match self.backend() {
            None => Serving::Plain(session.start()?),
            Some(backend) => Serving::Keeping(session.start_keeping(backend)?),
        })
    }

    /// The request of a blocker, which takes this server `length` when it is asked alone, if the kind has a length.
    ///
    /// # Errors
    /// A server that does not answer.
    pub fn target(self, length: Duration, running: &mut Running) -> Result<Target> {
        let ms = length.as_secs_f64() * 1e3;
        match self {
            Kind::Sleep => learn(running, &format!("/sleep?ms={ms}")),
            Kind::Cpu => learn(running, &format!("/timer?ms={ms}&clock=cpu")),
            Kind::Pbkdf2 => {
                let rounds = rounds(length, running)?;
                learn(running, &format!("/pbkdf2?iterations={rounds}"))
            }
            _ => {
                let request = save_launch(&running.address.to_string(), "a blocker");
                // Each answer has another number.
                Ok(lenient(learn_request(running, "POST /launches", &request)?))
            }
        }
    }

    /// T in ms where requests with a length have this one; 0 for those that take as long as they take.
    pub fn block_ms(self, usual: f64) -> f64 {
        if self.backend().is_some() { 0.0 } else { usual }
    }

    /// Blockers of this kind that can make progress at once, if that is known: each that works needs a processor.
    pub fn at_once(self, k: usize, cores: usize) -> Option<usize> {
        match self {
            Kind::Sleep => Some(k),
            Kind::Cpu => Some(k.min(cores)),
            // How long a function or a database takes varies.
            _ => None,
        }
    }
}

/// Kinds as a user names them: one, or several that belong together.
#[derive(Debug, Clone)]
pub struct Kinds(pub Vec<Kind>);

impl Kinds {
    /// All that were named, each once.
    pub fn all(named: &[Kinds]) -> Vec<Kind> {
        let mut all: Vec<Kind> = Vec::new();
        for kind in named.iter().flat_map(|one| &one.0) {
            if !all.contains(kind) {
                all.push(*kind);
            }
        }
        all
    }
}

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "launches" {
            return Ok(Kinds(Kind::launches()));
        }
        let kind = Kind::from_str(text, false).map_err(|_| {
            let known: Vec<&str> = Kind::value_variants().iter().map(|kind| kind.name()).collect();
            format!("the kinds are launches (every backend that is installed), {}", known.join(", "))
        })?;
        match kind.backend().and_then(Backend::missing) {
            Some(reason) => Err(reason),
            None => Ok(Kinds(vec![kind])),
        }
    }
}

/// Rounds of key derivation that take a server about this long.
fn rounds(length: Duration, running: &Running) -> Result<u64> {
    const ASKED: u32 = 50_000;
    let mut client = Client::connect(running.address)?;
    let request = Request::get(running.address.to_string(), format!("/pbkdf2?iterations={ASKED}")).to_bytes();
    let mut alone = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        client.ask(&request)?;
        alone.push(started.elapsed());
    }
    alone.sort();
    Ok((f64::from(ASKED) * length.as_secs_f64() / alone[1].as_secs_f64()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_names_one_kind_or_all_that_save_launches() {
        assert_eq!("cpu".parse::<Kinds>().unwrap().0, [Kind::Cpu]);
        let launches = "launches".parse::<Kinds>().unwrap().0;
        assert!(launches.starts_with(&[Kind::LaunchesMemory, Kind::LaunchesSqlite, Kind::LaunchesSqliteFull]), "{launches:?}");
        assert!("launch".parse::<Kinds>().unwrap_err().contains("launches-sqlite-full"));
    }

    #[test]
    fn each_kind_has_one_name_on_the_command_line_in_files_and_in_metrics() {
        for kind in Kind::value_variants() {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(Kind::from_str(kind.name(), false), Ok(*kind));
        }
    }
}
