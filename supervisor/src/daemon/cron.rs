//! `--cron` restarts an app, or starts a job again, at the times of a pattern.

use super::Daemon;
use crate::spec::{Spec, schedule};
use croner::Cron;
use jiff::{SignedDuration, Zoned};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest time until the clock is looked at again: somebody may set it.
const LOOK: Duration = Duration::from_secs(60);

/// How far the clock may go back unnoticed: a time that has come must not come again because the clock was corrected by a little.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// The apps with a pattern.
#[derive(Default)]
pub struct Schedule(BTreeMap<String, Entry>);

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
    /// Forgets the pattern of an app.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// When [`Self::take_due`] has something to do, or the clock is to be looked at again.
    pub fn due(&self) -> Option<Instant> {
        let next = self.0.values().filter_map(|entry| entry.next.as_ref()).min()?;
        let left = Duration::try_from(next.duration_since(&Zoned::now())).unwrap_or_default();
        Some(Instant::now() + left.min(LOOK))
    }

    /// Returns the apps whose time has come.
    pub fn take_due(&mut self) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let now = Zoned::now();
        self.0.iter_mut().filter_map(|(name, entry)| entry.is_due(&now).then(|| name.clone())).collect()
    }
}

impl Daemon {
    /// Follows the pattern of an app, if it has one.
    pub(super) fn schedule(&mut self, spec: &Spec) {
        // It was checked when the app was started.
        let pattern = spec.options.cron.as_deref().and_then(|text| schedule(text).ok());
        match pattern {
            // Its next time may be now, and stays the next one where the pattern is the same.
            Some(pattern) if self.schedule.0.get(&spec.name).is_some_and(|entry| entry.pattern == pattern) => {}
            Some(pattern) => drop(self.schedule.0.insert(spec.name.clone(), Entry::new(pattern, Zoned::now()))),
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
}
