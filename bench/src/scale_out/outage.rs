//! A constant stream of requests while all hosts are reloaded, and while one of them dies and boots again.

use super::NAME;
use super::fleet::{ASK, Fleet};
use crate::load::{Lane, Load, Observation, Target};
use crate::measure::{Session, learn, ms};
use crate::metrics::{Family, Reading, Role, Unit, Value};
use crate::process::{Network, Running};
use crate::validity;
use anyhow::{Result, bail};
use std::thread;
use std::time::{Duration, Instant};

/// Quick requests per second on connections that are kept, and as many on fresh ones.
const QUICK: f64 = 230.0;
/// Slow requests per second, and the time that each blocks its server, in ms.
const SLOW: (f64, u32) = (40.0, 20);
/// Connections that are kept.
const KEPT: usize = 16;
/// Stream before anything is done.
const BEFORE: Duration = Duration::from_secs(1);
/// Stream while one process is reloaded, which waits for the connections that the balancer keeps: until they are idle for two seconds.
const RELOADING: Duration = Duration::from_millis(2500);
/// Stream while a host is down, and after that.
const DOWN: Duration = Duration::from_secs(3);
const UP: Duration = Duration::from_secs(10);
/// Longest wait for answers.
const GRACE: Duration = Duration::from_secs(10);

pub const FAILED: Family = Family::new("failed", Unit::Count, Role::Detail);
pub const REQUESTS: Family = Family::new("requests", Unit::Count, Role::Detail);
pub const LONGEST: Family = Family::new("longest_ms", Unit::Ms, Role::Latency);
pub const IN_FLIGHT: Family = Family::new("in_flight", Unit::Count, Role::Detail);
pub const BACK: Family = Family::new("back_ms", Unit::Ms, Role::Detail);
/// The places of these metrics.
pub const RELOAD: &str = "reload";
pub const LOST_HOST: &str = "host killed";

/// Reloads each host.
pub fn reload(session: &Session<'_>, fleet: &Fleet) -> Result<Vec<Reading>> {
    let load = load(session, fleet, BEFORE + RELOADING * fleet.processes() as u32)?;
    let started = Instant::now();
    let (seen, done) = session.drive_while(&load, || -> Result<()> {
        thread::sleep(BEFORE);
        fleet.members.iter().try_for_each(|member| member.cluster.reload())?;
        if started.elapsed() > load.window {
            bail!("reloading took longer than the stream of requests");
        }
        Ok(())
    })?;
    done?;
    Ok(readings(RELOAD, &seen))
}

/// Kills the first host, and boots it again.
pub fn lost_host(session: &Session<'_>, network: &Network, fleet: &mut Fleet) -> Result<Vec<Reading>> {
    let load = load(session, fleet, BEFORE + DOWN + UP)?;
    let (seen, done) = session.drive_while(&load, || -> Result<(u64, Duration)> {
        thread::sleep(BEFORE);
        // Frozen first, so that what is in flight on it stays so until it dies, which takes a moment.
        let host = &mut fleet.members[0].host;
        host.freeze()?;
        let frozen = fleet.balancer.seen("host1")?;
        host.strike();
        // A frozen host answers nothing: what it is given stays in flight too.
        let in_flight = frozen.in_flight + fleet.balancer.seen("host1")?.requests.saturating_sub(frozen.requests);
        host.kill();
        thread::sleep(DOWN);
        let before = fleet.balancer.seen("host1")?.requests;
        fleet.boot(network, 0)?;
        Ok((in_flight, until_back(fleet, before)?))
    })?;
    let (in_flight, back) = done?;
    let mut readings = readings(LOST_HOST, &seen);
    readings.push((IN_FLIGHT.at(NAME, LOST_HOST), Ok(Value::Exact(in_flight as f64))));
    readings.push((BACK.at(NAME, LOST_HOST), Ok(Value::Exact(ms(back)))));
    Ok(readings)
}

/// The time until the balancer gives the first host requests again.
fn until_back(fleet: &Fleet, before: u64) -> Result<Duration> {
    let ready = Instant::now();
    while ready.elapsed() < UP {
        let seen = fleet.balancer.seen("host1")?;
        if seen.is_up && seen.requests > before {
            return Ok(ready.elapsed());
        }
        thread::sleep(ASK);
    }
    bail!("the balancer gives a host that came back no requests for {} s", UP.as_secs())
}

fn load(session: &Session<'_>, fleet: &Fleet, window: Duration) -> Result<Load> {
    fleet.wait()?;
    let mut balancer = Running::elsewhere(fleet.address())?;
    let page = learn(&mut balancer, "/")?;
    let slow = learn(&mut balancer, &format!("/sleep?ms={}", SLOW.1))?;
    let fresh = |target: &Target, rate: f64| Lane { is_fresh: true, ..Lane::open(target.clone(), 1, rate, false) };
    let lanes = vec![Lane::open(page.clone(), KEPT, QUICK, false), fresh(&page, QUICK), fresh(&slow, SLOW.0)];
    Ok(Load { grace: GRACE, spin: session.placement.spin(), ..Load::of(lanes, window, session.seed) })
}

fn readings(place: &str, seen: &Observation) -> Vec<Reading> {
    let quick = &seen.lanes[..2];
    let at = |family: Family| family.at(NAME, place);
    let sum = |of: fn(&crate::load::Recording) -> u64| Value::Exact(seen.lanes.iter().map(of).sum::<u64>() as f64);
    let longest = quick.iter().map(|lane| lane.response.max()).max().unwrap_or(0) as f64 / 1e6;
    // A driver that is late changes how long an answer takes, not whether there is one.
    let invalid = (0..quick.len()).find_map(|lane| validity::of_driver(seen, lane, &seen.lanes[lane].response).err());
    let invalid = invalid.or(validity::any_answer(&quick.iter().collect::<Vec<_>>()).err());
    vec![
        (at(REQUESTS), Ok(sum(|lane| lane.planned))),
        (at(FAILED), Ok(sum(|lane| lane.planned - lane.answered))),
        (at(LONGEST), invalid.map_or(Ok(Value::Exact(longest)), |failure| Err(failure.to_string()))),
    ]
}
