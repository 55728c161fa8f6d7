//! The books of a run: which requests count, which are still open, and what became of each.

use super::connection::{Flight, Want};
use crate::load::{Lane, Live, Load, Outcome, Pace, Recording, Sample, Times, What};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Failed requests are kept by the millisecond in which they were due, so that a server that fails fast does not fill the memory.
const MILLISECOND: u64 = 1_000_000;

/// The books of all lanes; times are nanoseconds since the start of the run.
pub(super) struct Ledger {
    pub window: Range<u64>,
    keeps_seconds: bool,
    books: Vec<Book>,
    /// Somebody watches, and when the run began.
    live: Option<(Live, Instant)>,
}

struct Book {
    recording: Recording,
    is_open: bool,
    is_fresh: bool,
    keeps_samples: bool,
    has_end: bool,
    /// Requests that count and are not settled yet.
    outstanding: usize,
    /// Requests that count and failed, by the millisecond at whose end they were due at the latest. They never get an answer, so their age counts
    /// at the end.
    failed: BTreeMap<u64, u32>,
}

impl Book {
    /// Whether a request without a right answer counts, `now` being when that is known.
    fn counts(&self, window: &Range<u64>, planned: u64, now: u64) -> bool {
        if self.is_open { window.contains(&planned) } else { planned < window.end && now >= window.start }
    }
}

impl Ledger {
    pub fn new(load: &Load) -> Self {
        let (warmup, window) = (nanos(load.warmup), nanos(load.window));
        let book = |lane: &Lane| Book {
            recording: Recording::default(),
            is_open: lane.is_open(),
            is_fresh: lane.is_fresh,
            keeps_samples: lane.keeps_samples,
            has_end: matches!(lane.pace, Pace::Closed { most: Some(_), .. }),
            outstanding: 0,
            failed: BTreeMap::new(),
        };
        Ledger {
            window: warmup..warmup + window,
            keeps_seconds: load.keeps_seconds,
            books: load.lanes.iter().map(book).collect(),
            live: load.live.clone().map(|live| (live, Instant::now())),
        }
    }

    /// The run begins.
    pub fn begin(&mut self, start: Instant) {
        self.live.iter_mut().for_each(|(_, began)| *began = start);
    }

    fn tell(&self, lane: usize, connection: usize, planned: u64, what: What) {
        if let Some((live, began)) = &self.live {
            live.tell(*began, lane, connection, Duration::from_nanos(planned), what);
        }
    }

    /// A request is due, and released `now`.
    pub fn due(&mut self, lane: usize, planned: u64, now: u64) {
        let is_in_window = self.window.contains(&planned);
        self.tell(lane, 0, planned, What::Due(Duration::from_nanos(now - planned)));
        let book = &mut self.books[lane];
        if !book.is_open {
            book.outstanding += 1;
        } else if is_in_window {
            book.outstanding += 1;
            book.recording.planned += 1;
            // On a busy connection too: that the request waits there is the server's doing, when its turn came is the driver's.
            record(&mut book.recording.lag, now - planned);
        }
    }

    /// Requests that were due in the window and not even released by its end: the driver's own failure.
    pub fn overslept(&mut self, lane: usize, planned: u64, now: u64) {
        if self.books[lane].is_open && self.window.contains(&planned) {
            self.due(lane, planned, now);
            self.unanswered(lane, 0, planned, now);
        }
    }

    /// The server had no room for a request.
    pub fn shed(&mut self, lane: usize, flight: Flight, now: u64) {
        self.settle(lane, flight.want);
        let is_counted = self.window.contains(&now);
        let recording = &mut self.books[lane].recording;
        recording.last_byte = Duration::from_nanos(now);
        recording.shed += u64::from(is_counted);
    }

