//! Launches in a `SQLite` file: shared by all processes of one machine.
//!
//! One connection writes, and a bounded number read beside it (WAL). A file has one writer at a time anyway: the threads of a process
//! queue for its connection in turn, and only processes wait for one another by `SQLite`'s busy timeout. `SQLite` numbers the rows of a table
//! from which nothing is removed 1, 2, 3, ..., and a transaction that fails leaves no gap.

use super::{Backend, Failure, Launch, NewLaunch, Page, Synchronous};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that read.
pub(crate) const READERS: usize = 7;
/// The longest wait for another process that writes.
const BUSY: Duration = Duration::from_secs(5);
/// The schema of this program, which the file holds as its `user_version`.
const SCHEMA: i64 = 1;

const CREATE: &str = "CREATE TABLE launches (
    flight_number INTEGER PRIMARY KEY,
    mission TEXT NOT NULL,
    rocket TEXT NOT NULL,
    launch_date TEXT NOT NULL,
    target TEXT NOT NULL,
    customers TEXT NOT NULL,
    upcoming INTEGER NOT NULL,
    success INTEGER NOT NULL
) STRICT";
const LIST: &str = "SELECT * FROM launches WHERE flight_number BETWEEN ?1 AND ?2 ORDER BY flight_number";
const ONE: &str = "SELECT * FROM launches WHERE flight_number = ?1";
const ADD: &str = "INSERT INTO launches (mission, rocket, launch_date, target, customers, upcoming, success)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const ABORT: &str = "UPDATE launches SET upcoming = 0, success = 0 WHERE flight_number = ?1 RETURNING *";

pub(super) struct Sqlite {
    path: PathBuf,
    synchronous: Synchronous,
    writer: Mutex<Option<Opened>>,
    readers: Pool,
}

/// A connection, and the device and inode of the file that it is to.
struct Opened {
    connection: Connection,
    file: (u64, u64),
}

/// Idle connections, and how many more may be opened.
struct Pool {
    places: Mutex<Places>,
    returned: Condvar,
}

struct Places {
    idle: Vec<Opened>,
    unopened: usize,
}

impl Places {
    fn forget_idle(&mut self) {
        self.unopened += self.idle.len();
        self.idle.clear();
    }
}

impl Sqlite {
    /// Opens the file, and creates it and its table if they are missing.
    pub fn open(path: &Path, synchronous: Synchronous) -> Result<Self, Failure> {
        let deadline = Instant::now() + BUSY;
        let writer = loop {
            // To switch a file to WAL takes all of it for a moment, for which the busy timeout does not wait.
            match prepare(path, synchronous) {
                Err(trouble) if trouble.is_busy() && Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                other => break other?,
            }
        };
        let places = Places { idle: Vec::new(), unopened: READERS };
        Ok(Sqlite {
            path: path.into(),
            synchronous,
            writer: Mutex::new(Some(writer)),
            readers: Pool { places: Mutex::new(places), returned: Condvar::new() },
        })
    }

    /// Another connection. A file that is gone is not replaced by an empty one.
    fn connect(&self) -> Result<Opened, Failure> {
        Ok(connect(&self.path, self.synchronous, OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE)?)
    }

    /// Fails if the file of this connection is no longer at its path: `SQLite` would go on with it, and what it saves there is lost.
    fn check(&self, opened: &Opened) -> Result<(), Failure> {
        let found = identity(&self.path);
        if found.as_ref().is_ok_and(|file| *file == opened.file) {
            return Ok(());
        }
        // None of the other connections may go on either.
        self.readers.places.lock().unwrap_or_else(PoisonError::into_inner).forget_idle();
        Err(Failure(found.map_or_else(|error| error.to_string(), |_| "the file was replaced by another".into())))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let mut places = self.readers.places.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = loop {
            match places.idle.pop() {
                Some(connection) => break Some(connection),
                None if places.unopened > 0 => break None,
                None => places = self.readers.returned.wait(places).unwrap_or_else(PoisonError::into_inner),
            }
        };
        places.unopened -= usize::from(idle.is_none());
        drop(places);
        let mut lent = Lent { pool: &self.readers, opened: None };
        let opened = idle.map_or_else(|| self.connect(), Ok)?;
        self.check(&opened)?;
        let result = read(&opened.connection);
        lent.opened = is_sound_after(&result).then_some(opened);
        Ok(result?)
    }

