//! The harness tested against itself: what must show in the numbers is made to happen, and must show; what must not be believed is
//! tried, and must be refused.

use crate::catalog::{self, Server};
use crate::cmd::bench::{create, measure, write_derived};
use crate::driver::record::Times;
use crate::driver::{self, Lane, Load, Pace, Report, Target};
use crate::experiment::{Settings, learn};
use crate::host::placement::{Placement, cores, default_threads, set_of};
use crate::process::{Running, Start};
use crate::validity;
use crate::verdict::spread::NullResult;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The server that is stopped and driven.
pub const SERVER: &str = "tokio-current-thread";
/// Requests per second of the open loop, for so long.
const RATE: f64 = 1000.0;
const WINDOW: Duration = Duration::from_secs(3);
/// How long the server, or the driver, is stopped in the middle of it.
const STOPPED: Duration = Duration::from_millis(500);
/// How far a quantile may be from arithmetic.
const TOLERANCE: f64 = 0.03;
/// The machine is shared: a self-test that needs it quiet is tried so often.
const ATTEMPTS: usize = 5;
/// Comparisons that a full null test has at least.
const COMPARISONS: usize = 400;
/// Every so many answers of the server that lies about its tail is late, by so much.
const LATE: (u64, Duration) = (50, Duration::from_millis(200));

/// A self-test: its name, and what to try; it returns what it found.
pub type SelfTest = (&'static str, fn() -> Result<String>);

/// Those that take seconds.
pub const FAULTS: &[SelfTest] = &[
    ("stopped-server", stopped_server),
    ("stopped-driver", stopped_driver),
    ("wrong-body", wrong_body),
    ("late-tail", late_tail),
];

/// A server that stands still for a known time: the histogram must be what arithmetic says.
fn stopped_server() -> Result<String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let (report, stopped) = drive_and_stop()?;
        let errors: Vec<(f64, f64, f64)> = [0.9, 0.95, 0.99, 1.0].map(|quantile| distance(&report, stopped, quantile)).to_vec();
        last = errors
            .iter()
            .map(|(quantile, found, due)| format!("p{:.0} {found:.0} ms ({due:.0})", quantile * 100.0))
            .collect::<Vec<_>>()
            .join(", ");
        if errors.iter().all(|(_, found, due)| (found / due - 1.0).abs() <= TOLERANCE) {
            return Ok(format!("stopped for {:.0} ms: {last}", stopped.as_secs_f64() * 1e3));
        }
        crate::console::interrupt::check()?;
    }
    bail!("found (due): {last}; more than {:.0} % off in each of {ATTEMPTS} attempts", TOLERANCE * 100.0)
}

/// A quantile of response time as found, and as a stop in the middle of even arrivals makes it, in ms: requests due during the stop
/// wait for the rest of it, all others for nothing.
fn distance(report: &Report, stopped: Duration, quantile: f64) -> (f64, f64, f64) {
    let found = report.lanes[0].response.value_at_quantile(quantile) as f64 / 1e6;
    (quantile, found, stalled_ms(stopped, report.window, quantile))
}

fn stalled_ms(stopped: Duration, window: Duration, quantile: f64) -> f64 {
    let share = stopped.as_secs_f64() / window.as_secs_f64();
    ((quantile - (1.0 - share)) / share).max(0.0) * stopped.as_secs_f64() * 1e3
}

fn drive_and_stop() -> Result<(Report, Duration)> {
    let mut running = start()?;
    let target = learn(&mut running, "/")?;
    let load = open_load(target);
    let stop = || -> Result<Duration> {
        thread::sleep(load.warmup + WINDOW / 3);
        running.signal(Signal::SIGSTOP)?;
        let began = Instant::now();
        thread::sleep(STOPPED);
        let stopped = began.elapsed();
        running.signal(Signal::SIGCONT)?;
        Ok(stopped)
    };
    thread::scope(|scope| {
        let stopping = scope.spawn(stop);
        let guard = Placement::default_here().enter_driver(true);
        let report = driver::run(&load);
        drop(guard);
        let stopped = stopping.join().map_err(|_| anyhow::anyhow!("the thread that stops the server has failed"))??;
        let report = report?;
        validity::of_lane(&report, 0)?;
        Ok((report, stopped))
    })
}

fn open_load(target: Target) -> Load {
    let lane = Lane {
        target,
        pace: Pace::Open { rate: RATE, is_poisson: false },
        // One in flight on each: all that are due while the server stands still find a free one.
        connections: 1024,
        is_fresh: false,
        is_introduced: true,
        keeps_samples: false,
        may_fail: false,
    };
    let warmup = Duration::from_millis(100);
    Load {
        lanes: vec![lane],
        warmup,
        window: WINDOW,
        grace: Duration::from_secs(2),
        give_up: None,
        spin: Placement::default_here().spin(),
        seed: 1,
    }
}

