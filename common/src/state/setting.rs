//! `--state`: where the launches are kept.

use super::sqlite::READERS;
use std::fmt;
use std::path::PathBuf;

/// Where the launches are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// In each process's own memory.
    Memory,
    /// In a `SQLite` file, which several processes of one machine may share.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// When a commit reaches the disk.
        synchronous: Synchronous,
    },
    /// In PostgreSQL, which processes of several machines may share.
    #[cfg(feature = "postgres")]
    Postgres(Box<tokio_postgres::Config>),
}

/// When a commit of `SQLite` reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// At checkpoints: a commit survives the end of the process, but perhaps not a power failure.
    Normal,
    /// Before the commit returns: each one waits for the disk.
    Full,
}

impl Synchronous {
    pub(super) fn name(self) -> &'static str {
        match self {
            Synchronous::Normal => "normal",
            Synchronous::Full => "full",
        }
    }
}

impl Setting {
    /// Reads the value of `--state`.
    ///
    /// # Errors
    /// Returns what it takes. The value may hold a password, so it is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "memory" {
            return Ok(Setting::Memory);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return postgres(text);
        }
        let Some(rest) = text.strip_prefix("sqlite:") else {
            return Err("takes memory, sqlite:PATH or postgres://USER@HOST/DATABASE".into());
        };
        let (path, synchronous) = match rest.rsplit_once("?synchronous=") {
            None => (rest, Synchronous::Normal),
            Some((path, "normal")) => (path, Synchronous::Normal),
            Some((path, "full")) => (path, Synchronous::Full),
            Some(_) => return Err("synchronous takes normal or full".into()),
        };
        if path.is_empty() {
            return Err("takes the path of a file behind sqlite:".into());
        }
        Ok(Setting::Sqlite { path: path.into(), synchronous })
    }

    /// The most connections to a database that a process opens; `None` without a database.
    pub(crate) fn connections(&self) -> Option<String> {
        match self {
            Setting::Memory => None,
            Setting::Sqlite { .. } => Some(format!("1 that writes, {READERS} that read")),
            #[cfg(feature = "postgres")]
            Setting::Postgres(_) => Some(super::postgres::CONNECTIONS.to_string()),
        }
    }

    /// Who sees a launch that was saved: the value of the header `X-State`.
    #[must_use]
    pub fn scope(&self) -> &'static str {
        match self {
            Setting::Memory => "memory; of this process only",
            Setting::Sqlite { .. } => "sqlite; shared by all processes",
            #[cfg(feature = "postgres")]
            Setting::Postgres(_) => "postgres; shared by all processes",
        }
    }
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &str) -> Result<Setting, String> {
    Err("this program was built without PostgreSQL: build it with --features common/postgres".into())
}

#[cfg(feature = "postgres")]
fn postgres(url: &str) -> Result<Setting, String> {
    let config: tokio_postgres::Config =
        url.parse().map_err(|error: tokio_postgres::Error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })?;
    if config.get_hosts().is_empty() {
        return Err("takes a host: postgres://USER@HOST/DATABASE".into());
    }
    Ok(Setting::Postgres(Box::new(config)))
}

/// Hosts, ports and the database, but neither user nor password.
#[cfg(feature = "postgres")]
fn without_secrets(config: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let hosts: Vec<String> = config.get_hosts().iter().map(name).collect();
    let ports: Vec<String> = config.get_ports().iter().map(|port| format!(":{port}")).collect();
    let database = config.get_dbname().map_or_else(String::new, |name| format!("/{name}"));
    format!("postgres://{}{}{database}", hosts.join(","), ports.join(","))
}

/// As the receipt and messages show it.
impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Memory => out.write_str("memory"),
            Setting::Sqlite { path, synchronous: Synchronous::Normal } => write!(out, "sqlite:{}", path.display()),
            #[cfg(feature = "postgres")]
            Setting::Postgres(config) => out.write_str(&without_secrets(config)),
            Setting::Sqlite { path, synchronous } => write!(out, "sqlite:{}?synchronous={}", path.display(), synchronous.name()),
        }
    }
}
