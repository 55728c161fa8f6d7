//! The listeners of apps, which the keeper opens.

use super::Core;
use super::table::Instance;
use super::task::Task;
use super::worker::State;
use crate::channel::{Key, Order};
use crate::spec::{Spec, socket_address};
use anyhow::{Result, bail};
use rustix::io::Errno;
use std::time::Duration;

/// The most addresses that a process may ask for.
pub(super) const MOST_ASKED: usize = 64;
/// Pause before an address is tried again that could not be bound.
const AGAIN: Duration = Duration::from_millis(200);

/// A remark on such an address: these words, the address, and these before the reason.
const CANNOT: &str = "cannot listen on ";
const YET: &str = " yet, retrying: ";

/// Returns the address that a remark is about, if that is being retried.
fn retried(remark: &str) -> Option<&str> {
    remark.strip_prefix(CANNOT)?.split_once(YET).map(|(address, _)| address)
}

/// An address that a process wants to listen on: a Node program names it only when it runs.
pub(super) struct Wish {
    pub key: Key,
    pub number: u64,
    pub address: String,
}

impl Wish {
    /// The order that fulfils it.
    pub fn given(&self) -> Order {
        Order::Give(self.key, self.number, self.address.clone())
    }

    fn refused(&self, number: i32, why: &str) -> Order {
        Order::Refuse(self.key, self.number, number, why.into())
    }
}

impl Core {
    /// Listens for a process that wants it. From then on, its app has this listener.
    pub(super) fn wish(&mut self, wish: Wish) {
        if socket_address(&wish.address).is_none() {
            return self.order(wish.refused(Errno::INVAL.raw_os_error(), "not an address"));
        }
        let now = self.now.instant;
        let Some((app_number, number)) = self.table.position(wish.key.instance) else { return };
        let name = self.table.apps[app_number].spec.name.clone();
        if let Some(why) = self.taken(&name, &wish.address) {
            return self.order(wish.refused(Errno::ADDRINUSE.raw_os_error(), &why));
        }
        self.make_room(&wish.address, app_number);
        let app = &mut self.table.apps[app_number];
        let is_full = app.is_full() && !app.asked.contains(&wish.address);
        let Some(worker) = app.instances[number].workers().find(|one| one.key == wish.key) else { return };
        if is_full || worker.asked.len() >= MOST_ASKED && !worker.asked.contains(&wish.address) {
            return self.order(wish.refused(Errno::MFILE.raw_os_error(), "too many listeners"));
        }
        app.left.remove(&wish.address);
        let spec = app.spec_of(worker.version);
        let limit = spec.options.listen_timeout;
        if !app.asked.contains(&wish.address) && !spec.listeners.contains(&wish.address) {
            app.asked.push(wish.address.clone());
            // The listener outlives this daemon.
            self.is_urgent = true;
        }
        for worker in app.instances[number].workers_mut().filter(|one| one.key == wish.key) {
            if !worker.asked.contains(&wish.address) {
                worker.asked.push(wish.address.clone());
            }
            // It counted as one that does not say when it is ready; it will. One that asks again and again gets no more time for it.
            if matches!(worker.state, State::Starting { .. }) && !std::mem::replace(&mut worker.has_asked, true) {
                worker.due = Some(now + limit);
            }
        }
        let is_bound = self.listeners.contains_key(&wish.address);
        self.order(if is_bound { wish.given() } else { Order::Bind(wish.address.clone()) });
        // Those before it got this address too.
        let is_past = |one: &Wish| one.number == wish.number || is_bound && one.address == wish.address;
        self.wishes.retain(|one| one.key != wish.key || !is_past(one));
        self.wishes.push(wish);
    }

    /// Returns why an app cannot have an address, if it is another's.
    fn taken(&self, name: &str, address: &str) -> Option<String> {
        let mut others = self.table.apps.iter().filter(|app| app.spec.name != name);
        let other = &others.find(|app| app.has_listener(address))?.spec.name;
        let is_any = socket_address(address).is_some_and(|address| address.port() == 0);
        let why = if is_any { ", at a port that the system has chosen: only one app can" } else { "" };
        Some(format!("{other} already listens on {address}{why}"))
    }

