//! The launches: state that requests change, kept where `--state` says.
//!
//! In memory each process keeps a list of its own, so with several workers a launch that was saved is missing from the next answer: the
//! trap that this shows. A database is the way out. Its calls block the thread that makes them, as any synchronous call does.
//!
//! Flights are numbered 1, 2, 3, ... without gaps, and none is ever removed. So page p holds the flights whose numbers follow from p, and a
//! database finds them by key, however many there are.

mod launch;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod setting;
mod sqlite;
#[cfg(test)]
mod tests;

pub use launch::{Launch, MAX_DOCUMENT, NewLaunch};
pub use setting::{Setting, Synchronous};

use crate::http::{Answer, Status};
use memory::Memory;
use sqlite::Sqlite;
use std::ops::RangeInclusive;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The longest page of the list, in bytes: a client that does not read makes the server keep it.
const MAX_PAGE: usize = 256 * 1024;
/// The launches on a page, unless a request says how many.
pub const USUAL_LIMIT: u32 = 100;
/// The most bytes of a launch: its document, the properties that may be left out there, and its flight number.
const LONGEST: usize = MAX_DOCUMENT + 128;
// Launches are never removed: a usual page that is refused would be so for ever.
const _: () = assert!(USUAL_LIMIT as usize * LONGEST < MAX_PAGE);

/// What a request asks of the launches.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// One page of the list.
    List(Page),
    /// The launch with this flight number.
    One(i64),
    /// A new launch, which gets the next flight number.
    Add(NewLaunch),
    /// Marks the launch with this flight number as aborted.
    Abort(i64),
    /// Nothing but whether it answers.
    Health,
}

impl Ask {
    /// About how many bytes this needs while it runs.
    pub(crate) fn memory(&self) -> usize {
        match self {
            // The launches, and the page.
            Ask::List(page) => 2 * page.limit as usize * LONGEST,
            _ => 2 * LONGEST,
        }
    }
}

/// A page of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The number of the page, from 1.
    pub number: u32,
    /// The most launches on it.
    pub limit: u32,
}

impl Page {
    /// The flight numbers on this page.
    fn flights(self) -> RangeInclusive<i64> {
        let (number, limit) = (i64::from(self.number), i64::from(self.limit));
        (number - 1) * limit + 1..=number * limit
    }
}

/// The reason why a place that keeps launches does not answer, without any password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(pub String);

/// A place that keeps launches. Methods may block.
trait Backend: Send + Sync {
    fn list(&self, page: Page) -> Result<Vec<Launch>, Failure>;
    fn one(&self, flight: i64) -> Result<Option<Launch>, Failure>;
    fn add(&self, new: NewLaunch) -> Result<Launch, Failure>;
    fn abort(&self, flight: i64) -> Result<Option<Launch>, Failure>;
    /// Fails if it does not answer.
    fn ping(&self) -> Result<(), Failure>;
}

/// The launches, as one process sees them.
pub struct State {
    backend: Box<dyn Backend>,
    setting: Setting,
    /// The newest failure. `/healthz` repeats it for [`REMEMBERED`], because some failures, such as a full disk, show only in a write.
    failed: Mutex<Option<(Instant, Failure)>>,
}

const REMEMBERED: Duration = Duration::from_secs(2);

static STATE: OnceLock<State> = OnceLock::new();

/// Opens the launches of this process; must not be called before it forks, since a database survives no fork.
pub(crate) fn open(setting: &Setting) -> Result<(), String> {
    let state = State::open(setting)?;
    STATE.set(state).map_err(|_| "the state is open already".to_owned())
}

/// The launches of this process; in memory unless [`open`] said otherwise.
pub(crate) fn here() -> &'static State {
    STATE.get_or_init(|| State::new(Box::new(Memory::default()), Setting::Memory))
}

impl State {
    fn new(backend: Box<dyn Backend>, setting: Setting) -> Self {
        State { backend, setting, failed: Mutex::default() }
    }

