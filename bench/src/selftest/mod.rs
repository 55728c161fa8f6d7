//! The harness tested against itself: it injects faults that must show up, and bad results that must be rejected.

mod answers;
mod null;

pub use answers::ANSWERS;
pub use null::null_test;

use crate::catalog::Server;
use crate::console::interrupt;
use crate::driver::Sockets;
use crate::host::placement::{Placement, cores, set_of};
use crate::load::{Drive, Lane, Load, Observation, Target, Times};
use crate::measure::learn;
use crate::process::{Running, Start};
use crate::validity;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Requests per second of the open loop: few enough that what queues up during a stop is served at once after it.
const RATE: f64 = 200.0;
const WINDOW: Duration = Duration::from_secs(4);
/// How long the server, or the driver, is stopped in the middle of the window.
const STOPPED: Duration = Duration::from_secs(1);
/// How far a quantile may be from arithmetic.
const TOLERANCE: f64 = 0.03;
/// The machine is shared: a self-test that needs it quiet is tried so often.
const ATTEMPTS: usize = 5;
/// Every so many answers of the server that lies about its tail is late, by so much.
const LATE: (u64, Duration) = (50, Duration::from_millis(200));

/// A self-test over a server: its name, and the attempt, which returns what it found.
pub type SelfTest = (&'static str, fn(&Server) -> Result<String>);

/// Faults that are injected and must show up.
pub const FAULTS: &[SelfTest] = &[
    ("stopped-server", stopped_server),
    ("stopped-driver", stopped_driver),
    ("wrong-body", wrong_body),
    ("late-tail", late_tail),
];

/// A server that is stopped for a known time: the histogram must be what arithmetic says.
fn stopped_server(server: &Server) -> Result<String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let (report, stopped) = drive_and_stop(server)?;
        let errors: Vec<(f64, f64, f64)> = [0.9, 0.95, 0.99, 1.0].map(|quantile| distance(&report, stopped, quantile)).to_vec();
        last = errors
            .iter()
            .map(|(quantile, found, due)| format!("p{:.0} {found:.0} ms ({due:.0})", quantile * 100.0))
            .collect::<Vec<_>>()
            .join(", ");
        if errors.iter().all(|(_, found, due)| (found / due - 1.0).abs() <= TOLERANCE) {
            return Ok(format!("stopped for {:.0} ms: {last}", stopped.as_secs_f64() * 1e3));
        }
        interrupt::check()?;
    }
    bail!("found (due): {last}; more than {:.0} % off in each of {ATTEMPTS} attempts", TOLERANCE * 100.0)
}

/// A quantile of response time as found, and as a stop in the middle of even arrivals makes it, in ms: requests due during the stop
/// wait for the rest of it, all others for nothing.
fn distance(report: &Observation, stopped: Duration, quantile: f64) -> (f64, f64, f64) {
    let found = report.lanes[0].response.value_at_quantile(quantile) as f64 / 1e6;
    (quantile, found, stalled_ms(stopped, report.window, quantile))
}

fn stalled_ms(stopped: Duration, window: Duration, quantile: f64) -> f64 {
    let share = stopped.as_secs_f64() / window.as_secs_f64();
    ((quantile - (1.0 - share)) / share).max(0.0) * stopped.as_secs_f64() * 1e3
}

fn drive_and_stop(server: &Server) -> Result<(Observation, Duration)> {
    let mut running = start(server)?;
    let target = learn(&mut running, "/")?;
    let load = open_load(target);
    let stop = || -> Result<Duration> {
        // A machine that is busy lets the server go on some milliseconds after it may: the stop ends when somebody else than the
        // driver has an answer again.
        let mut witness = TcpStream::connect(running.address)?;
        witness.set_nodelay(true)?;
        let _prompt = Placement::default_here().enter_driver(true);
        thread::sleep(load.warmup + WINDOW / 3);
        running.signal(Signal::SIGSTOP)?;
        let began = Instant::now();
        witness.write_all(&crate::http::get("/"))?;
        thread::sleep(STOPPED);
        running.signal(Signal::SIGCONT)?;
        witness.read_exact(&mut [0])?;
        Ok(began.elapsed())
    };
    thread::scope(|scope| {
        let stopping = scope.spawn(stop);
        let guard = Placement::default_here().enter_driver(true);
        let report = Sockets.drive(&load);
        drop(guard);
        let stopped = stopping.join().map_err(|_| anyhow::anyhow!("the thread that stops the server has failed"))??;
        let report = report?;
        validity::of_lane(&report, 0)?;
        Ok((report, stopped))
    })
}

fn open_load(target: Target) -> Load {
    // One in flight on each: all that are due while the server stands still find a free one.
    let lane = Lane { primer: Some(target.clone()), ..Lane::open(target, 1024, RATE, false) };
    Load { warmup: Duration::from_millis(100), spin: Placement::default_here().spin(), ..Load::of(vec![lane], WINDOW, 1) }
}

/// A driver that stands still in the middle of its run must not call what it found a number.
fn stopped_driver(server: &Server) -> Result<String> {
    let mut running = start(server)?;
    learn(&mut running, "/")?;
    let url = format!("http://{}/", running.address);
    let mut driver = Command::new(std::env::current_exe().context("cannot find this program")?)
        .args(["drive", &url, "--rate", "1000", "--connections", "64", "--duration", "4", "--json"])
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
fn wrong_body(_: &Server) -> Result<String> {
    let address = fake(|number| if number < 100 { (b"hello", Duration::ZERO) } else { (b"hellO", Duration::ZERO) })?;
    let report = Sockets.drive(&closed_load(address))?;
    match validity::of_lane(&report, 0) {
        Err(failure) if failure.to_string().starts_with("answers:") => Ok(format!("invalid({failure})")),
        other => bail!("a body that is not the expected one came out as {other:?}"),
    }
}

/// A server that is quick but for a few answers: the median cannot see it, p99 must.
fn late_tail(_: &Server) -> Result<String> {
    let address = fake(|number| (b"hello", if number % LATE.0 == LATE.0 - 1 { LATE.1 } else { Duration::ZERO }))?;
    let report = Sockets.drive(&closed_load(address))?;
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
    let request = crate::http::get("/").into();
    let target = Target { address, request, is_head: false, status: 200, body: Some(b"hello".as_slice().into()) };
    let lane = Lane::closed(target, 1, 1);
    Load { spin: Placement::default_here().spin(), ..Load::of(vec![lane], Duration::from_secs(2), 1) }
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

fn start(server: &Server) -> Result<Running> {
    Running::start(server, &Start { threads: 2, more: Vec::new(), cores: set_of(&cores()) })
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