    /// The answer to a request is complete; `wrong` says what is wrong with it.
    pub fn answer(&mut self, lane: usize, slot: usize, flight: Flight, status: u16, wrong: Option<&str>, now: u64) {
        self.settle(lane, flight.want);
        let took = Duration::from_nanos(now - flight.want.planned);
        let what = if wrong.is_some() { What::Failed(took) } else { What::Answered(took, flight.worker) };
        self.tell(lane, slot, flight.want.planned, what);
        let window = self.window.clone();
        let book = &mut self.books[lane];
        let recording = &mut book.recording;
        recording.last_byte = Duration::from_nanos(now);
        let planned = flight.want.planned;
        let is_counted = if book.is_open { window.contains(&planned) } else { window.contains(&now) };
        // A request that was in flight when the window ended has its full time in the histogram, though not in the rate.
        let is_late = !book.is_open && now >= window.end && planned < window.end;
        if is_counted || is_late {
            *recording.statuses.entry(status).or_default() += 1;
        }
        if let Some(what) = wrong {
            recording.fail(what);
            return self.never_answered(lane, slot, planned, now);
        }
        let is_in_window = window.contains(&now);
        recording.in_window += u64::from(is_in_window);
        let outcome = match (is_in_window, is_counted || is_late) {
            (true, true) => Some(Outcome::Answered),
            (true, false) => Some(Outcome::Early),
            (false, true) => Some(Outcome::Late),
            (false, false) => None,
        };
        if let Some(outcome) = outcome.filter(|_| self.keeps_seconds) {
            record(recording.second(second(now, &window), outcome), now - planned);
        }
        let connection = if book.is_fresh { 0 } else { slot };
        if book.has_end {
            recording.finished.push((slot, Duration::from_nanos(now)));
        }
        // A blocker that began in the warm-up may reach into the window.
        if book.keeps_samples && (planned >= window.start || !book.is_open) {
            let (planned, response) = (Duration::from_nanos(planned), Duration::from_nanos(now - planned));
            recording.samples.push(Sample { connection, planned, response, is_answered: true });
        }
        if is_counted || is_late {
            recording.answered += u64::from(is_counted);
            recording.count(connection, planned.saturating_sub(window.start), now - planned, is_counted);
            record(&mut recording.service, now - flight.sent);
        }
    }

    /// A request failed: its connection broke or was refused.
    pub fn fail(&mut self, lane: usize, slot: usize, want: Want, now: u64, what: &str) {
        self.settle(lane, want);
        self.tell(lane, slot, want.planned, What::Failed(Duration::from_nanos(now.saturating_sub(want.planned))));
        self.books[lane].recording.fail(what);
        self.never_answered(lane, slot, want.planned, now);
    }

    /// A request has failed: whatever comes, it has no right answer at the end.
    fn never_answered(&mut self, lane: usize, slot: usize, planned: u64, now: u64) {
        let book = &mut self.books[lane];
        if book.counts(&self.window, planned, now) {
            book.recording.failed += 1;
            *book.failed.entry(planned / MILLISECOND + 1).or_default() += 1;
            self.without_answer(lane, slot, planned, now);
        }
    }

    /// A request that still waits at the end counts with its age.
    pub fn unanswered(&mut self, lane: usize, slot: usize, planned: u64, now: u64) {
        let window = self.window.clone();
        let book = &mut self.books[lane];
        if !book.counts(&window, planned, now) {
            return;
        }
        let age = now.saturating_sub(planned);
        book.recording.unanswered += 1;
        book.recording.count_ages(age, 1);
        record(&mut book.recording.waits, age);
        if self.keeps_seconds {
            record(book.recording.second(second(now, &window), Outcome::Unanswered), age);
        }
        self.without_answer(lane, slot, planned, now);
    }

    fn without_answer(&mut self, lane: usize, slot: usize, planned: u64, now: u64) {
        let book = &mut self.books[lane];
        let connection = if book.is_fresh { 0 } else { slot };
        let age = now.saturating_sub(planned);
        book.recording.count_part(connection, planned.saturating_sub(self.window.start), age, false);
        if book.keeps_samples {
            let (planned, response) = (Duration::from_nanos(planned), Duration::from_nanos(age));
            book.recording.samples.push(Sample { connection, planned, response, is_answered: false });
        }
    }

