//! The blocking work: two ways to wait for a given time, and five functions that look harmless.
//!
//! A [`Work`] is a value, so a model can send it to another thread. [`Work::run`] does the work on the calling thread, whichever
//! thread that is.

use crate::dispatch::{Arrival, Running};
use crate::gate::Admitted;
use crate::hits;
use crate::http::{Answer, Status};
use crate::rendezvous;
use crate::share::{Share, WORK};
use crate::state::{self, Ask};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The blocking work of one request, ready to run.
#[derive(Debug)]
pub struct Work {
    pub(crate) call: Call,
    /// Released once the work is counted as running: in between, the parent would take this worker for idle.
    arrival: Option<Arrival>,
    /// Its place in a pool: kept until it is done, also if nobody waits for its answer any more.
    admitted: Option<Admitted>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Spins until `length` has passed on `clock`.
    Timer {
        /// The time to spin.
        length: Duration,
        /// The clock that measures it.
        clock: Clock,
    },
    /// Blocks the thread without using the CPU, as a synchronous disk or database call does.
    Sleep(Duration),
    /// Waits until another request releases this ticket.
    Wait {
        /// The ticket.
        ticket: u32,
        /// The longest wait.
        most: Duration,
    },
    /// Writes `items` records as JSON.
    Stringify {
        /// The number of records.
        items: usize,
    },
    /// Parses this JSON document.
    Parse(Vec<u8>),
    /// Asks for launches, or changes them.
    Launches(Ask),
    /// Counts a hit many times.
    Hits {
        /// How many times.
        times: u64,
    },
    /// Panics, as a handler with a bug does.
    Panic,
    /// Sorts `items` numbers.
    Sort {
        /// The number of numbers.
        items: usize,
    },
    /// Derives a key with PBKDF2-HMAC-SHA512.
    Pbkdf2 {
        /// The number of iterations.
        iterations: u32,
    },
    /// Derives a key with scrypt, r = 8, p = 1.
    Scrypt {
        /// The binary logarithm of the cost parameter N.
        log_n: u8,
    },
}

/// The clock that `/timer` spins on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Elapsed time, as a loop on `Date.now()` measures it.
    Wall,
    /// CPU time of this thread: real work, which takes longer on a busy machine.
    Cpu,
}

impl Work {
    pub(crate) fn new(call: Call, arrival: Option<Arrival>) -> Self {
        Work { call, arrival, admitted: None }
    }

    /// The same with its place in a pool.
    pub(crate) fn admitted(self, admitted: Admitted) -> Self {
        Work { admitted: Some(admitted), ..self }
    }

    /// Does the work on the calling thread and returns the answer; 500 if it panics, so that only this request fails, whatever the
    /// runtime makes of a panic; 503 if there is no memory left for it.
    #[must_use]
    pub fn run(self) -> Answer {
        let Work { call, arrival, admitted: _admitted } = self;
        let _running = Running::start();
        drop(arrival);
        let mut memory = Share::of(&WORK);
        if let Err(refusal) = memory.grow(call.memory()) {
            let mut answer = Answer::error(refusal.status, format!("{}\n", refusal.reason));
            answer.retry_after = Some(1);
            return answer;
        }
        // What a panic leaves behind is dropped with the call.
        catch_unwind(AssertUnwindSafe(|| call.run()))
            .unwrap_or_else(|_| Answer::error(Status::InternalServerError, "the handler panicked\n"))
    }
}

impl From<Call> for Work {
    fn from(call: Call) -> Self {
        Work::new(call, None)
    }
}

impl Call {
    /// About how many bytes this needs while it runs, as far as the request says how many.
    pub(crate) fn memory(&self) -> usize {
        match self {
            // RFC 7914: 128 * r * N.
            Call::Scrypt { log_n } => (128 * SCRYPT_R as usize) << log_n,
            // The numbers, and their bytes.
            Call::Sort { items } => 16 * items,
            // A record, and its JSON in a buffer that grows.
            Call::Stringify { items } => 704 * items,
            Call::Parse(document) => parsed(document),
            Call::Launches(ask) => ask.memory(),
            _ => 0,
        }
    }