/// A driver that stands still in the middle of its run must not call what it found a number.
fn stopped_driver() -> Result<String> {
    let mut running = start()?;
    learn(&mut running, "/")?;
    let url = format!("http://{}/", running.address);
    let mut driver = Command::new(std::env::current_exe().context("cannot find this program")?)
        .args(["drive", &url, "--rate", "1000", "--connections", "64", "--duration", "3", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    thread::sleep(WINDOW / 2);
    let pid = nix::unistd::Pid::from_raw(driver.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGSTOP)?;
    thread::sleep(STOPPED);
    nix::sys::signal::kill(pid, Signal::SIGCONT)?;
    let mut text = String::new();
    driver.stdout.take().context("the driver has no stdout")?.read_to_string(&mut text)?;
    let status = driver.wait()?;
    let driven: serde_json::Value = serde_json::from_str(&text).context("the driver printed no JSON")?;
    match (&driven["invalid"], status.code()) {
        (serde_json::Value::String(reason), Some(3)) if reason.starts_with("lag:") => Ok(format!("invalid({reason})")),
        (found, code) => bail!("a driver that stood still for {} ms says {found} and exits with {code:?}", STOPPED.as_millis()),
    }
}

/// A server with the right status and, after a while, the wrong body.
fn wrong_body() -> Result<String> {
    let address = fake(|number| if number < 100 { (b"hello", Duration::ZERO) } else { (b"hellO", Duration::ZERO) })?;
    let report = driver::run(&closed_load(address))?;
    match validity::of_lane(&report, 0) {
        Err(failure) if failure.to_string().starts_with("answers:") => Ok(format!("invalid({failure})")),
        other => bail!("a body that is not the expected one came out as {other:?}"),
    }
}

/// A server that is quick but for a few answers: the median cannot see it, p99 must.
fn late_tail() -> Result<String> {
    let address = fake(|number| (b"hello", if number % LATE.0 == LATE.0 - 1 { LATE.1 } else { Duration::ZERO }))?;
    let report = driver::run(&closed_load(address))?;
    validity::of_lane(&report, 0)?;
    let quantile = |times: &Times, quantile| Duration::from_nanos(times.value_at_quantile(quantile));
    let (p50, p99) = (quantile(&report.lanes[0].response, 0.5), quantile(&report.lanes[0].response, 0.99));
    // A histogram rounds to three digits.
    if p99 < LATE.1.mul_f64(0.999) || p50 >= LATE.1 {
        bail!("one answer in {} is {} ms late, and p50 is {p50:?}, p99 {p99:?}", LATE.0, LATE.1.as_millis());
    }
    Ok(format!("p50 {p50:.1?}, p99 {p99:.1?}"))
}

fn closed_load(address: SocketAddr) -> Load {
    let request = crate::http::client::get("/");
    let lane = Lane {
        target: Target { address, request, status: 200, body: Some(b"hello".to_vec()) },
        pace: Pace::Closed { depth: 1, stagger: Duration::ZERO, most: None, think: Duration::ZERO },
        connections: 1,
        is_fresh: false,
        is_introduced: false,
        keeps_samples: false,
        may_fail: false,
    };
    let second = Duration::from_secs(1);
    Load {
        lanes: vec![lane],
        warmup: Duration::ZERO,
        window: 2 * second,
        grace: second,
        give_up: None,
        spin: Placement::default_here().spin(),
        seed: 1,
    }
}

/// A server on a thread of its own that answers as it is told, by the number of the request, on each connection until it ends.
fn fake(answer: fn(u64) -> (&'static [u8], Duration)) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = move |mut stream: TcpStream| -> std::io::Result<()> {
        let mut input = [0; 4096];
        stream.set_nodelay(true)?;
        for number in 0.. {
            if stream.read(&mut input)? == 0 {
                break;
            }
            let (body, late) = answer(number);
            thread::sleep(late);
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
            stream.write_all(body)?;
        }
        Ok(())
    };
    thread::Builder::new().name("fake-server".into()).spawn(move || {
        // A client that goes away in the middle of an answer ends only its own connection.
        listener.incoming().flatten().for_each(|stream| drop(serve(stream)));
    })?;
    Ok(address)
}

fn start() -> Result<Running> {
    let server = catalog::find(&catalog::load()?, SERVER)?;
    Running::start(&server, &Start { threads: 2, more: Vec::new(), cores: set_of(&cores()) })
}

/// Every server under two names, in a round that stays: what differs here is noise.
///
/// # Errors
/// An interrupt; a round that cannot be written; more found than chance finds.
pub fn null_test(servers: &[Server], out: Option<&Path>) -> Result<String> {
    let settings = Settings::null(default_threads(), fastrand::u64(..));
    let mut round = create(out, &catalog::with_second_names(servers), settings)?;
    measure(&mut round)?;
    write_derived(&round)?;
    let result = NullResult::of(&crate::cmd::null_test(&round)?);
    let words = format!(
        "{} of {} comparisons of a server with itself have p < 0.05, at least {:.1} % with 95 % confidence; {}",
        result.flagged,
        result.comparisons,
        result.at_least * 100.0,
        round.folder.display()
    );
    match result.passes() {
        true if result.comparisons >= COMPARISONS => Ok(words),
        true => bail!("{words}: fewer than {COMPARISONS}, too few to tell"),
        false => bail!("{words}: more than the 5 % that chance finds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_of_a_stop() {
        let (stopped, window) = (Duration::from_millis(500), Duration::from_secs(3));
        let quantiles = [0.5, 5.0 / 6.0, 0.9, 0.99, 1.0].map(|quantile| stalled_ms(stopped, window, quantile).round());
        assert_eq!(quantiles, [0.0, 0.0, 200.0, 470.0, 500.0]);
    }
}
