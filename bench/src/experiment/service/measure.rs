//! The climbs of a trial: of the service itself, and of a reference beside it.

use super::{KIND, LIMIT_MS, Settings, WARM_QUEUE_MS};
use crate::catalog::Own;
use crate::console::interrupt;
use crate::experiment::climb::{Climb, Ladder, Run, Step};
use crate::load::Target;
use crate::measure::{Kept, Kind, Session, learn_on, learn_own, lenient, ms};
use crate::process::Running;
use anyhow::{Result, bail};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A server that has just failed requests, but is there, accepts a connection within this time.
const UNTIL_REFUSED: Duration = Duration::from_secs(1);
/// The slow request of a new process is asked until it takes no more than this many times what it took before, within this time.
const WARM_SLOW: (f64, Duration) = (1.5, Duration::from_secs(2));
/// How a reason says that a server has ended; the second form is that of rounds before 2026-12.
const ENDED: [&str; 2] = ["the server ended", "no server listens there any more"];

/// How a server ended, if this is the reason why something was not measured.
pub fn ending(reason: &str) -> Option<&str> {
    ENDED.iter().find_map(|ended| Some(&reason[reason.find(ended)?..]))
}

pub(super) fn climb_own(session: &Session<'_>, settings: &Settings) -> Result<Run> {
    let Some(own) = &session.server.own else { bail!("{} is not a user's own server", session.server.name) };
    let mut running = session.start()?;
    let probe = lenient(learn_own(&mut running, own, &own.probe)?.0);
    let blocker = lenient(warm(&mut running, own, settings.slow_ms(&session.server.name))?);
    let at_once = (WARM_QUEUE_MS / settings.probe_ms).max(1.0) as usize;
    let warm = session.warm_up(&probe, settings.connections.min(at_once));
    running.explain(warm)?;
    let climb = Climb {
        kind: KIND,
        block_ms: settings.block_ms,
        connecting: Duration::from_secs_f64(settings.fresh_ms / 1e3),
        window: Duration::from_millis(settings.window_ms),
        limit: Duration::from_secs_f64(LIMIT_MS / 1e3),
        blockers: &settings.blockers,
        probe: (&probe, settings.rate, settings.connections),
        blocker: &blocker,
        at_once: &|_| None,
        is_lenient: true,
    };
    let _driver = session.placement.enter_driver(true);
    let mut run = running.explain(climb.run(session))?;
    if let Some(last) = run.steps.last_mut().filter(|last| last.invalid.is_some() || last.has_failures()) {
        explain(last, &mut running);
    }
    Ok(run)
}

/// Asks the slow request until it is as quick as it was before: a new process may begin with cold caches.
fn warm(running: &mut Running, own: &Own, slow_ms: f64) -> Result<Target> {
    let (started, mut kept) = (Instant::now(), Kept::default());
    loop {
        let (target, took) = learn_on(&mut kept, running, own, &own.blocker)?;
        if ms(took) <= WARM_SLOW.0 * slow_ms || started.elapsed() >= WARM_SLOW.1 {
            return Ok(target);
        }
        interrupt::check()?;
    }
}

/// Says why a step could not be measured, or that the server did not outlive it: what died has no response times.
fn explain(last: &mut Step, running: &mut Running) {
    let broken = format!("beside k={} the measurement broke off", last.k);
    let reason = last.invalid.clone().unwrap_or_else(|| broken.clone());
    let Err(error) = running.explain::<()>(Err(anyhow::anyhow!("{reason}"))) else { return };
    let connection = TcpStream::connect_timeout(&running.address, UNTIL_REFUSED);
    if running.ended().is_some() {
        // Whatever the driver lacked meanwhile, another attempt would not find more.
        last.invalid = Some(error.to_string().replacen(&reason, &broken, 1));
    } else if connection.is_err_and(|refusal| refusal.kind() == ErrorKind::ConnectionRefused) {
        last.invalid = Some(format!("{broken}; {} and nothing listens at {} any more", ENDED[0], running.address));
    } else if last.invalid.is_some() {
        last.invalid = Some(error.to_string());
    }
}

pub(super) fn climb_reference(session: &Session<'_>, settings: &Settings) -> Result<Run> {
    let ladder = Ladder {
        block_ms: settings.block_ms,
        window_ms: settings.reference_window_ms,
        limit_ms: LIMIT_MS,
        rate: settings.rate,
        connections: settings.connections,
    };
    let run = ladder.run(session, Kind::Sleep, &settings.reference_blockers)?;
    Ok(Run { kind: KIND.into(), ..run })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_cold_process_is_asked_until_it_is_as_quick_as_it_was_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut running = Running::elsewhere(listener.local_addr().unwrap()).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                for _ in lines.filter(String::is_empty) {
                    let is_cold = count.fetch_add(1, Ordering::SeqCst) < 3;
                    std::thread::sleep(Duration::from_millis(if is_cold { 60 } else { 1 }));
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            }
        });
        let ask = |path: &str| path.parse().unwrap();
        let own = Own { probe: ask("/"), blocker: ask("/slow"), headers: Vec::new(), host: None };
        warm(&mut running, &own, 20.0).unwrap();
        assert!(asked.load(Ordering::SeqCst) > 3);
    }
}