    /// Opens the launches, and creates what a database lacks.
    ///
    /// # Errors
    /// Returns one line: which setting, and why it cannot be used.
    pub fn open(setting: &Setting) -> Result<Self, String> {
        let backend: Box<dyn Backend> = match setting {
            Setting::Memory => Box::new(Memory::default()),
            Setting::Sqlite { path, synchronous } => {
                let opened = Sqlite::open(path, *synchronous);
                Box::new(opened.map_err(|Failure(reason)| format!("--state {setting}: {reason}"))?)
            }
            #[cfg(feature = "postgres")]
            Setting::Postgres(config) => {
                let opened = postgres::Postgres::open(config);
                Box::new(opened.map_err(|Failure(reason)| format!("--state {setting}: {reason}"))?)
            }
        };
        Ok(Self::new(backend, setting.clone()))
    }

    /// True if an answer may take time: the thread that asks waits for a database.
    #[must_use]
    pub fn blocks(&self) -> bool {
        !matches!(self.setting, Setting::Memory)
    }

    /// Answers on the calling thread.
    pub fn answer(&self, ask: Ask) -> Answer {
        let is_health = ask == Ask::Health;
        let mut answer = match self.ask(ask) {
            Ok(answer) => answer,
            Err(Failure(reason)) => {
                let mut answer = Answer::error(Status::ServiceUnavailable, format!("{}: {reason}\n", self.setting));
                answer.retry_after = Some(1);
                answer
            }
        };
        if !is_health {
            answer.state = Some(self.setting.scope());
        }
        answer
    }

    fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let is_health = ask == Ask::Health;
        let answer = match ask {
            Ask::List(page) => self.backend.list(page).map(|launches| page_or_400(&launches)),
            Ask::One(flight) => self.backend.one(flight).map(|found| one_or_404(flight, found.as_ref())),
            Ask::Abort(flight) => self.backend.abort(flight).map(|found| one_or_404(flight, found.as_ref())),
            Ask::Add(new) => self.backend.add(new).map(|launch| {
                let mut answer = to_json(Status::Created, &launch);
                answer.location = Some(format!("/launches/{}", launch.flight_number));
                answer
            }),
            Ask::Health => self.backend.ping().map(|()| Answer::text("ready\n")),
        };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match (&answer, &*failed) {
            (Err(failure), _) => *failed = Some((Instant::now(), failure.clone())),
            (Ok(_), Some((at, failure))) if is_health && at.elapsed() < REMEMBERED => return Err(failure.clone()),
            _ => {}
        }
        answer
    }
}

/// Fails if a database was made by a newer program.
fn check_schema(found: i64, known: i64, what: &str) -> Result<(), Failure> {
    if found > known {
        Err(Failure(format!("schema {found} is newer than this program's {known}; use another {what}")))
    } else {
        Ok(())
    }
}

fn to_json(status: Status, value: &impl serde::Serialize) -> Answer {
    // Launches consist of texts, numbers and truth values: they can be written.
    let mut answer = Answer::json(serde_json::to_string(value).unwrap_or_default());
    answer.status = status;
    answer
}

/// A page that is too long is refused: one with fewer launches than were asked for would look like the last.
fn page_or_400(launches: &[Launch]) -> Answer {
    let page = to_json(Status::Ok, &launches);
    if page.body.len() <= MAX_PAGE {
        return page;
    }
    let (count, bytes) = (launches.len(), page.body.len());
    Answer::error(
        Status::BadRequest,
        format!("limit: these {count} launches take {bytes} of at most {MAX_PAGE} bytes; ask for fewer\n"),
    )
}

fn one_or_404(flight: i64, found: Option<&Launch>) -> Answer {
    found.map_or_else(|| no_such(flight), |launch| to_json(Status::Ok, launch))
}

/// 404 for a flight number that no launch has.
pub(crate) fn no_such(flight: impl std::fmt::Display) -> Answer {
    Answer::error(Status::NotFound, format!("there is no launch {flight}\n"))
}