    /// Refuses a specification with an address of another app.
    ///
    /// # Errors
    /// Fails with what the other app is.
    pub(super) fn refuse_taken(&self, spec: &Spec) -> Result<()> {
        match spec.listeners.iter().find_map(|address| self.taken(&spec.name, address)) {
            Some(why) => bail!("{why}: choose another address with --listen"),
            None => Ok(()),
        }
    }

    /// Notes that the keeper listens on an address.
    pub(super) fn bound(&mut self, address: String, actual: String) {
        // During a recovery, the apps are not known yet. Later, the app may have been deleted meanwhile.
        if !self.is_recovering() && !self.is_used(&address) {
            return self.order(Order::Unbind(address));
        }
        self.tasks.iter_mut().for_each(|task| task.missing.retain(|one| *one != address));
        self.remarks.retain(|one| retried(one) != Some(address.as_str()));
        let given: Vec<Order> = self.wishes.iter().filter(|wish| wish.address == address).map(Wish::given).collect();
        given.into_iter().for_each(|order| self.order(order));
        self.listeners.insert(address, actual);
    }

    /// Returns whether an app listens on an address.
    pub(super) fn is_used(&self, address: &str) -> bool {
        self.table.apps.iter().any(|app| app.has_listener(address))
    }

    /// Notes that the keeper cannot listen on an address: apps that need it are not started.
    pub(super) fn cannot_bind(&mut self, address: &str, number: i32, why: &str) {
        let refused: Vec<Wish> = self.wishes.extract_if(.., |wish| wish.address == address).collect();
        for wish in refused {
            // It has asked for it, and did not get it.
            if let Some((app_number, _)) = self.table.position(wish.key.instance) {
                let app = &mut self.table.apps[app_number];
                app.asked.retain(|one| one != address);
                let workers = app.instances.iter_mut().flat_map(Instance::workers_mut);
                workers.for_each(|worker| worker.asked.retain(|one| one != address));
                self.is_urgent = true;
            }
            self.order(wish.refused(number, why));
        }
        if !self.is_used(address) {
            self.tasks.iter_mut().for_each(|task| task.missing.retain(|one| one != address));
        }
        let wants = |task: &Task| task.missing.iter().any(|one| one == address);
        // A task without a client comes from a recovery and retries: an old process may hold the address until it has drained.
        if self.tasks.iter().any(|task| task.client.is_none() && wants(task)) {
            let remark = format!("{CANNOT}{address}{YET}{why}");
            // It may be another reason now.
            self.remarks.retain(|one| *one == remark || retried(one) != Some(address));
            self.remark(remark);
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
        // The command that needed it may have been cancelled.
        self.remarks.retain(|one| retried(one).is_none_or(|address| missing.iter().any(|missing| missing == address)));
        missing.into_iter().for_each(|address| self.order(Order::Bind(address)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::saved::AtRest;
    use crate::core::{Found, Input, Now};
    use crate::home::Home;

    #[test]
    fn addresses_that_are_retried_are_remarked_once_each_and_not_any_more_once_they_are_bound() {
        let now = Now::read();
        let mut core = Core::new(Home::at("/h"), Found::default(), now);
        core.handle(Input::Report(Box::new(crate::channel::Report::Told)), now);
        let addresses = ["127.0.0.1:1", "127.0.0.1:2"];
        for (name, address) in ["a", "b"].into_iter().zip(addresses) {
            let spec = Spec { command: vec!["/bin/app".into()], listeners: vec![address.into()], ..Spec::lost(name) };
            core.begin_start(None, spec, 1, &AtRest::default()).unwrap();
        }
        core.remark("something else".into());
        for _ in 0..20 {
            addresses.iter().for_each(|address| core.cannot_bind(address, 98, "taken"));
            core.bind_again();
        }
        let retrying = |address: &str, why: &str| format!("cannot listen on {address} yet, retrying: {why}");
        let [first, second] = addresses.map(|address| retrying(address, "taken"));
        assert_eq!(core.remarks, ["something else", &first, &second]);
        core.bound(addresses[0].into(), addresses[0].into());
        core.cannot_bind(addresses[1], 13, "forbidden");
        assert_eq!(core.remarks, ["something else", &retrying(addresses[1], "forbidden")]);
        core.tasks.clear();
        core.bind_again();
        assert_eq!(core.remarks, ["something else"]);
    }
}
