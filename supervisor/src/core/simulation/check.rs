//! What must be true in the simulated world: at any time, and once it has calmed down.

use super::apps::{ASKED, NODE};
use super::world::{Expected, Process, World};
use crate::core::table::{Instance, Other};
use crate::core::worker::State;
use std::collections::BTreeSet;

impl World {
    /// Checks that nothing else is replaced while a canary is on trial.
    pub fn check_canary(&self) {
        for app in &self.core.table.apps {
            let is_new = |instance: &&Instance| {
                let other = instance.other.as_ref();
                other
                    .is_some_and(|other| matches!(other, Other::Replacement(new) if !matches!(new.state, State::Stopping { .. })))
            };
            let trials = app.instances.iter().filter(|instance| instance.trial.is_some()).count();
            let new = app.instances.iter().filter(is_new).count();
            assert!(trials == 0 || new <= 1, "{new} are replaced beside a canary:\n{}", self.history());
        }
    }

    pub fn check(&mut self) {
        let history = || self.history();
        assert!(self.waiting.is_empty(), "{:?} are not answered:\n{}", self.waiting, history());
        if self.is_over {
            assert!(self.processes.is_empty(), "{:?} outlive the supervisor:\n{}", self.processes, history());
            return;
        }
        assert!(!self.core.is_at_work(), "a command never ends:\n{}", history());
        let table = self.core.view();
        let listed: BTreeSet<i32> = table.all().filter_map(|(_, one)| one.pid).collect();
        let running: BTreeSet<i32> = self.processes.keys().copied().collect();
        assert_eq!(listed, running, "the list and the processes differ:\n{}", history());
        for (app, one) in table.all() {
            match (one.status.as_str(), one.pid) {
                ("online", Some(pid)) => {
                    let name = &app.name;
                    let Some(address) = self.core.table.app(name).unwrap().spec.listeners.first() else { continue };
                    let is_ready = matches!(self.processes[&pid].1, Process::Running { is_ready: true, .. });
                    assert!(is_ready, "{} is called online and is {:?}:\n{}", one.id, self.processes[&pid], history());
                    assert!(self.keeper.listeners.contains(address), "{name} has no listener:\n{}", history());
                }
                ("stopped" | "errored", None) => {}
                (status, pid) => panic!("instance {} stays {status} with {pid:?}:\n{}", one.id, history()),
            }
        }
        let names: BTreeSet<&str> = table.names().collect();
        for (name, expected) in &self.expected {
            assert!(names.contains(name.as_str()), "{name} is lost:\n{}", history());
            let instances = &table.app(name).unwrap().instances;
            let states: BTreeSet<&str> = instances.iter().map(|one| one.status.as_str()).collect();
            match expected {
                Expected::Stopped => assert_eq!(states, BTreeSet::from(["stopped"]), "{name}:\n{}", history()),
                Expected::Running => assert!(!states.contains("stopped"), "{name} is stopped:\n{}", history()),
                Expected::Kept | Expected::Anything => {}
            }
        }
        for (_, instance) in self.core.table.all() {
            assert!(instance.other.is_none(), "{} still has a second process:\n{}", instance.id, history());
        }
        for address in &self.keeper.listeners {
            let is_asked = names.contains(NODE) && ASKED.contains(&address.as_str());
            let is_declared = self.core.table.apps.iter().any(|app| app.spec.listeners.contains(address));
            assert!(is_asked || is_declared, "{address} is bound for nobody:\n{}", history());
        }
        self.check_asked();
    }

    /// Checks the listeners that processes have asked for: each has a process, once all have come to listen, and each that a process has is bound.
    fn check_asked(&self) {
        let instances = || self.core.table.app(NODE).into_iter().flat_map(|app| &app.instances);
        let running = instances().filter_map(|one| one.worker.state.process());
        let held: Vec<&Vec<String>> = running.map(|process| &self.processes[&process.pid].2).collect();
        let has_come = held.iter().all(|held| !held.is_empty()) && instances().all(Instance::is_online);
        for address in ASKED.map(str::to_owned) {
            let (is_held, is_bound) = (held.iter().any(|held| held.contains(&address)), self.keeper.listeners.contains(&address));
            assert!(!is_held || is_bound, "{address} is not bound any more:\n{}", self.history());
            let is_forsaken = is_bound && !is_held && !held.is_empty() && has_come;
            assert!(!is_forsaken, "{address} is bound, and nobody listens there:\n{}", self.history());
        }
    }
}
