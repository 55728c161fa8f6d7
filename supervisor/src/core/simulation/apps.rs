//! The apps of the simulated world.

use super::world::{World, home};
use crate::channel::Job;
use crate::spec::{Options, Restart, Spec};

/// A job, whose processes end by themselves.
pub const JOB: &str = "job";
/// A Node program, which asks for one of these addresses: for the second one, if its environment says something. All other apps declare theirs.
pub const NODE: &str = "node";
pub const ASKED: [&str; 2] = ["127.0.0.1:3000", "127.0.0.1:3001"];

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
    let options = Options { restart, ..crate::spec::tests::options() };
    let (listeners, is_node) = (address_of(name).into_iter().collect(), name == NODE);
    let command = vec!["/bin/app".into()];
    Spec { name: name.into(), command, directory: "/".into(), listeners, is_node, options, ..Spec::lost(name) }
}

/// The address that an app declares, if it does.
pub fn address_of(name: &str) -> Option<String> {
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
