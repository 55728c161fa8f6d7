//! An app: what its processes are started with, and where they listen.

use super::Version;
use super::table::{App, Instance, Worker};
use crate::channel::{Job, LogPlan};
use crate::home::Home;
use crate::spec::{ReadyWhen, STREAMS, Spec};
use std::collections::BTreeMap;

impl App {
    pub fn new(spec: Spec, damage: Option<String>, instances: Vec<Instance>) -> Self {
        App { spec, next: None, damage, asked: Vec::new(), left: BTreeMap::new(), instances, checks: Default::default() }
    }

    /// Returns one of its specifications: the current one, if there is no other.
    pub fn spec_of(&self, version: Version) -> &Spec {
        self.next.as_ref().filter(|_| version == Version::Next).unwrap_or(&self.spec)
    }

    /// Returns the data that the keeper needs to start a process of an instance.
    pub fn job(&self, worker: &Worker, number: u32, home: &Home) -> Job {
        let spec = self.spec_of(worker.version);
        let options = &spec.options;
        let logs = STREAMS.map(|stream| LogPlan {
            path: spec.log(&home.logs(), number, stream),
            max_size: options.log_max_size,
            keep: options.log_keep,
            date_format: options.log_date_format.clone(),
            mode: options.log_mode,
        });
        let path = match worker.version {
            Version::Current => home.spec(&spec.name),
            Version::Next => home.next_spec(&spec.name),
        };
        Job {
            key: worker.key,
            app: spec.name.clone(),
            spec: path,
            number,
            listeners: spec.listeners.clone(),
            asked: worker.asked.clone(),
            has_left: worker.left.is_some(),
            logs,
            is_node: spec.is_node,
            blocks: options.blocking_listener,
            has_user: options.uid.is_some() || options.gid.is_some(),
            ready_text: match &options.ready_when {
                Some(ReadyWhen::Log(text)) => Some(text.clone()),
                _ => None,
            },
            stall_ms: u64::try_from(options.health.stall.as_millis()).ok().filter(|stall| *stall > 0),
        }
    }

    /// Returns where processes with one of its specifications listen: where that says, and where they have asked to.
    pub fn listeners(&self, version: Version) -> impl Iterator<Item = &String> {
        let spec = self.spec_of(version);
        let asked = self.asked.iter().filter(|address| spec.is_node && !spec.listeners.contains(address));
        spec.listeners.iter().chain(asked)
    }

    /// Returns whether it listens on an address, or will if a reload succeeds.
    pub fn has_listener(&self, address: &str) -> bool {
        let declared = self.next.iter().chain([&self.spec]).flat_map(|spec| &spec.listeners);
        declared.chain(&self.asked).any(|one| one == address)
    }

    /// Returns whether its processes share listeners that the supervisor holds, so that one can replace another unnoticed. If not,
    /// each binds for itself.
    pub fn is_cluster(&self, version: Version) -> bool {
        self.listeners(version).next().is_some()
    }

    /// PM2's name for the mode: `cluster` or `fork`.
    pub fn mode(&self) -> &'static str {
        if self.is_cluster(Version::Current) { "cluster" } else { "fork" }
    }
}
