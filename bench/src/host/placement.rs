//! Placement: the processors of server and driver. It decides what a number means, so it is part of every cell's key.

use super::topology::Topology;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// The processors of server and driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On separate cores, half for each
    Disjoint,
    /// Both on all cores, the driver as a light real-time thread
    Shared,
    /// The driver on the last core, the server on all others
    Split,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Placement::Disjoint => "disjoint",
            Placement::Shared => "shared",
            Placement::Split => "split",
        })
    }
}

impl Placement {
    /// The placement for latencies on this machine: separate cores from four on, otherwise all cores for both if real-time priority is
    /// permitted.
    pub fn default_here() -> Self {
        match (topology().cores(), RealTime::claim().is_some()) {
            (4.., _) => Placement::Disjoint,
            (_, true) => Placement::Shared,
            (_, false) => Placement::Split,
        }
    }

    /// The server's processors.
    pub fn server_cores(self) -> Vec<usize> {
        self.divide(topology()).0
    }

    /// The driver's processors.
    pub fn driver_cores(self) -> Vec<usize> {
        self.divide(topology()).1
    }

    fn divide(self, topology: &Topology) -> (Vec<usize>, Vec<usize>) {
        match self {
            Placement::Shared => (topology.processors(), topology.processors()),
            Placement::Disjoint => topology.divide(topology.cores().div_ceil(2)),
            Placement::Split => topology.divide(topology.cores() - 1),
        }
    }

    /// The part of a wait that the driver may spend looking at the clock: on cores that the server needs, a moment; on a core of its own,
    /// as long as it likes.
    pub fn spin(self) -> Duration {
        if self == Placement::Shared { Duration::from_micros(50) } else { Duration::from_millis(1) }
    }

    /// Puts the calling thread where the driver belongs, until the guard is dropped. `is_paced` says that it sleeps between its
    /// sends: only then may it run in real time, since the kernel throttles a real-time thread that never sleeps.
    pub fn enter_driver(self, is_paced: bool) -> InDriver {
        let before = sched_getaffinity(Pid::from_raw(0)).ok();
        let _ = sched_setaffinity(Pid::from_raw(0), &set_of(&self.driver_cores()));
        let awake = Awake::keep();
        let real_time = if is_paced && self == Placement::Shared { RealTime::claim() } else { None };
        InDriver { before, real_time, _awake: awake }
    }
}

/// The calling thread is the driver.
pub struct InDriver {
    before: Option<CpuSet>,
    real_time: Option<RealTime>,
    _awake: Awake,
}

impl InDriver {
    /// Whether the system permitted real-time priority.
    pub fn is_real_time(&self) -> bool {
        self.real_time.is_some()
    }
}

impl Drop for InDriver {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}

/// No core sleeps: on each, a thread of the lowest class spins when nothing else wants to run. A core of a virtual machine that
/// halts takes hundreds of microseconds to come back, and that would be measured instead of the servers.
struct Awake(Arc<AtomicBool>);

impl Awake {
    fn keep() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        for core in cores() {
            let is_over = is_over.clone();
            let spin = move || {
                let is_placed = sched_setaffinity(Pid::from_raw(0), &set_of(&[core])).is_ok();
                // A spinning thread of a higher class would do more harm than good.
                while is_placed && set_policy(nix::libc::SCHED_IDLE, 0) && !is_over.load(Ordering::Relaxed) {
                    (0..10_000).for_each(|_| spin_loop());
                }
            };
            // Without the thread the numbers are noisier, which their intervals show.
            let _ = thread::Builder::new().name(format!("awake-{core}")).stack_size(64 * 1024).spawn(spin);
        }
        Awake(is_over)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The calling thread has real-time priority.
struct RealTime;

impl RealTime {
    fn claim() -> Option<Self> {
        set_policy(nix::libc::SCHED_FIFO, 10).then_some(RealTime)
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        set_policy(nix::libc::SCHED_OTHER, 0);
    }
}

fn set_policy(policy: i32, priority: i32) -> bool {
    let parameters = nix::libc::sched_param { sched_priority: priority };
    // SAFETY: a plain system call on this thread with a pointer to a value that outlives it.
    unsafe { nix::libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}

/// The processors that this process was given, whatever its threads have narrowed themselves to since: asked once, at the start.
fn topology() -> &'static Topology {
    static TOPOLOGY: OnceLock<Topology> = OnceLock::new();
    TOPOLOGY.get_or_init(Topology::of_this_thread)
}

/// All processors that this process was given.
pub fn cores() -> Vec<usize> {
    topology().processors()
}

/// A set of processors for the system.
pub fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        // A core beyond what a set can name cannot be used at all.
        let _ = set.set(*core);
    }
    set
}

/// The default W, the number of threads or processes of a server: as many as it has processors, and two at least, so that multi-thread means
/// something.
pub fn default_threads(placement: Placement) -> usize {
    placement.server_cores().len().max(2)
}
