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
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use supervisor::control::{AppView, Table, View};
use supervisor::proc::{Groups, cpu_time, since_boot};

/// Shortest and longest time over which CPU use is measured, in nanoseconds.
const SHORTEST: u64 = 25_000_000;
const LONGEST: u64 = 120_000_000_000;
/// Shortest time between two readings of a process that are kept, in nanoseconds.
const APART: u64 = 250_000_000;
/// Readings of a process that are kept: while the newest is too new, the one before it is used.
const KEPT: usize = 2;

/// The last readings of each process with its group, by its id. The newest comes first.
#[derive(Debug, Default)]
pub struct Readings {
    all: BTreeMap<i32, Vec<Reading>>,
    /// They differ from those that were loaded.
    has_changed: bool,
}

/// The members of a group at a time since boot, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reading {
    at: u64,
    /// The process itself comes first.
    members: Vec<Member>,
}

/// The CPU time that a process has used so far. With one sum for the group, the end of a member would take back what it had used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Member {
    pid: i32,
    /// In clock ticks since boot: tells the process from another one with its id.
    started: u64,
    /// In nanoseconds.
    cpu: u64,
}

impl Reading {
    /// The id of the process.
    fn pid(&self) -> Option<i32> {
        self.members.first().map(|first| first.pid)
    }

    /// What would have been read at the start of the process.
    fn start(&self) -> Option<Reading> {
        let first = self.members.first()?;
        Some(Reading { at: nanoseconds(first.started), members: vec![Member { cpu: 0, ..*first }] })
    }

    /// Returns whether it is about the same process.
    fn is_of_same(&self, other: &Reading) -> bool {
        let [own, other] = [self, other].map(|reading| reading.members.first());
        own.zip(other).is_some_and(|(own, other)| own.is_same(other))
    }

    /// The CPU use since an earlier reading, as a share of one core; `None` if that is too new, too old, or of another process.
    fn since(&self, before: &Reading) -> Option<f64> {
        let time =
            self.at.checked_sub(before.at).filter(|time| (SHORTEST..=LONGEST).contains(time) && self.is_of_same(before))?;
        Some(self.members.iter().map(|member| member.used_since(before)).sum::<u64>() as f64 / time as f64)
    }
}

impl Member {
    fn is_same(&self, other: &Member) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }

    /// The CPU time that it has used since a reading. If it was not there, it has been started since, unless it comes from another group.
    fn used_since(&self, before: &Reading) -> u64 {
        let is_new = nanoseconds(self.started + 1) > before.at;
        let known = before.members.iter().find(|member| member.is_same(self));
        self.cpu.saturating_sub(known.map_or(if is_new { 0 } else { self.cpu }, |known| known.cpu))
    }
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
    pub fn measure(&mut self, table: Table, mut groups: Groups) -> Vec<Measured> {
        let pids: Vec<i32> = table.all().filter_map(|(_, one)| one.pid).collect();
        // It may have been started since they were read.
        if pids.iter().any(|pid| groups.started(*pid).is_none()) {
            groups = Groups::read();
        }
        let mut present = look(&pids, &groups);
        if !present.iter().all(|one| self.cpu(one).is_some()) {
            self.add(present);
            thread::sleep(Duration::from_nanos(SHORTEST));
            groups = Groups::read();
            present = look(&pids, &groups);
        }
        let used: BTreeMap<i32, f64> = present.iter().filter_map(|now| Some((now.pid()?, self.cpu(now)?))).collect();
        self.add(present);
        let measured = |app: Arc<AppView>, view: View| Measured {
            app,
            cpu: view.pid.and_then(|pid| used.get(&pid).copied()),
            memory: view.pid.and_then(|pid| groups.memory(pid)),
            view,
        };
        let of = |mut app: AppView| {
            let instances = std::mem::take(&mut app.instances);
            let app = Arc::new(app);
            instances.into_iter().map(move |view| measured(app.clone(), view))
        };
        table.apps.into_iter().flat_map(of).collect()
    }

    /// Returns the CPU use of a group, as a share of one core, since the newest reading that is neither too new nor too old.
    fn cpu(&self, now: &Reading) -> Option<f64> {
        let mut known = self.all.get(&now.pid()?).into_iter().flatten();
        known.find_map(|before| now.since(before)).or_else(|| now.since(&now.start()?))
    }

    /// Keeps what was read now, if it is not too close to what was read before, and forgets what is of no use any more.
    fn add(&mut self, present: Vec<Reading>) {
        let now = present.iter().map(|one| one.at).max().unwrap_or_default();
        for reading in present {
            let Some(pid) = reading.pid() else { continue };
            let past = self.all.entry(pid).or_default();
            past.retain(|before| before.is_of_same(&reading));
            if past.first().is_none_or(|newest| reading.at.abs_diff(newest.at) >= APART) {
                past.insert(0, reading);
                past.truncate(KEPT);
                self.has_changed = true;
            }
        }
        self.all.retain(|_, past| past.first().is_some_and(|newest| now.abs_diff(newest.at) <= LONGEST));
    }
}

