//! The table as `list` and `show` print it.

use super::table::{App, Instance};
use super::{Core, Version};
use crate::control::{AppView, DAMAGED, Table, View};
use crate::spec::{STREAMS, Spec};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

impl Core {
    /// Returns the table; the daemon adds its own process ids.
    pub(super) fn view(&self) -> Table {
        Table {
            supervisor: None,
            remarks: self.remarks.clone(),
            apps: self.table.apps.iter().map(|app| self.app_view(app)).collect(),
        }
    }

    /// Returns the specifications of all apps, except those that are lost.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.table.apps.iter().filter(|app| app.damage.is_none()).map(|app| &app.spec)
    }

    /// Returns the paths of an instance's logs.
    pub(super) fn logs(&self, app: &App, instance: &Instance) -> [PathBuf; 2] {
        if let Some(logs) = &instance.worker.logs {
            return logs.clone();
        }
        STREAMS.map(|stream| app.spec.log(&self.home.logs(), instance.number, stream))
    }

    /// Returns which other app writes to a log of this one, if one does: both have named the same file.
    pub(super) fn shared_log(&self, name: &str) -> Option<String> {
        let app = self.table.app(name)?;
        let own: BTreeSet<PathBuf> = app.instances.iter().flat_map(|instance| self.logs(app, instance)).collect();
        let others = self.table.all().filter(|(other, _)| other.spec.name != name);
        let mut logs = others.flat_map(|(other, instance)| self.logs(other, instance).map(|log| (log, &other.spec.name)));
        let (log, other) = logs.find(|(log, _)| own.contains(log) && !log.starts_with("/dev"))?;
        Some(format!("{other} writes to the same log, {}", log.display()))
    }

    fn app_view(&self, app: &App) -> AppView {
        let address = |address: &String| self.listeners.get(address).unwrap_or(address).clone();
        AppView {
            name: app.spec.name.clone(),
            mode: app.mode().into(),
            damage: app.damage.clone(),
            command: app.spec.command.clone(),
            directory: app.spec.directory.clone(),
            listeners: app.listeners(Version::Current).map(address).collect(),
            options: app.spec.options.clone(),
            instances: app.instances.iter().map(|instance| self.view_of(app, instance)).collect(),
        }
    }

    fn view_of(&self, app: &App, instance: &Instance) -> View {
        let worker = &instance.worker;
        let process = worker.state.process();
        let logs = self.logs(app, instance);
        let uptime = process.and(worker.online).map(|online| self.now.instant.duration_since(online));
        View {
            id: instance.id,
            number: instance.number,
            pid: process.map(|process| process.pid),
            uptime_ms: uptime.map(|uptime| uptime.as_millis() as u64),
            restarts: instance.restarts,
            status: if app.damage.is_some() { DAMAGED } else { worker.state.name() }.into(),
            generation: instance.generation,
            says: worker.says.clone(),
            sends_life: worker.sends_life,
            failed_checks: worker.failed_checks,
            last_failure: worker.last_failure.clone(),
            log_trouble: logs.iter().find_map(|path| self.log_troubles.get(path).cloned()),
            logs,
            created_s: instance.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            last_end: instance.last_end.clone(),
        }
    }
}
