//! What the simulated daemon finds out about its processes by itself: the memory that they use, and whether they pass their checks.

use super::apps::MOST_MEMORY;
use super::world::{Process, World};
use crate::channel::Key;
use crate::core::worker::State;
use crate::core::{Checked, Checks, Input, Purpose};
use crate::proc::Identity;
use std::time::Instant;

impl World {
    /// Measures the memory of processes. As long as things are not calm, one of four uses too much.
    pub fn measure(&mut self, processes: Vec<(Key, Identity)>) {
        let measured = processes.into_iter().map(|(key, _)| {
            let is_too_much = !self.is_calm && self.rng.u32(..4) == 0;
            (key, self.memory.unwrap_or(if is_too_much { 2 * MOST_MEMORY } else { MOST_MEMORY / 2 }))
        });
        let measured = measured.collect();
        self.results.push_back(Input::Memory(measured));
    }

    /// Lets one of the checks that have begun end. As long as things are not calm, any may fail, or could not be made at all.
    pub fn check_ends(&mut self) -> bool {
        if self.checks.is_empty() {
            return false;
        }
        let Checks { spec, purpose, processes, .. } = self.checks.swap_remove(self.rng.usize(..self.checks.len()));
        let mut found = Vec::new();
        for (key, process) in processes {
            let is_ready = matches!(self.processes.get(&process.pid), Some((_, Process::Running { is_ready: true, .. }, _)));
            let is_unlucky = !self.is_calm && self.rng.u32(..4) == 0;
            let passes = is_ready && (purpose == Purpose::Readiness || !is_unlucky);
            found.push((key, (!passes).then(|| "did not answer".to_owned())));
        }
        if !self.is_calm && self.rng.u32(..8) == 0 {
            found.clear();
        }
        self.note(format!("the checks of {} have found {found:?}", spec.name));
        self.handle(Input::Checked(Checked { app: spec.name, purpose, processes: found }));
        true
    }

    /// Returns when something is due that is not done for ever: processes that start are checked until they are ready, and the others as long as they run.
    pub fn due(&self) -> Option<Instant> {
        let core = &self.core;
        let starts = core.table.all().flat_map(|(_, instance)| instance.workers());
        let starts = starts.filter(|worker| matches!(worker.state, State::Starting { process: Some(_) })).count() > 0;
        let own = [core.table.due(), core.bind_due, core.forsaken_due(), core.replacement_due()];
        own.into_iter().chain([core.check_due().filter(|_| starts)]).flatten().min()
    }
}
