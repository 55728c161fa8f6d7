//! Frames: the events since the last frame, and the state of each pane. Arithmetic only.

use bench::stage::{Event, What};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, SystemTime};

/// The time that p99 and rates look back over.
const BACK: Duration = Duration::from_secs(3);
/// The driver is late if it releases a request this long after it was due.
const LATE: Duration = Duration::from_millis(1);

/// The kind of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Requests to the quick page on a schedule.
    Probes,
    /// Tabs opened at one instant.
    Tabs,
    /// Slow requests, one after another.
    Blockers,
}

/// A request on its way.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sent {
    load: Load,
    /// When it was due, in ms: with its load, its name.
    at: f64,
}

/// A request that has ended.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ended {
    load: Load,
    at: f64,
    /// Its response time, in ms.
    took: f64,
    /// The process that answered; none if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

/// One pane in a frame.
#[derive(Debug, Default, Serialize)]
pub struct PaneFrame {
    sent: Vec<Sent>,
    ended: Vec<Ended>,
    /// When requests were due that were on their way as their load ended.
    gone: Vec<f64>,
    /// p99 of the last seconds' probes, in ms; unanswered ones count with their age.
    p99: Option<f64>,
    /// The age of the oldest unanswered probe, in ms.
    oldest: f64,
    /// Probes answered a second.
    per_s: f64,
    /// Probes of the last seconds that failed.
    failed: usize,
    /// Slow requests on their way.
    slow: usize,
}

/// A frame.
#[derive(Debug, Serialize)]
pub struct Frame {
    /// Time since the lab began, in ms.
    pub t: f64,
    /// Time of the frame in milliseconds since 1970; the page measures its delay with it.
    pub wall: f64,
    /// The driver was late, so what this frame shows may be the driver's fault.
    pub late: bool,
    /// The longest time by which it was late in this frame, in ms.
    pub lag: f64,
    /// p99 of the driver's lag over the last seconds, in ms.
    pub lag_p99: f64,
    /// Probes sent a second, over the last seconds.
    pub sent_per_s: f64,
    /// The panes.
    pub panes: Vec<PaneFrame>,
}

/// Collects events into frames.
#[derive(Default)]
pub struct Desk {
    /// The pane and the kind of each load's lanes.
    lanes: HashMap<(u32, usize), (usize, Load)>,
    panes: Vec<Pane>,
    lag: Duration,
    /// When each of the last probes was due, and the driver's lag.
    lags: VecDeque<(Duration, Duration)>,
}

#[derive(Default)]
struct Pane {
    frame: PaneFrame,
    /// Requests on their way, by when they were due.
    probes: BTreeMap<(u32, Duration), ()>,
    slow: BTreeMap<(u32, Duration), ()>,
    /// When each of the last probes was answered, and how long it took.
    last: VecDeque<(Duration, Duration)>,
    /// When each of the last probes failed that did.
    failures: VecDeque<Duration>,
}

impl Desk {
    /// Begins anew with this many empty panes.
    pub fn reset(&mut self, panes: usize) {
        *self = Desk { panes: (0..panes).map(|_| Pane::default()).collect(), ..Desk::default() };
    }

    /// From now on the events of this lane belong to a pane.
    pub fn assign(&mut self, source: u32, lane: usize, pane: usize, load: Load) {
        self.lanes.insert((source, lane), (pane, load));
    }

    /// Ends a load: its unanswered requests will not be answered.
    pub fn end(&mut self, source: u32) {
        self.lanes.retain(|(known, _), _| *known != source);
        for Pane { frame, probes, slow, .. } in &mut self.panes {
            for open in [probes, slow] {
                let gone = open.keys().filter(|(known, _)| *known == source).map(|(_, planned)| ms(*planned));
                frame.gone.extend(gone);
                open.retain(|(known, _), ()| *known != source);
            }
        }
    }

    /// Takes an event, unless its load has ended.
    pub fn take(&mut self, event: &Event) {
        let Some((pane, load)) = self.lanes.get(&(event.source, event.lane)).copied() else { return };
        let Some(pane) = self.panes.get_mut(pane) else { return };
        let (key, at) = ((event.source, event.planned), ms(event.planned));
        let open = if load == Load::Probes { &mut pane.probes } else { &mut pane.slow };
        let (took, pid, failed) = match event.what {
            What::Due(lag) => {
                self.lag = self.lag.max(lag);
                if load == Load::Probes {
                    self.lags.push_back((event.planned, lag));
                }
                open.insert(key, ());
                pane.frame.sent.push(Sent { load, at });
                return;
            }
            What::Answered(took, pid) => (took, pid, false),
            What::Failed(took) => (took, None, true),
        };
        open.remove(&key);
        pane.frame.ended.push(Ended { load, at, took: ms(took), pid, failed });
        match (load, failed) {
            (Load::Probes, false) => pane.last.push_back((event.planned + took, took)),
            (Load::Probes, true) => pane.failures.push_back(event.planned + took),
            _ => {}
        }
    }

