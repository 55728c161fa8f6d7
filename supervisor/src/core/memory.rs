//! The limit on memory: processes that use more are replaced.

use super::table::UnfitKind;
use super::{Core, Output};
use crate::channel::Key;
use crate::proc::Identity;
use std::time::{Duration, Instant};

/// Interval between checks of apps with a limit; other apps are never checked.
const CHECK: Duration = Duration::from_secs(1);

impl Core {
    /// Returns when the memory of processes is to be measured: as long as any that is ready has a limit.
    pub(super) fn memory_due(&self) -> Option<Instant> {
        self.bounded().next()?;
        Some(self.measured.map_or(self.now.instant, |last| last + CHECK))
    }

    /// Asks for the memory of the processes that have a limit.
    pub(super) fn measure_memory(&mut self) {
        let bounded = self.bounded().collect();
        self.measured = Some(self.now.instant);
        self.out.push(Output::Measure(bounded));
    }

    fn bounded(&self) -> impl Iterator<Item = (Key, Identity)> {
        let apps = self.table.apps.iter().filter(|app| app.spec.options.max_memory_restart.is_some());
        let online = apps.flat_map(|app| &app.instances).filter(|instance| instance.is_online());
        online.filter_map(|one| Some((one.worker.key, one.worker.state.process()?)))
    }

    /// Finds processes unfit that use too much memory.
    pub(super) fn check_memory(&mut self, measured: &[(Key, u64)]) {
        for (key, memory) in measured {
            let Some((app, _)) = self.table.instance(key.instance) else { continue };
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let most = app.spec.options.max_memory_restart.filter(|most| memory > most);
            let why = most.map(|most| format!("used {:.1} MiB of at most {:.1}", mib(*memory), mib(most)));
            if let Some(worker) = self.table.worker_mut(*key) {
                worker.judge(UnfitKind::Memory, why);
            }
        }
    }
}
