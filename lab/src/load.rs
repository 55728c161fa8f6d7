//! Loads: each runs the harness's driver on a thread of its own, and reports events while it runs.

use crate::bounds;
use crate::pane::Targets;
use bench::stage::{Drive, Lane, Live, Load, Pace, Placement, Sockets, Target, interrupt, say};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// A load ends by itself after this time, should nobody end it.
const LONGEST: Duration = Duration::from_secs(600);
/// Connections of the probes of one pane.
const CONNECTIONS: usize = 256;
/// From a slow request's answer to the next one on its connection.
const THINK: Duration = Duration::from_millis(1);

/// How long before a probe is due its driver wakes up and looks at the clock: the browser draws on the same cores, and on a kernel without preemption the
/// driver runs only once a system call of the browser is over, whatever its priority.
const AWAKE: Duration = Duration::from_micros(300);
/// The part of a core that this may take from the servers, unless the placement gives more.
const AWAKE_PART: f64 = 0.06;

/// The requests of a load.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Probes to each target, at this rate to each.
    Probes(Vec<Target>, u32),
    /// Tabs at one instant.
    Tabs(Target, usize),
    /// Slow requests: number at a time, and length.
    Blockers(Target, usize, Duration),
}

/// Starts a load on a thread of its own, which sends its number once the load has ended.
///
/// # Errors
/// The system has no thread for it.
pub fn start(plan: Plan, live: Live, placement: Placement, ended: Sender<u32>) -> std::io::Result<()> {
    let name = format!("load-{}", live.source);
    thread::Builder::new().name(name).spawn(move || {
        let _driver = placement.enter_driver(true);
        let load = load(&plan, &live, placement);
        // Failures of a server are in the events; the driver itself fails only without descriptors.
        if let Err(error) = Sockets.drive(&load)
            && !live.is_over()
            && !interrupt::is_requested()
        {
            say(&format!("stallbench lab: {error:#}"));
        }
        let _ = ended.send(live.source);
    })?;
    Ok(())
}

/// How long the driver looks at the clock before a request is due.
fn spin(plan: &Plan, placement: Placement) -> Duration {
    let Plan::Probes(targets, per_s) = plan else {
        return placement.spin();
    };
    let per_s = f64::from(*per_s) * targets.len() as f64;
    AWAKE.min(Duration::from_secs_f64(AWAKE_PART / per_s)).max(placement.spin())
}

fn load(plan: &Plan, live: &Live, placement: Placement) -> Load {
    let (lanes, window) = match plan {
        Plan::Probes(targets, per_s) => {
            let lane = |target: &Target| Lane {
                primer: Some(target.clone()),
                ..Lane::open(target.clone(), CONNECTIONS, f64::from(*per_s), false)
            };
            (targets.iter().map(lane).collect(), LONGEST)
        }
        Plan::Tabs(target, count) => {
            let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(1), think: Duration::ZERO };
            let longest = Duration::from_millis(*bounds::LENGTH_MS.end()) * *count as u32;
            (vec![Lane { pace, ..Lane::closed(target.clone(), *count, 1) }], longest)
        }
        Plan::Blockers(target, count, length) => {
            let pace = Pace::Closed { depth: 1, stagger: *length, most: None, think: THINK };
            (vec![Lane { pace, retries: true, ..Lane::closed(target.clone(), *count, 1) }], LONGEST)
        }
    };
    Load { spin: spin(plan, placement), live: Some(live.clone()), ..Load::of(lanes, window, u64::from(live.source)) }
}

/// The slow page of a pane: a user's own, or ours with its length.
pub fn slow(targets: &Targets, length_ms: u64, spins: bool) -> Target {
    if let Some(own) = &targets.slow {
        return own.clone();
    }
    let path = if spins { "/timer" } else { "/sleep" };
    let quick = &targets.quick;
    let request = format!("GET {path}?ms={length_ms} HTTP/1.1\r\nHost: {}\r\n\r\n", quick.address);
    Target { request: request.into_bytes().into(), body: None, ..quick.clone() }
}
