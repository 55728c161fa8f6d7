//! Listeners that nobody uses any more, since the program has closed them or moved to another port: clients would wait there for ever.

use super::Core;
use super::listeners::MOST_ASKED;
use super::table::{App, Instance, Worker};
use super::worker::State;
use crate::channel::Key;
use crate::spec::{ONLY_IPV6, socket_address};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time for a process that has closed a listener to end: then the clients wait for the next process.
const AFTER_LEAVING: Duration = Duration::from_secs(1);

impl Core {
    /// Notes that a process has closed a listener that it had asked for.
    pub(super) fn leave(&mut self, key: Key, address: &str) {
        let now = self.now.instant;
        self.wishes.retain(|wish| wish.key != key || wish.address != address);
        if let Some(worker) = self.table.worker_mut(key) {
            worker.asked.retain(|asked| asked != address);
            worker.left.get_or_insert(now);
        }
        if let Some((app_number, _)) = self.table.position(key.instance) {
            let App { asked, left, .. } = &mut self.table.apps[app_number];
            left.retain(|one, _| asked.contains(one));
            left.insert(address.to_owned(), now);
        }
    }

    /// Closes the listeners that no process of an app has and that would keep it from this address. A program that looks for a free port tries one of
    /// its addresses after the other, and may try more of them in a moment than it can have.
    pub(super) fn make_room(&mut self, address: &str, app_number: usize) {
        let is_full = self.table.apps[app_number].is_full();
        let App { asked, left, instances, .. } = &mut self.table.apps[app_number];
        let held: Vec<&String> = instances.iter().flat_map(Instance::workers).flat_map(|worker| &worker.asked).collect();
        let is_in_the_way = |one: &String| covers(one, address) || covers(address, one) || is_full && left.contains_key(one);
        asked.retain(|one| one == address || held.contains(&one) || !is_in_the_way(one));
        self.unbind_unused();
    }

    /// Returns when [`Self::close_forsaken`] has something to do.
    pub(super) fn forsaken_due(&self) -> Option<Instant> {
        self.forsaken().map(|(_, _, due)| due).min()
    }

    /// Closes the listeners that have been forsaken for long enough.
    pub(super) fn close_forsaken(&mut self) {
        let now = self.now.instant;
        let mut all = BTreeMap::<String, Vec<String>>::new();
        for (app, address, _) in self.forsaken().filter(|(_, _, due)| *due <= now) {
            all.entry(app.spec.name.clone()).or_default().push(address.clone());
        }
        for (name, addresses) in all {
            if let Some(app) = self.table.app_mut(&name) {
                app.asked.retain(|address| !addresses.contains(address));
            }
            self.is_urgent = true;
            self.note(&name, None, "left", Some(addresses.join(", ")));
        }
        self.unbind_unused();
    }

    fn forsaken(&self) -> impl Iterator<Item = (&App, &String, Instant)> {
        let free = self.table.apps.iter().filter(|app| !self.is_busy(&app.spec.name));
        free.flat_map(|app| forsaken(app).into_iter().map(move |(address, due)| (app, address, due)))
    }
}

impl App {
    /// Returns whether it has as many listeners as all its processes may ask for.
    pub fn is_full(&self) -> bool {
        self.asked.len() >= MOST_ASKED * self.instances.len()
    }
}

/// Returns the addresses that no process of an app has asked for, although all of them have come to listen, and when each is left. Until then, a
/// process may still ask for it: some listen on one address after the other.
fn forsaken(app: &App) -> Vec<(&String, Instant)> {
    let is_settled = app.instances.iter().all(|one| one.is_online() || one.is_over());
    let online = || app.instances.iter().map(|one| &one.worker).filter(|one| matches!(one.state, State::Online { .. }));
    let has_come = |one: &Worker| !one.asked.is_empty() || one.left.is_some() || !app.spec.listeners.is_empty();
    if !is_settled || !online().all(has_come) {
        return Vec::new();
    }
    let come = online().filter_map(|one| one.online).map(|online| online + app.spec.options.listen_timeout).max();
    // If only an earlier daemon knew when, it counts from the start of this one.
    let earliest = online().filter_map(|one| one.left).max();
    let is_forsaken = |address: &&String| !online().any(|one| one.asked.contains(address));
    let due = |address| {
        let left = app.left.get(address).copied().or(earliest).map(|left| left + AFTER_LEAVING);
        Some((address, left.max(come)?))
    };
    app.asked.iter().filter(is_forsaken).filter_map(due).collect()
}

/// Returns whether a listener takes what comes to another address too.
fn covers(all: &str, other: &str) -> bool {
    let (Some(own), Some(other)) = (socket_address(all), socket_address(other)) else { return false };
    let is_same_kind = own.is_ipv6() == other.is_ipv6();
    own.port() == other.port() && own.ip().is_unspecified() && (is_same_kind || own.is_ipv6() && !all.starts_with(ONLY_IPV6))
}
