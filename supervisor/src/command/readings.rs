//! The CPU use of processes, as the difference of two readings. A command that reads only once ends too soon for that, so each leaves its readings to the
//! next ones in a file. Only where nobody has read for long, it waits for a moment.

use super::list::Measured;
use rustix::fs::{FlockOperation, flock};
use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use supervisor::control::{Table, View};
use supervisor::proc::{Groups, since_boot};

/// Shortest and longest time over which CPU use is measured, in nanoseconds.
const SHORTEST: u64 = 25_000_000;
const LONGEST: u64 = 120_000_000_000;
/// Shortest time between two readings of a process that are kept, in nanoseconds.
const APART: u64 = 250_000_000;
/// Readings of a process that are kept: while the newest is too new, the one before it is used.
const KEPT: usize = 2;

/// The last readings of each process.
#[derive(Debug, Default)]
pub struct Readings {
    all: BTreeMap<i32, Past>,
    /// They differ from those that were loaded.
    has_changed: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Past {
    /// Tells the process from an earlier one with its id.
    started: u64,
    /// The newest comes first.
    readings: Vec<Reading>,
}

/// The CPU time that a process had used at a time since boot, both in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Reading {
    at: u64,
    cpu: u64,
}

/// A process as it is now.
struct Present {
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
    reading: Reading,
}

impl Readings {
    /// Returns what earlier commands have left. Without it, this one waits.
    pub fn load(path: &Path) -> Self {
        let read = || {
            let mut file = File::open(path).ok()?;
            flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
            let mut text = Vec::new();
            file.read_to_end(&mut text).ok()?;
            serde_json::from_slice(&text).ok()
        };
        Readings { all: read().unwrap_or_default(), has_changed: false }
    }

    /// Leaves the readings to later commands, unless another one does so at this moment. Without them, the next one waits.
    pub fn save(&self, path: &Path) {
        if !self.has_changed {
            return;
        }
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        if let Ok(mut file) = open
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Ok(text) = serde_json::to_vec(&self.all)
        {
            // What is written in part is not JSON, and counts as none.
            let _ = file.set_len(0).and_then(|()| file.write_all(&text));
        }
    }

    /// Returns each process's memory, and its CPU use since a moment ago, for which it waits if need be.
    pub fn measure(&mut self, table: Table) -> Vec<Measured> {
        let pids: Vec<i32> = table.instances.iter().filter_map(|one| one.pid).collect();
        let (mut groups, mut present) = look(&pids);
        if !present.iter().all(|one| self.cpu(one).is_some()) {
            self.add(&present);
            thread::sleep(Duration::from_nanos(SHORTEST));
            (groups, present) = look(&pids);
        }
        let used: BTreeMap<i32, f64> = present.iter().filter_map(|one| Some((one.pid, self.cpu(one)?))).collect();
        self.add(&present);
        let measured = |view: View| Measured {
            cpu: view.pid.and_then(|pid| used.get(&pid).copied()),
            memory: view.pid.and_then(|pid| groups.memory(pid)),
            view,
        };
        table.instances.into_iter().map(measured).collect()
    }

    /// Returns the CPU use of a process, as a share of one core, since the newest reading that is neither too new nor too old.
    fn cpu(&self, now: &Present) -> Option<f64> {
        let since = |before: Reading| {
            let time = now.reading.at.checked_sub(before.at).filter(|time| (SHORTEST..=LONGEST).contains(time))?;
            Some(now.reading.cpu.saturating_sub(before.cpu) as f64 / time as f64)
        };
        let past = self.all.get(&now.pid).filter(|past| past.started == now.started);
        let mut known = past.into_iter().flat_map(|past| past.readings.iter().copied());
        // One that has just been started had used nothing before.
        known.find_map(since).or_else(|| since(Reading { at: nanoseconds(now.started), cpu: 0 }))
    }

    /// Keeps what was read now, if it is not too close to what was read before, and forgets what is of no use any more.
    fn add(&mut self, present: &[Present]) {
        for Present { pid, started, reading } in present {
            let past = self.all.entry(*pid).or_default();
            if past.started != *started {
                *past = Past { started: *started, readings: Vec::new() };
            }
            if past.readings.first().is_none_or(|newest| reading.at.abs_diff(newest.at) >= APART) {
                past.readings.insert(0, *reading);
                past.readings.truncate(KEPT);
                self.has_changed = true;
            }
        }
        let now = present.iter().map(|one| one.reading.at).max().unwrap_or_default();
        self.all.retain(|_, past| past.readings.first().is_some_and(|newest| now.abs_diff(newest.at) <= LONGEST));
    }
}

fn look(pids: &[i32]) -> (Groups, Vec<Present>) {
    let groups = Groups::read();
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let present = |pid: &i32| {
        let reading = Reading { at: nanoseconds(since_boot()?), cpu: nanoseconds(groups.cpu_time(*pid)?) };
        Some(Present { pid: *pid, started: groups.started(*pid)?, reading })
    };
    let present = pids.iter().filter_map(present).collect();
    (groups, present)
}

/// Returns a number of clock ticks in nanoseconds.
fn nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A process that has run for an hour.
    fn process(at_ms: u64, cpu_ms: u64) -> Present {
        Present { pid: 7, started: 1, reading: Reading { at: (3_600_000 + at_ms) * MS, cpu: cpu_ms * MS } }
    }

    #[test]
    fn cpu_use_is_that_since_a_reading_that_is_neither_too_new_nor_too_old() {
        let mut readings = Readings::default();
        assert_eq!(readings.cpu(&process(0, 0)), None);
        readings.add(&[process(0, 0)]);
        assert_eq!(readings.cpu(&process(24, 12)), None);
        assert_eq!(readings.cpu(&process(100, 50)), Some(0.5));
        // The newest one is too new, and the one before it is used.
        readings.add(&[process(400, 100)]);
        assert_eq!(readings.cpu(&process(410, 205)), Some(0.5));
        assert_eq!(readings.cpu(&process(500, 110)), Some(0.1));
        assert_eq!(readings.cpu(&process(120_401, 110)), None);
    }

    #[test]
    fn readings_in_quick_succession_leave_an_older_one_to_compare_with() {
        let mut readings = Readings::default();
        (0..200).for_each(|number| readings.add(&[process(10 * number, 0)]));
        assert!((0..100).all(|at| readings.cpu(&process(2000 + at, 0)).is_some()));
        assert_eq!(readings.all[&7].readings.len(), KEPT);
    }

    #[test]
    fn another_process_with_the_same_id_is_measured_since_its_start() {
        let mut readings = Readings::default();
        readings.add(&[process(0, 3000)]);
        let started = 3_600 * clock_ticks_per_second();
        assert_eq!(readings.cpu(&Present { started, ..process(1000, 500) }), Some(0.5));
        readings.add(&[process(200_000, 0)]);
        assert_eq!(readings.all.len(), 1, "what is too old is forgotten");
    }
}