    fn run(self) -> Answer {
        match self {
            Call::Panic => panic!("a request to /panic asked for this"),
            Call::Timer { length, clock } => {
                spin(length, clock);
                Answer::text(format!("spun for {} ms\n", length.as_secs_f64() * 1e3))
            }
            Call::Sleep(length) => {
                std::thread::sleep(length);
                Answer::text(format!("slept for {} ms\n", length.as_secs_f64() * 1e3))
            }
            Call::Wait { ticket, most } => {
                Answer::text(if rendezvous::wait(ticket, most) { "released\n" } else { "waited in vain\n" })
            }
            Call::Stringify { items } => digest("stringified", items, &stringify(items)),
            Call::Parse(document) => parse(&document),
            Call::Launches(ask) => state::here().answer(ask),
            Call::Hits { times } => hits::count(times),
            Call::Sort { items } => {
                let sorted = sort(items);
                let bytes: Vec<u8> = sorted.iter().flat_map(|number| number.to_le_bytes()).collect();
                digest("sorted", items, &bytes)
            }
            Call::Pbkdf2 { iterations } => digest("pbkdf2", iterations as usize, &pbkdf2(iterations)),
            Call::Scrypt { log_n } => scrypt(log_n).map_or_else(
                |error| Answer::error(Status::InternalServerError, format!("scrypt: {error}\n")),
                |key| digest("scrypt", log_n.into(), &key),
            ),
        }
    }
}

