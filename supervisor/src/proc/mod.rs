//! Facts about a process that the kernel reports.

pub mod sockets;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// More than the longest line of `/proc/PID/stat`: a name and some fifty numbers.
const LONGEST_STAT: usize = 2048;

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

    /// Returns how long ago it was started.
    pub fn age(self) -> Option<Duration> {
        let per_second = sysconf(SysconfVar::CLK_TCK).ok()??.unsigned_abs();
        let started = Duration::from_nanos(self.started.saturating_mul(1_000_000_000) / per_second.max(1));
        Some(since_boot()?.saturating_sub(started))
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

/// The time since boot, as start times count it.
pub fn since_boot() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

/// The CPU time that a process has used, user and system.
pub fn cpu_time(pid: i32) -> Option<Duration> {
    // In nanoseconds; /proc has ticks of 10 ms.
    clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime).ok().map(Duration::from)
}

/// The processes of the system and their groups, at one moment.
pub struct Groups {
    members: BTreeMap<i32, Vec<i32>>,
    processes: BTreeMap<i32, Process>,
}

/// A process, as its one line in /proc shows it.
struct Process {
    started: u64,
    /// Resident memory, in pages.
    pages: u64,
}

impl Groups {
    /// Reads the groups of all processes.
    pub fn read() -> Self {
        let mut groups = Groups { members: BTreeMap::new(), processes: BTreeMap::new() };
        for pid in all() {
            let Some([group, started, pages]) = stat_fields(pid, [5, 22, 24]) else { continue };
            groups.processes.insert(pid, Process { started, pages });
            i32::try_from(group).into_iter().for_each(|group| groups.members.entry(group).or_default().push(pid));
        }
        groups
    }

    /// The ids of the processes in a group.
    pub fn members(&self, leader: i32) -> &[i32] {
        self.members.get(&leader).map_or(&[], Vec::as_slice)
    }

    /// The start time of a process, in clock ticks since boot.
    pub fn started(&self, pid: i32) -> Option<u64> {
        self.processes.get(&pid).map(|process| process.started)
    }

    /// The memory of a process and its group, in bytes. What several processes of a group share counts once.
    pub fn memory(&self, leader: i32) -> Option<u64> {
        match self.members(leader) {
            [] | [_] => self.processes.get(&leader).map(|process| process.pages * rustix::param::page_size() as u64),
            members => Some(members.iter().filter_map(|pid| proportional(*pid)).sum()),
        }
    }
}

/// The resident memory of a process, of which pages that it shares count in part.
fn proportional(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB");
    Some(kib.parse::<u64>().ok()? << 10)
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

/// The processes that descend from one, as far as none between them has ended, without those that are left out and what descends from them.
pub fn descendants(pid: i32, is_left_out: impl Fn(i32) -> bool) -> Vec<Identity> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children: Vec<i32> = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .filter(|pid| !is_left_out(*pid))
            .collect();
        found.extend(children.iter().filter_map(|pid| Identity::of(*pid)));
        next.extend(children);
    }
    found
}

/// The ids of the processes in a group.
pub fn group(leader: i32) -> Vec<i32> {
    Groups::read().members.remove(&leader).unwrap_or_default()
}

/// The name of a process: the first 15 bytes of its program's, which may end within a character. A process may call itself anything, also what
/// would do something on a terminal.
pub fn name(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().replace(char::is_control, " "))
}

/// Whether a process waits for a disk or a file server, which nothing can interrupt.
pub fn waits_for_disk(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("State:").is_some_and(|state| state.trim_start().starts_with('D')))
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

/// The name of the file that a process runs.
pub fn program(pid: i32) -> Option<OsString> {
    Some(fs::read_link(format!("/proc/{pid}/exe")).ok()?.file_name()?.to_owned())
}

/// The arguments of a process, each with a zero byte after it.
pub fn arguments(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// A field of `/proc/PID/stat`, counted from 1 as in proc(5).
fn stat_field(pid: i32, field: usize) -> Option<u64> {
    stat_fields(pid, [field]).map(|[value]| value)
}

/// Several of these fields.
fn stat_fields<const N: usize>(pid: i32, fields: [usize; N]) -> Option<[u64; N]> {
    // With a thousand processes, each call of the kernel counts: one is enough to read it.
    let mut stat = [0; LONGEST_STAT];
    let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut stat)).ok()?;
    let stat = &stat[..length];
    // The second field is a name that may contain spaces, brackets and half a character.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 2..)?).ok()?;
    let mut values = [0; N];
    for (value, field) in values.iter_mut().zip(fields) {
        *value = rest.split_ascii_whitespace().nth(field - 3)?.parse().ok()?;
    }
    Some(values)
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
        let groups = Groups::read();
        assert!(groups.memory(pid).unwrap() > 100_000);
        assert!(cpu_time(pid).is_some());
        assert_eq!(groups.memory(-1), None);
    }
}
