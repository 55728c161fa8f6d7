//! `--cron` restarts an app, or starts a job again, at the times of a pattern.

use super::Daemon;
use crate::home::Home;
use crate::spec::{Spec, schedule};
use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// Longest time until the clock is looked at again: somebody may set it.
const LOOK: Duration = Duration::from_secs(60);

/// How far the clock may go back unnoticed: a time that has come must not come again because the clock was corrected by a little.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// The apps with a pattern.
pub struct Schedule {
    entries: BTreeMap<String, Entry>,
    /// When the last daemon has looked at the clock, if that was a moment ago: what has come since is due.
    since: Option<Zoned>,
    /// When the next daemon was told that this one has.
    told: Option<Zoned>,
}

struct Entry {
    pattern: Cron,
    /// The time after which `next` is the next one.
    since: Zoned,
    next: Option<Zoned>,
}

impl Entry {
    fn new(pattern: Cron, since: Zoned) -> Self {
        Entry { next: pattern.find_next_occurrence(&since, false).ok(), pattern, since }
    }

    /// Returns whether its time has come; the next one is looked for then.
    fn is_due(&mut self, now: &Zoned) -> bool {
        let is_due = self.next.as_ref().is_some_and(|next| next <= now);
        // A clock that was set back comes to earlier times once more.
        let is_elsewhere = self.since.time_zone() != now.time_zone();
        if is_due || is_elsewhere || self.since.duration_since(now) > SLACK {
            *self = Entry::new(self.pattern.clone(), now.clone());
        }
        is_due
    }
}

impl Schedule {
    /// Continues that of the last daemon.
    pub fn resume(home: &Home) -> Self {
        let looked = fs::metadata(home.looked()).and_then(|metadata| metadata.modified()).ok();
        let looked = looked.and_then(|looked| Timestamp::try_from(looked).ok()).map(|looked| looked.to_zoned(TimeZone::system()));
        let now = Zoned::now();
        let is_new = |looked: &Zoned| {
            *looked <= now && now.duration_since(looked) < SLACK + SignedDuration::try_from(LOOK).unwrap_or_default()
        };
        Schedule { entries: BTreeMap::new(), since: looked.filter(is_new), told: None }
    }

    /// An app is started or changed: for what begins now, nothing is due since earlier.
    pub fn begin(&mut self) {
        (self.since, self.told) = (None, None);
    }

    /// Forgets the pattern of an app.
    pub fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// When [`Self::take_due`] has something to do, or the clock is to be looked at again.
    pub fn due(&self) -> Option<Instant> {
        let next = self.entries.values().filter_map(|entry| entry.next.as_ref()).min()?;
        let left = Duration::try_from(next.duration_since(&Zoned::now())).unwrap_or_default();
        Some(Instant::now() + left.min(LOOK))
    }

    /// Returns the apps whose time has come.
    pub fn take_due(&mut self, home: &Home) -> Vec<String> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        let now = Zoned::now();
        let due: Vec<String> =
            self.entries.iter_mut().filter_map(|(name, entry)| entry.is_due(&now).then(|| name.clone())).collect();
        let is_old = |told: &Zoned| now.duration_since(told).unsigned_abs() >= LOOK;
        if !due.is_empty() || self.told.as_ref().is_none_or(is_old) {
            // Without it, the next daemon does not know what it has missed.
            // The file system's clock may be a little behind.
            let _ = fs::File::create(home.looked()).and_then(|file| file.set_modified(now.timestamp().into()));
            self.told = Some(now);
        }
        due
    }
}

impl Daemon {
    /// Follows the pattern of an app, if it has one.
    pub(super) fn schedule(&mut self, spec: &Spec) {
        // It was checked when the app was started.
        let pattern = spec.options.cron.as_deref().and_then(|text| schedule(text).ok());
        match pattern {
            // Its next time may be now, and stays the next one where the pattern is the same.
            Some(pattern) if self.schedule.entries.get(&spec.name).is_some_and(|entry| entry.pattern == pattern) => {}
            Some(pattern) => {
                let since = self.schedule.since.clone().unwrap_or_else(Zoned::now);
                self.schedule.entries.insert(spec.name.clone(), Entry::new(pattern, since));
            }
            None => self.schedule.forget(&spec.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_clock_was_set_back_the_next_time_is_the_one_that_comes_first() {
        let at = |text: &str| text.parse::<Zoned>().unwrap();
        let mut entry = Entry::new(schedule("0 3 * * *").unwrap(), at("2026-05-10T12:00:00[UTC]"));
        assert!(!entry.is_due(&at("2026-05-10T13:00:00[UTC]")));
        assert!(!entry.is_due(&at("2026-05-08T02:00:00[UTC]")));
        assert!(entry.is_due(&at("2026-05-08T03:00:00[UTC]")));
        assert_eq!(entry.next, Some(at("2026-05-09T03:00:00[UTC]")));
        // A leap over several times is one.
        assert!(entry.is_due(&at("2026-05-20T12:00:00[UTC]")));
        assert!(!entry.is_due(&at("2026-05-20T12:00:01[UTC]")));
    }

    #[test]
    fn what_came_while_no_daemon_looked_is_due_once_and_only_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().to_str().unwrap());
        let looked = |ago: u64| {
            let file = fs::File::create(home.looked()).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(ago)).unwrap();
            Schedule::resume(&home)
        };
        let mut schedule = looked(5);
        let entry = Entry::new(crate::spec::schedule("* * * * * *").unwrap(), schedule.since.clone().unwrap());
        assert!(*entry.next.as_ref().unwrap() < Zoned::now());
        schedule.entries.insert("job".into(), entry);
        assert_eq!(schedule.take_due(&home), ["job"]);
        assert!(Schedule::resume(&home).since.unwrap() > looked(5).since.unwrap());
        assert!(looked(1000).since.is_none());
    }
}