/// An answer with a digest of the result, which proves that the work was done and lets clients check it.
fn digest(what: &str, amount: usize, bytes: &[u8]) -> Answer {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Answer::json(format!(r#"{{"work":"{what}","amount":{amount},"bytes":{},"sha256":"{hex}"}}"#, bytes.len()))
}

/// Keeps the thread busy until `length` has passed on `clock`.
fn spin(length: Duration, clock: Clock) {
    match clock {
        Clock::Wall => {
            let start = Instant::now();
            while start.elapsed() < length {
                spin_loop();
            }
        }
        Clock::Cpu => {
            let start = thread_time();
            while thread_time().saturating_sub(start) < length {
                // Reading the thread's clock is a system call: spinning in between keeps the thread in user mode.
                (0..1000).for_each(|_| spin_loop());
            }
        }
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// One record of the documents that `/json/stringify` writes.
#[derive(Serialize, Deserialize)]
struct Record {
    flight_number: usize,
    mission: String,
    rocket: String,
    target: String,
    customers: Vec<String>,
    upcoming: bool,
    success: bool,
}

/// A JSON document of `items` records.
#[must_use]
pub fn stringify(items: usize) -> Vec<u8> {
    let records: Vec<Record> = (0..items)
        .map(|number| Record {
            flight_number: number,
            mission: format!("Mission {number}"),
            rocket: "Explorer IS1".into(),
            target: "Kepler-442 b".into(),
            customers: vec!["ZTM".into(), "NASA".into()],
            upcoming: number % 2 == 0,
            success: number % 3 == 0,
        })
        .collect();
    serde_json::to_vec(&records).unwrap_or_default()
}

fn parse(document: &[u8]) -> Answer {
    match serde_json::from_slice::<serde_json::Value>(document) {
        Ok(value) => digest("parsed", count(&value), document),
        Err(error) => Answer::error(Status::BadRequest, format!("body: not JSON: {error}\n")),
    }
}

/// About how many bytes the values of a document take at most: an object has a node for its first fields, and each value a place in a list that
/// grows, or in a node that is half full.
fn parsed(document: &[u8]) -> usize {
    let count = |of: u8| document.iter().filter(|byte| **byte == of).count();
    2 * document.len() + 640 * count(b'{') + 128 * (count(b'[') + count(b','))
}

/// The number of values in a document, the document itself included.
fn count(value: &serde_json::Value) -> usize {
    1 + match value {
        serde_json::Value::Array(items) => items.iter().map(count).sum(),
        serde_json::Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// `items` sorted numbers; the unsorted input is the same every time (`SplitMix64` from 0).
#[must_use]
pub fn sort(items: usize) -> Vec<u64> {
    let mut state = 0_u64;
    let mut numbers: Vec<u64> = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
    .take(items)
    .collect();
    numbers.sort_unstable();
    numbers
}

/// A 64-byte key derived from a fixed password.
#[must_use]
pub fn pbkdf2(iterations: u32) -> [u8; 64] {
    pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(PASSWORD, SALT, iterations)
}

/// A 64-byte key derived from a fixed password.
///
/// # Errors
/// Fails if `log_n` is out of scrypt's range.
pub fn scrypt(log_n: u8) -> Result<[u8; 64], Box<dyn std::error::Error>> {
    let mut key = [0; 64];
    scrypt::scrypt(PASSWORD, SALT, &scrypt::Params::new(log_n, SCRYPT_R, 1)?, &mut key)?;
    Ok(key)
}

/// The block size of scrypt.
const SCRYPT_R: u32 = 8;
const PASSWORD: &[u8] = b"correct horse battery staple";
const SALT: &[u8] = b"stallbench";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::MAX_WORK;
    use crate::state::Page;

    #[test]
    fn the_same_request_gives_the_same_answer() {
        for call in
            [Call::Stringify { items: 3 }, Call::Sort { items: 100 }, Call::Pbkdf2 { iterations: 2 }, Call::Scrypt { log_n: 4 }]
        {
            let answer = call.clone().run();
            assert_eq!(answer.status, Status::Ok, "{call:?}");
            assert_eq!(answer, call.run());
        }
    }

    #[test]
    fn work_without_memory_left_is_refused_until_there_is_some_again() {
        let calls = [Call::Scrypt { log_n: 4 }, Call::Launches(Ask::List(Page { number: 1, limit: 1_000 }))];
        let mut all = Share::of(&WORK);
        all.grow(MAX_WORK).unwrap();
        for call in &calls {
            let refused = Work::from(call.clone()).run();
            assert_eq!((refused.status, refused.retry_after), (Status::ServiceUnavailable, Some(1)), "{call:?}");
        }
        assert_eq!(Work::from(Call::Sleep(Duration::ZERO)).run().status, Status::Ok);
        drop(all);
        for call in calls {
            assert_eq!(Work::from(call).run().status, Status::Ok);
        }
    }

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(Work::from(Call::Panic).run().status, Status::InternalServerError);
    }

    #[test]
    fn sort_sorts() {
        assert!(sort(1000).is_sorted());
    }

    #[test]
    fn parse_reads_back_what_stringify_wrote_and_refuses_garbage() {
        assert_eq!(Call::Parse(stringify(2)).run().status, Status::Ok);
        assert_eq!(Call::Parse(b"{".to_vec()).run().status, Status::BadRequest);
    }

    #[test]
    fn a_document_takes_no_more_memory_than_was_counted_for_it() {
        let list = |item: &str| format!("[{}]", vec![item; 10_000].join(","));
        let fields: Vec<String> = (0..10_000).map(|number| format!("\"{number}\":0")).collect();
        let documents =
            [list(r#"{"":0}"#), list("{}"), list("[0]"), list("0"), list(r#""x""#), format!("{{{}}}", fields.join(","))];
        for document in documents.iter().map(String::as_bytes).chain([stringify(5000).as_slice()]) {
            let held = crate::counting::most_held(|| assert_eq!(parse(document).status, Status::Ok));
            assert!(held <= parsed(document), "{held} bytes for {}", String::from_utf8_lossy(&document[..40]));
        }
    }

    #[test]
    fn spinning_on_the_threads_clock_uses_that_much_of_it() {
        let before = thread_time();
        spin(Duration::from_millis(5), Clock::Cpu);
        assert!(thread_time() - before >= Duration::from_millis(5));
    }
}
