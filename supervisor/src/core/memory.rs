//! The limit on memory: processes that use more are replaced.

use super::table::UnfitKind;
use super::{Core, Output};
use crate::channel::Key;
use crate::proc::Identity;
use std::time::Duration;

/// Interval between checks of apps with a limit; other apps are never checked.
const CHECK: Duration = Duration::from_secs(1);

impl Core {
    /// Asks for the memory of the processes that have a limit.
    pub(super) fn measure_memory(&mut self) {
        let bounded = self.table.apps.iter().filter(|app| app.spec.options.max_memory_restart.is_some());
        let online = bounded.flat_map(|app| &app.instances).filter(|instance| instance.is_online());
        let measured: Vec<(Key, Identity)> =
            online.filter_map(|one| Some((one.worker.key, one.worker.state.process()?))).collect();
        let is_bounded = self.table.apps.iter().any(|app| app.spec.options.max_memory_restart.is_some());
        self.memory_due = is_bounded.then(|| self.now.instant + CHECK);
        if !measured.is_empty() {
            self.out.push(Output::Measure(measured));
        }
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
