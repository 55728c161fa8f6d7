//! Listeners that nobody uses any more, since the program has moved to another port: clients would wait there for ever.

use super::Core;
use super::table::{App, Worker};
use super::worker::State;
use std::time::Instant;

impl Core {
    /// Returns when [`Self::close_forsaken`] has something to do.
    pub(super) fn forsaken_due(&self) -> Option<Instant> {
        self.forsaken().map(|(_, _, due)| due).min()
    }

    /// Closes the listeners that have been forsaken for long enough.
    pub(super) fn close_forsaken(&mut self) {
        let now = self.now.instant;
        let all = self.forsaken().filter(|(_, _, due)| *due <= now);
        let all: Vec<(String, Vec<String>)> = all.map(|(app, addresses, _)| (app.spec.name.clone(), addresses)).collect();
        for (name, addresses) in all {
            if let Some(app) = self.table.app_mut(&name) {
                app.asked.retain(|address| !addresses.contains(address));
            }
            self.is_urgent = true;
            self.note(&name, None, "left", Some(addresses.join(", ")));
        }
        self.unbind_unused();
    }

    fn forsaken(&self) -> impl Iterator<Item = (&App, Vec<String>, Instant)> {
        let free = self.table.apps.iter().filter(|app| !self.is_busy(&app.spec.name));
        free.filter_map(|app| forsaken(app).map(|(addresses, due)| (app, addresses, due)))
    }
}

/// Returns the addresses that no process of an app has asked for, although all of them have come to listen, and when they are left. Until then, a
/// process may still ask for them: some listen on one address after the other.
fn forsaken(app: &App) -> Option<(Vec<String>, Instant)> {
    let is_settled = app.instances.iter().all(|one| one.is_online() || one.is_over());
    let online = || app.instances.iter().map(|one| &one.worker).filter(|one| matches!(one.state, State::Online { .. }));
    let has_come = |one: &Worker| !one.asked.is_empty() || !app.spec.listeners.is_empty();
    if !is_settled || !online().all(has_come) {
        return None;
    }
    let is_forsaken = |address: &&String| !online().any(|one| one.asked.contains(address));
    let addresses: Vec<String> = app.asked.iter().filter(is_forsaken).cloned().collect();
    let since = online().filter_map(|one| one.online).max()?;
    (!addresses.is_empty()).then(|| (addresses, since + app.spec.options.listen_timeout))
}
