//! `--cron` restarts an app, or starts a job again, at the times of a pattern.

use super::Daemon;
use crate::spec::{Spec, schedule};
use croner::Cron;
use jiff::Zoned;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest time until the clock is looked at again: somebody may set it.
const LOOK: Duration = Duration::from_secs(60);

/// The apps with a pattern, each with the next time.
#[derive(Default)]
pub struct Schedule(BTreeMap<String, (Cron, Option<Zoned>)>);

impl Schedule {
    /// Forgets the pattern of an app.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// When [`Self::take_due`] has something to do, or the clock is to be looked at again.
    pub fn due(&self) -> Option<Instant> {
        let next = self.0.values().filter_map(|(_, next)| next.as_ref()).min()?;
        let left = Duration::try_from(next.duration_since(&Zoned::now())).unwrap_or_default();
        Some(Instant::now() + left.min(LOOK))
    }

    /// Returns the apps whose time has come.
    pub fn take_due(&mut self) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let now = Zoned::now();
        let due = self.0.iter_mut().filter(|(_, (_, next))| next.as_ref().is_some_and(|next| *next <= now));
        due.map(|(name, (pattern, next))| (*next = pattern.find_next_occurrence(&now, false).ok(), name.clone()).1).collect()
    }
}

impl Daemon {
    /// Follows the pattern of an app, if it has one.
    pub(super) fn schedule(&mut self, spec: &Spec) {
        // It was checked when the app was started.
        let pattern = spec.options.cron.as_deref().and_then(|text| schedule(text).ok());
        match pattern {
            Some(pattern) => {
                let next = pattern.find_next_occurrence(&Zoned::now(), false).ok();
                self.schedule.0.insert(spec.name.clone(), (pattern, next));
            }
            None => self.schedule.forget(&spec.name),
        }
    }
}
