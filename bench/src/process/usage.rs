//! What a server uses: processor time and memory of all its processes, read from outside.

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

/// Processor time: the sum to the nanosecond, and the kernel's ticks that tell user from system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// User and system.
    pub total: Duration,
    user_ticks: u64,
    system_ticks: u64,
}

impl Cpu {
    /// The time used so far by these processes.
    pub fn of(pids: &[Pid]) -> Self {
        let mut cpu = Cpu::default();
        for pid in pids {
            let clock = ClockId::pid_cpu_clock_id(*pid).and_then(clock_gettime);
            cpu.total += clock.map_or(Duration::ZERO, Duration::from);
            let (user, system) = ticks(*pid).unwrap_or_default();
            cpu.user_ticks += user;
            cpu.system_ticks += system;
        }
        cpu
    }

    /// The time used since `earlier`, and the share of it in user mode.
    pub fn since(self, earlier: Cpu) -> (Duration, f64) {
        let (user, system) =
            (self.user_ticks.saturating_sub(earlier.user_ticks), self.system_ticks.saturating_sub(earlier.system_ticks));
        let share = user as f64 / (user + system).max(1) as f64;
        (self.total.saturating_sub(earlier.total), share)
    }
}

/// Memory of several processes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident, each process by itself: what is shared counts several times.
    pub rss: u64,
    /// Resident, what is shared counted once.
    pub pss: u64,
    /// Threads of all processes.
    pub threads: u64,
}

impl Memory {
    /// The memory of these processes.
    pub fn of(pids: &[Pid]) -> Self {
        let mut memory = Memory::default();
        for pid in pids {
            memory.pss += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:") * 1024;
            memory.rss += field(&format!("/proc/{pid}/status"), "VmRSS:") * 1024;
            memory.threads += field(&format!("/proc/{pid}/status"), "Threads:");
        }
        memory
    }
}

/// User and system ticks of a process, ended children left out.
fn ticks(pid: Pid) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so the fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
