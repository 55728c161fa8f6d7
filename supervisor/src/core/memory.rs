//! The limit on memory: processes that use more are replaced.

use super::{Core, Output};
use crate::channel::Key;
use crate::proc::Identity;
use std::collections::BTreeMap;
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

    /// Replaces processes that use too much memory, as a reload does: one after another, and each of an instance later than the one before it.
    pub(super) fn check_memory(&mut self, measured: &[(Key, u64)]) {
        let now = self.now.instant;
        let mut too_big: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut remarks = Vec::new();
        for (key, memory) in measured {
            let Some((app, instance)) = self.table.instance(key.instance) else { continue };
            let Some(most) = app.spec.options.max_memory_restart.filter(|most| memory > most) else { continue };
            let is_meant = instance.worker.key == *key && instance.is_online() && instance.memory.may_be_replaced(now);
            if is_meant && !self.is_busy(&app.spec.name) {
                too_big.entry(app.spec.name.clone()).or_default().push(instance.id);
                let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
                remarks.push(format!(
                    "{} ({}) used {:.1} MiB of at most {:.1} and is being replaced, for the {}. time",
                    app.spec.name,
                    instance.id,
                    mib(*memory),
                    mib(most),
                    instance.memory.replaced() + 1
                ));
            }
        }
        for (name, ids) in too_big {
            for id in &ids {
                if let Some(instance) = self.table.instance_mut(*id) {
                    instance.memory.note(now);
                    instance.restarts += 1;
                }
            }
            self.push_reload(None, name, ids);
        }
        remarks.into_iter().for_each(|remark| self.remark(remark));
    }
}
