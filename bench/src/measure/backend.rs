//! The backends that launches are kept in, each fresh for one trial, and the requests that save launches there.

use super::{Conditions, Session};
use crate::http::Request;
use crate::process::{Database, Running};
use anyhow::{Context, Result};
use common::state::NewLaunch;
use serde::{Deserialize, Serialize};
use std::fmt;
use tempfile::TempDir;

/// A backend of `--state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Each process's own memory.
    Memory,
    /// A file of SQLite.
    Sqlite,
    /// A file of SQLite whose every commit waits for the disk.
    SqliteFull,
    /// A PostgreSQL server.
    Postgres,
}

impl Backend {
    /// Those that this machine has.
    pub fn here() -> Vec<Backend> {
        let all = [Backend::Memory, Backend::Sqlite, Backend::SqliteFull, Backend::Postgres];
        all.into_iter().filter(|one| one.missing().is_none()).collect()
    }

    /// The reason why this machine does not have it; `None` if it does.
    pub fn missing(self) -> Option<String> {
        if self == Backend::Postgres { Database::missing() } else { None }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Memory => "memory",
            Backend::Sqlite => "sqlite",
            Backend::SqliteFull => "sqlite-full",
            Backend::Postgres => "postgres",
        }
    }
}

/// Its name in titles.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Memory => "each process's own memory",
            Backend::Sqlite => "SQLite",
            Backend::SqliteFull => "SQLite, each commit on the disk (synchronous=FULL)",
            Backend::Postgres => "PostgreSQL",
        })
    }
}

/// A server that keeps launches in a backend of its own; dropped, both end, and what was kept is gone.
pub struct Keeping {
    /// The server.
    pub running: Running,
    _database: Option<Database>,
    _folder: TempDir,
}

impl Session<'_> {
    /// A fresh process of the server with a fresh backend.
    ///
    /// # Errors
    /// One of both does not get ready.
    pub fn start_keeping(&self, backend: Backend) -> Result<Keeping> {
        let folder = tempfile::tempdir().context("a folder for the database")?;
        let path = folder.path().join("launches.db");
        let mut database = None;
        let state = match backend {
            Backend::Memory => "memory".to_owned(),
            Backend::Sqlite => format!("sqlite:{}", path.display()),
            Backend::SqliteFull => format!("sqlite:{}?synchronous=full", path.display()),
            Backend::Postgres => database.insert(Database::start()?).state(),
        };
        let server = self.server.with_state(&state);
        let mut conditions: Conditions = self.conditions.clone();
        conditions.more.extend(["--state".to_owned(), state]);
        let running = Session { server: &server, conditions: &conditions, ..*self }.start()?;
        Ok(Keeping { running, _database: database, _folder: folder })
    }
}

/// A request that saves a launch of this mission.
pub fn save_launch(host: &str, mission: &str) -> Request {
    let launch = NewLaunch {
        mission: mission.to_owned(),
        rocket: "Explorer IS1".into(),
        launch_date: "2030-12-27".into(),
        target: "Kepler-442 b".into(),
        customers: vec!["ZTM".into(), "NASA".into()],
        upcoming: true,
        success: true,
    };
    Request::post_json(host, "/launches", serde_json::to_vec(&launch).unwrap_or_default())
}