    fn write<T>(&self, write: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that a panic or a failure leaves no connection in an unknown state.
        let opened = writer.take().map_or_else(|| self.connect(), Ok)?;
        self.check(&opened)?;
        let result = write(&opened.connection);
        *writer = is_sound_after(&result).then_some(opened);
        Ok(result?)
    }
}

/// A reader's place, which returns to the pool also after a panic.
struct Lent<'p> {
    pool: &'p Pool,
    /// What goes back to the pool.
    opened: Option<Opened>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut places = self.pool.places.lock().unwrap_or_else(PoisonError::into_inner);
        match self.opened.take() {
            Some(opened) => places.idle.push(opened),
            None => places.unopened += 1,
        }
        self.pool.returned.notify_one();
    }
}

/// Another connection may find what this one has lost, unless the trouble was only another's lock.
fn is_sound_after<T>(result: &rusqlite::Result<T>) -> bool {
    let code = result.as_ref().err().map(rusqlite::Error::sqlite_error_code);
    matches!(code, None | Some(Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)))
}

/// The device and the inode of a file.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let file = std::fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

enum Trouble {
    Sqlite(rusqlite::Error),
    File(std::io::Error),
    Other(Failure),
}

impl Trouble {
    fn is_busy(&self) -> bool {
        matches!(self, Trouble::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Sqlite(error) => error.into(),
            Trouble::File(error) => Failure(error.to_string()),
            Trouble::Other(failure) => failure,
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        // Its message may name the file, which the setting in front of it does too, but never a value.
        match error {
            rusqlite::Error::SqliteFailure(code, Some(message)) => {
                Failure(format!("{message} (SQLite code {})", code.extended_code))
            }
            other => Failure(other.to_string()),
        }
    }
}

fn connect(path: &Path, synchronous: Synchronous, flags: OpenFlags) -> Result<Opened, Trouble> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", synchronous.name())?;
    let file = identity(path).map_err(Trouble::File)?;
    Ok(Opened { connection, file })
}

/// The first connection: creates what is missing, in one transaction, so that of several processes one does.
fn prepare(path: &Path, synchronous: Synchronous) -> Result<Opened, Trouble> {
    let Opened { mut connection, file } = connect(path, synchronous, OpenFlags::default())?;
    // Where it may not write, SQLite opens for reading only, and starts what should be a write as a read.
    if connection.is_readonly(rusqlite::MAIN_DB)? {
        return Err(Trouble::Other(Failure("the file is read-only: see its permissions, and those of its file system".into())));
    }
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    super::check_schema(found, SCHEMA, "file").map_err(Trouble::Other)?;
    if found == 0 {
        transaction.execute_batch(CREATE)?;
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    transaction.commit()?;
    Ok(Opened { connection, file })
}

impl Backend for Sqlite {
    fn list(&self, page: Page) -> Result<Vec<Launch>, Failure> {
        let flights = page.flights();
        self.read(|connection| connection.prepare_cached(LIST)?.query_map([flights.start(), flights.end()], launch)?.collect())
    }

    fn one(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        self.read(|connection| connection.prepare_cached(ONE)?.query_row([flight], launch).optional())
    }

    fn add(&self, new: NewLaunch) -> Result<Launch, Failure> {
        let customers = serde_json::to_string(&new.customers).unwrap_or_default();
        let flight_number = self.write(|connection| {
            let values = params![new.mission, new.rocket, new.launch_date, new.target, customers, new.upcoming, new.success];
            connection.prepare_cached(ADD)?.insert(values)
        })?;
        Ok(Launch { flight_number, chosen: new })
    }

    fn abort(&self, flight: i64) -> Result<Option<Launch>, Failure> {
        // Stepped to the end, where the change is committed and may fail: `query_row` stops at the row.
        self.write(|connection| connection.prepare_cached(ABORT)?.query_one([flight], launch).optional())
    }

    fn ping(&self) -> Result<(), Failure> {
        self.read(|connection| connection.prepare_cached(ONE)?.exists([1]).map(drop))
    }
}

/// Reads a row by the order of the columns in [`CREATE`]: to look each name up takes as long as the query.
fn launch(row: &Row<'_>) -> rusqlite::Result<Launch> {
    Ok(Launch {
        flight_number: row.get(0)?,
        chosen: NewLaunch {
            mission: row.get(1)?,
            rocket: row.get(2)?,
            launch_date: row.get(3)?,
            target: row.get(4)?,
            // Written by this program as a list of texts.
            customers: serde_json::from_str(row.get_ref(5)?.as_str()?).unwrap_or_default(),
            upcoming: row.get(6)?,
            success: row.get(7)?,
        },
    })
}
