//! `metrics` prints the table in the text format of Prometheus, or serves it.

use super::list::{Measured, look, measure};
use super::print;
use crate::cli::Metrics;
use anyhow::{Context, Result, bail};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use supervisor::files::remove_leftover;
use supervisor::reports::Reported;

/// Time limit for a client to send its request, and another to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request in bytes.
const LONGEST: usize = 16 * 1024;
/// Most clients at a time; others are let go.
const MOST_CLIENTS: usize = 32;
/// Pause after a client could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// A metric: its name, its type, what it says, and its value for an instance.
type Metric = (&'static str, &'static str, &'static str, fn(&Measured) -> Option<f64>);

const METRICS: [Metric; 8] = [
    ("supervisor_instance_online", "gauge", "1 if the instance is ready, else 0.", |one| {
        Some(f64::from(u8::from(one.view.serves())))
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
        serve_all(|| Ok(listener.accept()?.0.into()))
    } else if let Some(path) = &metrics.socket {
        if std::fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            bail!("{} exists and is not a socket: name another path", path.display());
        }
        remove_leftover(path)?;
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        serve_all(|| Ok(listener.accept()?.0.into()))
    } else {
        print(&text()?)
    }
}

/// Answers clients for ever, each on a thread of its own, so that a slow one holds up nobody else.
fn serve_all(accept: impl Fn() -> io::Result<OwnedFd>) -> ! {
    let busy = Arc::new(());
    loop {
        match accept() {
            Ok(_) if Arc::strong_count(&busy) > MOST_CLIENTS => {}
            Ok(socket) => {
                let busy = Arc::clone(&busy);
                let work = move || {
                    // A client that has gone is its own matter.
                    let _ = serve(File::from(socket));
                    drop(busy);
                };
                // Without another thread, this client is let go.
                let _ = thread::Builder::new().name("client".into()).spawn(work);
            }
            // It has gone, or there are no descriptors for a moment.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Answers one request, in limited time.
fn serve(mut socket: File) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    // A browser would see a reset if its headers were not read.
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
        let count = socket.read(&mut buffer)?;
        if count == 0 || Instant::now() >= deadline {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = first.split(|byte| matches!(byte, b' ' | b'?')).nth(1).unwrap_or_default();
    let (status, body) = match path {
        b"/metrics" => match text() {
            Ok(text) => ("200 OK", text),
            Err(error) => ("503 Service Unavailable", format!("{error:#}\n")),
        },
        _ => ("404 Not Found", "see /metrics\n".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    Ok(socket.write_all(answer.as_bytes())?)
}

fn text() -> Result<String> {
    let (table, groups) = look()?;
    Ok(formatted(&measure(table, groups)?))
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
            let app = one.app.name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(text, "{name}{{app=\"{app}\",id=\"{}\"}} {value}", one.view.id);
        }
    }
    text
}

/// Returns what an instance reports.
fn reported(one: &Measured) -> Option<Reported> {
    Reported::read(one.view.says.as_deref()?)
}
