//! The receipt: a server's record of its versions, flags and settings, printed by `--version` and stored with every result.

use crate::args::Knobs;
use crate::{Runtime, Threads};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The server, its build, and the resolved value of every knob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The server's name: `<runtime>-<model>`.
    pub server: String,
    /// The library that schedules work.
    pub runtime: String,
    /// The exact version of that library.
    pub runtime_version: String,
    /// The concurrency model.
    pub model: String,
    /// `mimalloc` with its version, or `system`.
    pub allocator: String,
    /// The compiler with its version.
    pub compiler: String,
    /// Cargo's build profile.
    pub profile: String,
    /// The target triple.
    pub target: String,
    /// The compiler flags in addition to those of the profile.
    pub rustflags: String,
    /// The number of threads in one process that may run a handler, including the main thread and parked ones.
    pub handler_threads: String,
    /// The number of threads in one process that may poll I/O.
    pub io_threads: String,
    /// The resolved value of every knob.
    pub knobs: BTreeMap<String, String>,
}

impl Receipt {
    /// The differences from another receipt, each with the name of its field or knob.
    pub fn differences(&self, other: &Receipt) -> Vec<String> {
        let pairs = [
            ("runtime version", &self.runtime_version, &other.runtime_version),
            ("allocator", &self.allocator, &other.allocator),
            ("compiler", &self.compiler, &other.compiler),
            ("profile", &self.profile, &other.profile),
            ("target", &self.target, &other.target),
            ("rustflags", &self.rustflags, &other.rustflags),
            ("handler threads", &self.handler_threads, &other.handler_threads),
            ("I/O threads", &self.io_threads, &other.io_threads),
        ];
        let fields = pairs.into_iter().filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name} ({a} -> {b})"));
        let names: BTreeSet<&String> = self.knobs.keys().chain(other.knobs.keys()).collect();
        let value = |receipt: &Receipt, name: &String| receipt.knobs.get(name).map_or("none", String::as_str).to_owned();
        let knobs = names.into_iter().filter(|name| self.knobs.get(*name) != other.knobs.get(*name));
        fields.chain(knobs.map(|name| format!("{name} ({} -> {})", value(self, name), value(other, name)))).collect()
    }

    pub(crate) fn new(runtime: &Runtime, knobs: &Knobs) -> Self {
        Receipt {
            server: format!("{}-{}", runtime.name, knobs.model.name),
            runtime: runtime.name.into(),
            runtime_version: runtime.package.map_or("of the compiler".into(), |package| locked_version(package).into()),
            model: knobs.model.name.into(),
            allocator: allocator(),
            compiler: env!("RECEIPT_COMPILER").into(),
            profile: env!("RECEIPT_PROFILE").into(),
            target: env!("RECEIPT_TARGET").into(),
            rustflags: env!("RECEIPT_RUSTFLAGS").into(),
            handler_threads: handler_threads(knobs),
            io_threads: knobs.model.pollers.resolve(knobs.threads),
            knobs: resolved(runtime, knobs),
        }
    }
}

impl Threads {
    fn resolve(self, threads: usize) -> String {
        match self {
            Threads::One => "1".into(),
            Threads::Knob => threads.to_string(),
            Threads::KnobAnd(more) => (threads + more).to_string(),
            Threads::PerConnection => "1 per connection".into(),
        }
    }
}

/// The threads that serve connections, plus those of the pools for blocking work.
fn handler_threads(knobs: &Knobs) -> String {
    let own = knobs.model.handlers.resolve(knobs.threads);
    if knobs.blocking_threads > 0 { format!("{own} + {}", knobs.pool_threads()) } else { own }
}

fn resolved(runtime: &Runtime, knobs: &Knobs) -> BTreeMap<String, String> {
    let model = knobs.model;
    let time = |duration| humantime::format_duration(duration).to_string();
    let mut all = vec![
        ("processes", knobs.processes.to_string()),
        ("state", knobs.state.to_string()),
        ("max-block", time(knobs.limits.max_block)),
        ("huge-pages", "never".into()),
        ("drain", time(knobs.limits.drain)),
        ("drain-idle", time(knobs.limits.drain_idle)),
        ("header-timeout", time(knobs.limits.header_timeout)),
        ("request-timeout", time(knobs.limits.request_timeout)),
        ("idle-timeout", time(knobs.limits.idle_timeout)),
    ];
    all.extend(knobs.state.connections().map(|connections| ("state-connections", connections)));
    all.extend(model.has_threads.then(|| ("threads", knobs.threads.to_string())));
    all.extend((knobs.blocking_threads > 0).then(|| ("blocking-threads", knobs.blocking_threads.to_string())));
    all.extend((knobs.queue > 0).then(|| ("queue", knobs.queue.to_string())));
    all.extend(model.can_be_full().then(|| ("when-full", knobs.when_full.name().into())));
    all.extend(knobs.dispatch.map(|dispatch| ("dispatch", dispatch.name().into())));
    all.extend((runtime.settings)(knobs));
    all.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn allocator() -> String {
    if cfg!(feature = "system-allocator") { "system".into() } else { format!("mimalloc {}", locked_version("mimalloc")) }
}

/// The version of a package in this binary, according to `Cargo.lock`.
fn locked_version(package: &str) -> &'static str {
    const LOCKED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/locked.rs"));
    LOCKED.iter().find(|(name, _)| *name == package).map_or("unknown", |(_, version)| *version)
}
