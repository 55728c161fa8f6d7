//! Facts about a process that the kernel reports.

use std::fs;
use std::time::Duration;

/// A process, distinguished from a later process with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// Its start time, in clock ticks since boot.
    pub started: u64,
}

impl Identity {
    /// Returns the identity of a running process.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Identity { pid, started: stat_field(pid, 22)? })
    }

    /// Returns whether this very process still exists.
    pub fn is_alive(self) -> bool {
        Identity::of(self.pid) == Some(self)
    }
}

/// An id that changes with every boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The CPU time that a process has used, user and system.
pub fn cpu_time(pid: i32) -> Option<Duration> {
    let ticks = stat_field(pid, 14)? + stat_field(pid, 15)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The resident memory of a process, in bytes.
pub fn memory(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc(5).
fn stat_field(pid: i32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name that may contain spaces and brackets.
    let rest = &stat[stat.rfind(')')? + 2..];
    rest.split(' ').nth(field - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_with_another_start_time_is_not() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn this_process_uses_memory_and_cpu_time() {
        let pid = std::process::id() as i32;
        assert!(memory(pid).unwrap() > 100_000);
        assert!(cpu_time(pid).is_some());
        assert_eq!(memory(-1), None);
    }
}