/// Reads what these processes and their groups have used so far.
fn look(pids: &[i32], groups: &Groups) -> Vec<Reading> {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let member = |pid: i32| Some(Member { pid, started: groups.started(pid)?, cpu: nanoseconds(cpu_time(pid)?) });
    let reading = |pid: &i32| {
        let others = groups.members(*pid).iter().filter(|member| *member != pid);
        // Any of the others may have ended meanwhile.
        let members = std::iter::once(member(*pid)?).chain(others.filter_map(|other| member(*other))).collect();
        Some(Reading { at: nanoseconds(since_boot()?), members })
    };
    pids.iter().filter_map(reading).collect()
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
    fn process(at_ms: u64, cpu_ms: u64) -> Reading {
        Reading { at: (3_600_000 + at_ms) * MS, members: vec![Member { pid: 7, started: 1, cpu: cpu_ms * MS }] }
    }

    /// The same, with a second process in its group that was started this many ms later.
    fn with_child(mut reading: Reading, started_ms: u64, cpu_ms: u64) -> Reading {
        let started = (3_600_000 + started_ms) * clock_ticks_per_second() / 1000;
        reading.members.push(Member { pid: 8, started, cpu: cpu_ms * MS });
        reading
    }

    #[test]
    fn cpu_use_is_that_since_a_reading_that_is_neither_too_new_nor_too_old() {
        let mut readings = Readings::default();
        assert_eq!(readings.cpu(&process(0, 0)), None);
        readings.add(vec![process(0, 0)]);
        assert_eq!(readings.cpu(&process(24, 12)), None);
        assert_eq!(readings.cpu(&process(100, 50)), Some(0.5));
        // The newest one is too new, and the one before it is used.
        readings.add(vec![process(400, 100)]);
        assert_eq!(readings.cpu(&process(410, 205)), Some(0.5));
        assert_eq!(readings.cpu(&process(500, 110)), Some(0.1));
        assert_eq!(readings.cpu(&process(120_401, 110)), None);
    }

    #[test]
    fn readings_in_quick_succession_leave_an_older_one_to_compare_with() {
        let mut readings = Readings::default();
        (0..200).for_each(|number| readings.add(vec![process(10 * number, 0)]));
        assert!((0..100).all(|at| readings.cpu(&process(2000 + at, 0)).is_some()));
        assert_eq!(readings.all[&7].len(), KEPT);
    }

    #[test]
    fn another_process_with_the_same_id_is_measured_since_its_start() {
        let mut readings = Readings::default();
        readings.add(vec![process(0, 3000)]);
        let mut other = process(1000, 500);
        other.members[0].started = 3_600 * clock_ticks_per_second();
        assert_eq!(readings.cpu(&other), Some(0.5));
        readings.add(vec![process(200_000, 0)]);
        assert_eq!(readings.all.len(), 1, "what is too old is forgotten");
    }

    #[test]
    fn the_end_of_a_member_takes_back_nothing_that_the_others_have_used() {
        let mut readings = Readings::default();
        readings.add(vec![with_child(process(0, 100), 0, 5000)]);
        assert_eq!(readings.cpu(&process(100, 150)), Some(0.5));
    }

    #[test]
    fn a_member_counts_since_its_start_and_one_of_another_group_since_it_was_first_read() {
        let mut readings = Readings::default();
        readings.add(vec![process(0, 100)]);
        assert_eq!(readings.cpu(&with_child(process(100, 100), 50, 50)), Some(0.5));
        assert_eq!(readings.cpu(&with_child(process(100, 100), 0, 50)), Some(0.5), "a start is known to a tick");
        let older = |at_ms, cpu_ms| with_child(process(at_ms, 100), 0, cpu_ms);
        readings.add(vec![process(1000, 100)]);
        assert_eq!(readings.cpu(&older(1100, 5000)), Some(0.0));
        readings.add(vec![older(1300, 5000)]);
        assert_eq!(readings.cpu(&older(1400, 5050)), Some(0.5));
    }
}
