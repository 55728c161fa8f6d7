//! `metrics` prints the table in the text format of Prometheus, or serves it.

use super::list::{Measured, measure};
use super::{client, print};
use crate::cli::Metrics;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use supervisor::reports::Reported;

/// Time limit for a client to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request in bytes.
const LONGEST: u64 = 16 * 1024;

/// A metric: its name, its type, what it says, and its value for an instance.
type Metric = (&'static str, &'static str, &'static str, fn(&Measured) -> Option<f64>);

const METRICS: [Metric; 8] = [
    ("supervisor_instance_online", "gauge", "1 if the instance is ready, else 0.", |one| {
        Some(f64::from(u8::from(one.view.status == "online")))
    }),
    (
        "supervisor_instance_restarts_total",
        "counter",
        "Times that the instance's process ended unasked or was replaced since it was unfit.",
        |one| Some(f64::from(one.view.restarts)),
    ),
    ("supervisor_instance_uptime_seconds", "gauge", "Time since the instance became ready.", |one| {
        one.view.uptime_ms.map(|ms| ms as f64 / 1e3)
    }),
    ("supervisor_instance_memory_bytes", "gauge", "Memory of the instance's processes.", |one| {
        one.memory.map(|bytes| bytes as f64)
    }),
    ("supervisor_instance_cpu_ratio", "gauge", "CPU use of the instance's processes, as a share of one core.", |one| one.cpu),
    ("supervisor_instance_requests_total", "counter", "Requests, as the instance reports them.", |one| {
        reported(one).map(|reported| reported.requests as f64)
    }),
    (
        "supervisor_instance_failed_requests_total",
        "counter",
        "Requests answered with a status from 500 on, as the instance reports them.",
        |one| reported(one).map(|reported| reported.failed as f64),
    ),
    (
        "supervisor_instance_loop_lag_seconds",
        "gauge",
        "Longest time that one request has held the event loop since the last report.",
        |one| reported(one)?.lag_ms.map(|ms| ms / 1e3),
    ),
];

/// Prints the metrics once, or serves them until it is ended.
///
/// # Errors
/// Fails if the daemon does not answer, or the address cannot be listened on.
pub fn run(metrics: &Metrics) -> Result<()> {
    if let Some(address) = metrics.listen {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        for stream in listener.incoming() {
            let stream = stream?;
            let _ = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
            // A client that has gone is its own matter.
            let _ = serve(&stream);
        }
        return Ok(());
    }
    if let Some(path) = &metrics.socket {
        // The socket of an earlier run, on which nobody answers.
        if std::os::unix::net::UnixStream::connect(path).is_err() {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        for stream in listener.incoming() {
            let stream = stream?;
            let _ = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
            let _ = serve(&stream);
        }
        return Ok(());
    }
    print(&text()?)
}

/// Answers one request.
fn serve<S>(stream: &S) -> Result<()>
where
    for<'s> &'s S: Read + Write,
{
    let mut lines = BufReader::new(stream.take(LONGEST)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // A browser would see a reset if its headers were not read.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, body) = match path {
        "/metrics" => match text() {
            Ok(text) => ("200 OK", text),
            Err(error) => ("503 Service Unavailable", format!("{error:#}\n")),
        },
        _ => ("404 Not Found", "see /metrics\n".to_owned()),
    };
    let mut output = stream;
    write!(
        output,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(output.flush()?)
}

fn text() -> Result<String> {
    Ok(formatted(&measure(client::table()?)))
}

/// Returns the metrics in Prometheus' text format.
fn formatted(measured: &[Measured]) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in METRICS {
        let rows: Vec<(&Measured, f64)> = measured.iter().filter_map(|one| Some((one, value(one)?))).collect();
        if rows.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (one, value) in rows {
            let app = one.view.name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(text, "{name}{{app=\"{app}\",id=\"{}\"}} {value}", one.view.id);
        }
    }
    text
}

/// Returns what an instance reports.
fn reported(one: &Measured) -> Option<Reported> {
    Reported::read(one.view.says.as_deref()?)
}
