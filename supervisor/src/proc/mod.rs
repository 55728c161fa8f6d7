//! Facts about a process that the kernel reports.

pub mod sockets;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
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

/// Twelve hexadecimal digits that nobody can guess.
///
/// # Errors
/// Fails if the kernel's file cannot be read.
pub fn random() -> io::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    // The last group of it is random throughout.
    Ok(uuid.trim().rsplit('-').next().unwrap_or_default().to_owned())
}

/// The CPU time that a process has used, user and system.
pub fn cpu_time(pid: i32) -> Option<Duration> {
    let ticks = stat_field(pid, 14)? + stat_field(pid, 15)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The process groups of the system, at one moment.
pub struct Groups(BTreeMap<i32, Vec<i32>>);

impl Groups {
    /// Reads the groups of all processes.
    pub fn read() -> Self {
        let mut groups: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for pid in all() {
            let group = stat_field(pid, 5).and_then(|group| i32::try_from(group).ok());
            group.into_iter().for_each(|group| groups.entry(group).or_default().push(pid));
        }
        Groups(groups)
    }

    /// The ids of the processes in a group.
    pub fn members(&self, leader: i32) -> &[i32] {
        self.0.get(&leader).map_or(&[], Vec::as_slice)
    }

    /// The memory of a process and its group, in bytes. What several processes of a group share counts once.
    pub fn memory(&self, leader: i32) -> Option<u64> {
        match self.0.get(&leader).map(Vec::as_slice) {
            None | Some([_]) => memory(leader),
            Some(members) => Some(members.iter().filter_map(|pid| proportional(*pid)).sum()),
        }
    }

    /// The CPU time that a process and its group have used, user and system.
    pub fn cpu_time(&self, leader: i32) -> Option<Duration> {
        let members = self.0.get(&leader).map_or(std::slice::from_ref(&leader), Vec::as_slice);
        members.iter().map(|pid| cpu_time(*pid)).sum()
    }
}

/// The resident memory of a process, of which pages that it shares count in part.
fn proportional(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB");
    Some(kib.parse::<u64>().ok()? << 10)
}

/// The resident memory of a process, in bytes.
pub fn memory(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The ids of all processes.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The ids of the children of this process, if it has only one thread.
pub fn children() -> Vec<i32> {
    let pids = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The id of a process, and those of the processes that it descends from.
pub fn line_of(pid: i32) -> Vec<i32> {
    let parent = |pid: &i32| stat_field(*pid, 4).and_then(|parent| i32::try_from(parent).ok()).filter(|parent| *parent > 0);
    std::iter::successors(Some(pid), parent).collect()
}

/// The processes that descend from one, as far as none between them has ended.
pub fn descendants(pid: i32) -> Vec<Identity> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children: Vec<i32> = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        found.extend(children.iter().filter_map(|pid| Identity::of(*pid)));
        next.extend(children);
    }
    found
}

/// The ids of the processes in a group.
pub fn group(leader: i32) -> Vec<i32> {
    Groups::read().0.remove(&leader).unwrap_or_default()
}

/// The name of a process: the first 15 bytes of its program's, which may end within a character. A process may call itself anything, also what
/// would do something on a terminal.
pub fn name(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().replace(char::is_control, " "))
}

/// The number of the user that a process runs as, even if it has ended and nobody has reaped it.
pub fn user(pid: i32) -> Option<u32> {
    // The kernel lets the folder belong to the effective user, in any case.
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

/// The environment that a process was started with, as the kernel shows it.
pub fn environment(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// Whether a process has an open descriptor with this target, such as `socket:[12345]`.
pub fn holds(pid: i32, target: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == target))
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc(5).
fn stat_field(pid: i32, field: usize) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name that may contain spaces, brackets and half a character.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 2..)?).ok()?;
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
