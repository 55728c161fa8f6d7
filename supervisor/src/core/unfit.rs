//! The replacement of processes that run and are unfit: they use too much memory, fail their checks, or give no sign of life.

use super::Core;
use super::table::{Instance, UnfitKind};
use super::worker::State;
use crate::channel::Key;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

impl Core {
    /// Notes that a process gives signs of life.
    pub(super) fn lives(&mut self, key: Key) {
        if let Some(worker) = self.table.worker_mut(key) {
            worker.sends_life = true;
            worker.judge(UnfitKind::Stall, None);
        }
    }

    /// Finds a process unfit that has given no sign of life for this time: one request holds its event loop.
    pub(super) fn stalled(&mut self, key: Key, silence_ms: u64) {
        let silence = humantime::format_duration(Duration::from_millis(silence_ms));
        // One that is still starting may take its time.
        if let Some(worker) = self.table.worker_mut(key).filter(|worker| matches!(worker.state, State::Online { .. })) {
            worker.judge(UnfitKind::Stall, Some(format!("gave no sign of life for {silence}")));
        }
    }

    /// Replaces unfit processes as a reload does: one after another, and each of an instance later than the one before it.
    pub(super) fn replace_unfit(&mut self) {
        let now = self.now.instant;
        let mut unfit: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut remarks = Vec::new();
        for (app, instance) in self.table.all() {
            let (name, id) = (&app.spec.name, instance.id);
            let Some(why) = why(instance).filter(|_| app.damage.is_none() && !self.is_busy(name)) else { continue };
            if instance.replacements.due().is_none_or(|due| due <= now) {
                unfit.entry(name.clone()).or_default().push(id);
                let count = instance.replacements.count() + 1;
                remarks.push((name.clone(), id, why.to_owned(), count));
            }
        }
        for (name, ids) in unfit {
            for id in &ids {
                if let Some(instance) = self.table.instance_mut(*id) {
                    instance.replacements.note(now);
                    instance.restarts += 1;
                }
            }
            self.push_reload(None, name, ids);
        }
        for (name, id, why, count) in remarks {
            self.note(&name, Some(id), "unfit", Some(why.clone()));
            self.remark(format!("{name} ({id}) {why} and is being replaced (replacements so far: {count})"));
        }
    }

    /// Returns when the next process may be replaced.
    pub(super) fn replacement_due(&self) -> Option<Instant> {
        let waiting = self
            .table
            .all()
            .filter(|(app, instance)| why(instance).is_some() && app.damage.is_none() && !self.is_busy(&app.spec.name));
        waiting.filter_map(|(_, instance)| instance.replacements.due()).min()
    }
}

/// Returns why the process of an instance is to be replaced, if it runs and is.
fn why(instance: &Instance) -> Option<&str> {
    let unfit = instance.worker.unfit.as_ref().filter(|_| instance.is_online() && !instance.is_leaving);
    unfit.map(|unfit| unfit.why.as_str())
}