    /// Makes a frame of the events since the last one.
    pub fn frame(&mut self, now: Duration) -> Frame {
        let lag = std::mem::take(&mut self.lag);
        while self.lags.front().is_some_and(|(at, _)| *at + BACK < now) {
            self.lags.pop_front();
        }
        let lags: Vec<Duration> = self.lags.iter().map(|(_, lag)| *lag).collect();
        let (lag_p99, sent_per_s) = (p99(lags).unwrap_or_default(), per_s(self.lags.len(), now));
        let panes = self.panes.iter_mut().map(|pane| pane.frame(now)).collect();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Frame { t: ms(now), wall: ms(wall), late: lag > LATE, lag: ms(lag), lag_p99: ms(lag_p99), sent_per_s, panes }
    }
}

impl Pane {
    fn frame(&mut self, now: Duration) -> PaneFrame {
        while self.last.front().is_some_and(|(at, _)| *at + BACK < now) {
            self.last.pop_front();
        }
        while self.failures.front().is_some_and(|at| *at + BACK < now) {
            self.failures.pop_front();
        }
        let ages = self.probes.keys().map(|(_, planned)| now.saturating_sub(*planned));
        let oldest = ages.clone().max().unwrap_or_default();
        let p99 = p99(self.last.iter().map(|(_, took)| *took).chain(ages).collect()).map(ms);
        let per_s = per_s(self.last.len(), now);
        let (failed, slow) = (self.failures.len(), self.slow.len());
        PaneFrame { p99, oldest: ms(oldest), per_s, failed, slow, ..std::mem::take(&mut self.frame) }
    }
}

/// The 99th percentile; `None` without times.
fn p99(mut times: Vec<Duration>) -> Option<Duration> {
    let at = ((times.len() as f64 * 0.99).ceil() as usize).checked_sub(1)?;
    Some(*times.select_nth_unstable(at).1)
}

/// The rate of that many events in the last seconds.
fn per_s(count: usize, now: Duration) -> f64 {
    count as f64 / BACK.min(now).as_secs_f64().max(0.1)
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn event(source: u32, planned: u32, what: What) -> Event {
        Event { source, lane: 0, connection: 0, planned: planned * MS, what }
    }

    fn desk() -> Desk {
        let mut desk = Desk::default();
        desk.reset(2);
        desk.assign(0, 0, 1, Load::Probes);
        desk.assign(7, 0, 1, Load::Blockers);
        desk
    }

    #[test]
    fn a_frame_holds_what_has_happened_since_the_last_one() {
        let mut desk = desk();
        desk.take(&event(0, 10, What::Due(Duration::ZERO)));
        desk.take(&event(0, 10, What::Answered(3 * MS, Some(42))));
        let frame = desk.frame(20 * MS);
        assert_eq!((frame.panes[0].sent.len(), frame.panes[1].sent.len()), (0, 1));
        let ended = &frame.panes[1].ended[0];
        assert_eq!((ended.at, ended.took, ended.pid), (10.0, 3.0, Some(42)));
        assert_eq!(frame.panes[1].p99, Some(3.0));
        assert!(desk.frame(30 * MS).panes[1].ended.is_empty());
    }

    #[test]
    fn a_request_without_an_answer_counts_with_its_age() {
        let mut desk = desk();
        (0..99).for_each(|at| {
            desk.take(&event(0, at, What::Due(Duration::ZERO)));
            desk.take(&event(0, at, What::Answered(MS, None)));
        });
        desk.take(&event(0, 100, What::Due(Duration::ZERO)));
        desk.take(&event(0, 101, What::Due(Duration::ZERO)));
        let pane = &desk.frame(600 * MS).panes[1];
        assert_eq!((pane.p99, pane.oldest), (Some(499.0), 500.0), "two of 101 are on their way");
    }

    #[test]
    fn probes_that_failed_are_counted_for_as_long_as_those_that_were_answered() {
        let mut desk = desk();
        for at in [10, 20] {
            desk.take(&event(0, at, What::Due(Duration::ZERO)));
            desk.take(&event(0, at, What::Failed(MS)));
        }
        let pane = &desk.frame(100 * MS).panes[1];
        assert_eq!((pane.failed, pane.per_s, pane.p99), (2, 0.0, None), "every one was refused");
        assert_eq!(desk.frame(4000 * MS).panes[1].failed, 0);
    }

    #[test]
    fn what_a_load_that_ended_had_on_its_way_is_forgotten_and_its_events_are_nobodys() {
        let mut desk = desk();
        desk.take(&event(7, 5, What::Due(Duration::ZERO)));
        assert_eq!(desk.frame(10 * MS).panes[1].slow, 1);
        desk.end(7);
        desk.take(&event(7, 5, What::Answered(MS, None)));
        let pane = &desk.frame(20 * MS).panes[1];
        assert_eq!((pane.slow, pane.ended.len(), &*pane.gone), (0, 0, &[5.0][..]));
        assert!(desk.frame(30 * MS).panes[1].gone.is_empty());
    }

    #[test]
    fn a_frame_in_which_the_driver_was_late_says_so() {
        let mut desk = desk();
        desk.take(&event(0, 1, What::Due(2 * MS)));
        let frame = desk.frame(10 * MS);
        assert!(frame.late && (frame.lag - 2.0).abs() < 1e-9 && (frame.lag_p99 - 2.0).abs() < 1e-9);
        assert!(!desk.frame(20 * MS).late, "only that frame");
    }
}