    /// The run ends: requests that failed on the way are as old now as those that still wait.
    pub fn end(&mut self, now: u64) {
        let last = second(now, &self.window);
        for book in &mut self.books {
            for (millisecond, requests) in std::mem::take(&mut book.failed) {
                let age = now.saturating_sub(millisecond * MILLISECOND);
                book.recording.count_ages(age, requests);
                if self.keeps_seconds {
                    book.recording.second(last, Outcome::Unanswered).saturating_record_n(age.max(1), requests);
                }
            }
            for sample in book.recording.samples.iter_mut().filter(|sample| !sample.is_answered) {
                sample.response = Duration::from_nanos(now).saturating_sub(sample.planned);
            }
        }
    }

    fn settle(&mut self, lane: usize, want: Want) {
        let book = &mut self.books[lane];
        book.outstanding -= usize::from(!book.is_open || self.window.contains(&want.planned));
    }

    /// An answer was read this much later than it could have been.
    pub fn read_after(&mut self, lane: usize, delay: u64) {
        record(&mut self.books[lane].recording.read_lag, delay);
    }

    pub fn recording(&mut self, lane: usize) -> &mut Recording {
        &mut self.books[lane].recording
    }

    /// No request that counts is open any more.
    pub fn is_settled(&self) -> bool {
        self.books.iter().all(|book| book.outstanding == 0)
    }

    /// When the last byte of a closed lane came: in experiments, the last blocker's.
    pub fn last_byte_of_closed(&self) -> u64 {
        let closed = self.books.iter().filter(|book| !book.is_open);
        closed.map(|book| nanos(book.recording.last_byte)).max().unwrap_or(0)
    }

    pub fn into_recordings(self) -> Vec<Recording> {
        self.books.into_iter().map(|book| book.recording).collect()
    }
}

/// An instant since the window began; what comes after its end counts in its last second.
fn second(now: u64, window: &Range<u64>) -> u64 {
    now.min(window.end - 1).saturating_sub(window.start)
}

fn record(times: &mut Times, nanoseconds: u64) {
    times.saturating_record(nanoseconds.max(1));
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Target;

    #[test]
    fn seconds_tell_answers_of_the_window_from_those_that_are_early_or_late() {
        let address = ([127, 0, 0, 1], 80).into();
        let target = Target { address, request: b"".as_slice().into(), is_head: false, status: 200, body: None };
        let closed = Lane::closed(target, 1, 1);
        let open = Lane { pace: Pace::Open { rate: 1.0, is_poisson: false }, ..closed.clone() };
        let second = 1_000_000_000;
        // Due and answered, with a warm-up of a second before a window of two: in both, before it, into it, in each of its seconds, after it.
        let requests = [(0, 1), (1, 3), (2, 3), (4, 5), (5, 11)].map(|(due, answered)| (due * second / 2, answered * second / 2));
        let (answered, early, late) = (Outcome::Answered, Outcome::Early, Outcome::Late);
        // A closed lane has no schedule: what is answered in the window belongs to it.
        for (lane, first) in [(open, vec![(answered, 1), (early, 1)]), (closed, vec![(answered, 2)])] {
            let load = Load::of(vec![lane], Duration::from_secs(2), 1);
            let mut ledger = Ledger::new(&Load { warmup: Duration::from_secs(1), keeps_seconds: true, ..load });
            for (planned, answered) in requests {
                ledger.due(0, planned, planned);
                let flight = Flight { want: Want { planned, is_resent: false }, sent: planned, worker: None };
                ledger.answer(0, 0, flight, 200, None, answered);
            }
            let counts = |second: &crate::load::Second| -> Vec<(Outcome, u64)> {
                second.iter().map(|(outcome, times)| (*outcome, times.len())).collect()
            };
            let recording = ledger.recording(0);
            let counts: Vec<_> = recording.seconds.iter().map(counts).collect();
            assert_eq!(counts, [first, vec![(answered, 1), (late, 1)]]);
            assert_eq!(recording.in_window, 3, "the same as the seconds say");
        }
    }
}
