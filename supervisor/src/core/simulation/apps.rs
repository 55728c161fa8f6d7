//! The apps of the simulated world.

use super::world::{World, home};
use crate::channel::Job;
use crate::spec::{Options, ReadyWhen, Restart, Spec, Target};
use std::time::Duration;

/// A job, whose processes end by themselves.
pub const JOB: &str = "job";
/// A Node program, which asks for one of these addresses: for the second one, if its environment says something. All other apps declare theirs.
pub const NODE: &str = "node";
pub const ASKED: [&str; 2] = ["127.0.0.1:3000", "127.0.0.1:3001"];

/// An app whose processes do not say that they are ready, and are checked; their memory is limited.
pub const CHECKED: &str = "b";
pub const MOST_MEMORY: u64 = 1 << 20;

/// What a process of the simulated system runs.
#[derive(Debug, Clone)]
pub enum Program {
    Server,
    Job,
    /// It asks for this address.
    Node(String),
}

pub fn spec(name: &str) -> Spec {
    let restart = if name == JOB { Restart::Never } else { Restart::Always };
    let mut options = Options { restart, ..crate::spec::tests::options() };
    if name == CHECKED {
        options.ready_when = Some(ReadyWhen::Listening);
        options.max_memory_restart = Some(MOST_MEMORY);
        options.health.http = Some(Target { address: None, path: "/".into() });
        (options.health.interval, options.health.retries) = (Duration::from_secs(1), 2);
    }
    let (listeners, is_node) = (address_of(name).into_iter().collect(), name == NODE);
    let command = vec!["/bin/app".into()];
    Spec { name: name.into(), command, directory: "/".into(), listeners, is_node, options, ..Spec::lost(name) }
}

/// Returns another specification of an app: it says something else to its program, or listens elsewhere.
pub fn other_spec(name: &str, is_elsewhere: bool) -> Spec {
    let spec = spec(name);
    if is_elsewhere && !spec.listeners.is_empty() {
        return Spec { listeners: vec![format!("127.0.0.2:{}", name.as_bytes()[0])], ..spec };
    }
    Spec { environment: super::other_environment(), ..spec }
}

/// The address that an app declares, if it does.
fn address_of(name: &str) -> Option<String> {
    (![JOB, NODE].contains(&name)).then(|| format!("127.0.0.1:{}", name.as_bytes()[0]))
}

impl World {
    /// Returns what a process runs that is started now.
    pub fn program_of(&self, job: &Job) -> Program {
        let is_next = job.spec == home().next_spec(&job.app);
        let spec = if is_next { self.next_specs.get(&job.app) } else { self.specs.get(&job.app) };
        let says_something = spec.is_some_and(|spec| !spec.environment.0.is_empty());
        match job.app.as_str() {
            JOB => Program::Job,
            NODE => Program::Node(ASKED[usize::from(says_something)].into()),
            _ => Program::Server,
        }
    }
}
