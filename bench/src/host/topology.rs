//! The processors as the kernel describes them: which of them are threads of one core.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;

/// The physical cores, each with the processors that are its threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    cores: Vec<Vec<usize>>,
}

impl Topology {
    /// Asks the kernel about the processors that this thread may use.
    pub fn of_this_thread() -> Self {
        let here = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
        let all: Vec<usize> = (0..CpuSet::count()).filter(|core| here.is_set(*core).unwrap_or(false)).collect();
        Self::group(if all.is_empty() { vec![0] } else { all }, |processor| {
            let path = format!("/sys/devices/system/cpu/cpu{processor}/topology/");
            let read = |name: &str| fs::read_to_string(path.clone() + name).unwrap_or_default().trim().to_owned();
            let (package, core) = (read("physical_package_id"), read("core_id"));
            // Where the kernel says nothing, each processor is a core.
            if core.is_empty() { format!("processor {processor}") } else { format!("{package}/{core}") }
        })
    }

    fn group(processors: Vec<usize>, core: impl Fn(usize) -> String) -> Self {
        let mut cores: Vec<Vec<usize>> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for processor in processors {
            let next = cores.len();
            let index = *known.entry(core(processor)).or_insert(next);
            if index == next {
                cores.push(Vec::new());
            }
            cores[index].push(processor);
        }
        Topology { cores }
    }

    /// Number of physical cores.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// All processors.
    pub fn processors(&self) -> Vec<usize> {
        self.cores.concat()
    }

    /// All processors of the first `count` cores, and those of the others. Threads of one core stay together; where there is only one core,
    /// its threads are divided.
    pub fn divide(&self, count: usize) -> (Vec<usize>, Vec<usize>) {
        if let [only] = self.cores.as_slice() {
            let at = only.len().saturating_sub(1).max(1).min(only.len());
            let (first, last) = only.split_at(at);
            return (first.to_vec(), if last.is_empty() { only.clone() } else { last.to_vec() });
        }
        let (first, last) = self.cores.split_at(count.clamp(1, self.cores.len() - 1));
        (first.concat(), last.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four cores with two threads each, numbered as most kernels do.
    fn hyperthreaded() -> Topology {
        Topology::group((0..8).collect(), |processor| (processor % 4).to_string())
    }

    #[test]
    fn threads_of_one_core_are_never_divided_between_server_and_driver() {
        assert_eq!(hyperthreaded().divide(2), (vec![0, 4, 1, 5], vec![2, 6, 3, 7]));
        assert_eq!(hyperthreaded().divide(3), (vec![0, 4, 1, 5, 2, 6], vec![3, 7]));
        assert_eq!(hyperthreaded().cores(), 4);
    }

    #[test]
    fn both_sides_always_have_something() {
        let plain = Topology::group(vec![3, 5], |processor| processor.to_string());
        assert_eq!(plain.divide(0), (vec![3], vec![5]));
        assert_eq!(plain.divide(9), (vec![3], vec![5]));
        let single = Topology::group(vec![0, 1], |_| "0".into());
        assert_eq!(single.divide(1), (vec![0], vec![1]));
        assert_eq!(Topology::group(vec![0], |_| "0".into()).divide(1), (vec![0], vec![0]));
    }
}
