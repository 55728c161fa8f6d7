//! The listeners of apps, which the keeper opens.

use super::Core;
use super::task::Task;
use crate::channel::Order;
use std::time::Duration;

/// Pause before an address is tried again that could not be bound.
const AGAIN: Duration = Duration::from_millis(200);

impl Core {
    /// Notes that the keeper listens on an address.
    pub(super) fn bound(&mut self, address: String, actual: String) {
        // During a recovery, the apps are not known yet. Later, the app may have been deleted meanwhile.
        if !self.is_recovering() && !self.is_used(&address) {
            return self.order(Order::Unbind(address));
        }
        self.tasks.iter_mut().for_each(|task| task.missing.retain(|one| *one != address));
        self.listeners.insert(address, actual);
    }

    /// Returns whether an app listens on an address.
    pub(super) fn is_used(&self, address: &str) -> bool {
        self.table.apps.iter().any(|app| app.spec.listeners.iter().any(|one| one == address))
    }

    /// Notes that the keeper cannot listen on an address: apps that need it are not started.
    pub(super) fn cannot_bind(&mut self, address: &str, why: &str) {
        let wants = |task: &Task| task.missing.iter().any(|one| one == address);
        // A task without a client comes from a recovery and retries: an old process may hold the address until it has drained.
        if self.tasks.iter().any(|task| task.client.is_none() && wants(task)) {
            self.remark(format!("cannot listen on {address} yet, retrying: {why}"));
            self.bind_due = Some(self.now.instant + AGAIN);
        }
        while let Some(number) = self.tasks.iter().position(|task| task.client.is_some() && wants(task)) {
            let task = self.tasks.remove(number);
            self.undo(&task);
            let trouble = format!("cannot listen on {address}: {why}; choose another address with --listen");
            self.finish(&task, Some(trouble));
        }
    }

    /// Orders every listener that is still missing.
    pub(super) fn bind_again(&mut self) {
        self.bind_due = None;
        let missing: Vec<String> = self.tasks.iter().flat_map(|task| &task.missing).cloned().collect();
        missing.into_iter().for_each(|address| self.order(Order::Bind(address)));
    }
}
