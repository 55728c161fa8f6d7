//! The machine that a round is measured on.

use super::limits;
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;

/// Properties of the machine that may explain a difference between two rounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Name of the machine.
    pub host: String,
    /// Kernel's release.
    pub kernel: String,
    /// Processor's model.
    pub processor: String,
    /// Cores that may be used.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Frequency governor, or none as in most virtual machines.
    pub governor: String,
    /// The kernel's clock.
    pub clocksource: String,
    /// Hypervisor, if any.
    pub is_virtual: bool,
    /// Open files: soft and hard limit.
    pub open_files: String,
    /// Commit of the checkout, with `+` if it was changed.
    pub commit: String,
    /// Version of this program.
    pub stallbench: String,
}

impl Environment {
    /// Asks the system.
    pub fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let after_colon = |key: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        Environment {
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: after_colon("model name"),
            cores: super::placement::cores().len(),
            memory_mib: memory_kib() / 1024,
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            is_virtual: after_colon("flags").split(' ').any(|flag| flag == "hypervisor"),
            open_files: limits::open_files(),
            commit: commit(),
            stallbench: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The names of the properties that differ.
    pub fn differences(&self, other: &Environment) -> Vec<&'static str> {
        let pairs = [
            ("host", self.host != other.host),
            ("kernel", self.kernel != other.kernel),
            ("processor", self.processor != other.processor),
            ("cores", self.cores != other.cores),
            ("memory", self.memory_mib != other.memory_mib),
            ("governor", self.governor != other.governor),
            ("commit", self.commit != other.commit),
        ];
        pairs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn memory_kib() -> u64 {
    let meminfo = read("/proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The commit of this checkout, with a `+` if there are changes on top of it.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(super::tree::root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if is_changed { commit + "+" } else { commit }
}
