//! Processor time that the hypervisor takes away.

use std::fs;

/// Share of processor time that the hypervisor took away, between two looks.
#[derive(Debug, Clone, Copy)]
pub struct StealMeter {
    steal: u64,
    total: u64,
}

impl StealMeter {
    /// Looks for the first time.
    pub fn start() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = stat.lines().next().unwrap_or("");
        let fields: Vec<u64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        StealMeter { steal: fields.get(7).copied().unwrap_or(0), total: fields.iter().take(8).sum() }
    }

    /// Looks again: the share since the first time. The kernel counts in ticks of 10 ms, and fewer than a hundred of them say nothing.
    pub fn share(self) -> f64 {
        let now = StealMeter::start();
        let total = now.total.saturating_sub(self.total);
        if total < 100 { 0.0 } else { now.steal.saturating_sub(self.steal) as f64 / total as f64 }
    }
}
