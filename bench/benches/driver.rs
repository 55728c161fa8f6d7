//! The load driver against others, and against its own plan: `cargo bench --package bench --bench driver`.
//!
//! Each pair is taken on the same server in turn, ten times, and compared as a ratio. Programs that are not installed (`wrk`, `oha`) are
//! left out and named. Needs two cores and the server `tokio-current-thread`, which it builds.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Interleaved pairs of each comparison.
const PAIRS: usize = 10;
/// Seconds of each run.
const SECONDS: &str = "2";
/// The server's core, and the driver's.
const CORES: [&str; 2] = ["0", "1"];

fn main() {
    let built = Command::new(STALLBENCH).args(["build", "tokio-current-thread", "std-thread-per-connection"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the servers do not build");
    let server = Server::start(&["taskset", "-c", CORES[0]], "runtime-tokio", "current-thread");
    closed_loop(&server.url);
    one_connection(&server.url);
    open_loop(&server.url);
    connections(&server.url);
    drop(server);
    beside_spinning_threads();
}

const STALLBENCH: &str = env!("CARGO_BIN_EXE_stallbench");

/// A server that is killed at the end.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(prefix: &[&str], binary: &str, model: &str) -> Self {
        let path = Path::new(STALLBENCH).with_file_name(binary);
        let mut words: Vec<PathBuf> = prefix.iter().map(PathBuf::from).collect();
        words.push(path);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--model", model, "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it has a stdout")).read_line(&mut line).expect("it says where it is");
        let url = line.trim().trim_start_matches("ready ").to_owned();
        Server { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the driver on its core and returns what it found.
fn drive(url: &str, more: &[&str]) -> serde_json::Value {
    let output = Command::new(STALLBENCH).args(["drive", url, "--json"]).args(more).output().expect("stallbench runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn on_core(url: &str, more: &[&str]) -> serde_json::Value {
    drive(url, &[more, &["--core", CORES[1]]].concat())
}

/// Runs another program on the driver's core and returns the number behind a word of what it prints.
fn other(words: &[&str], key: &str) -> Option<f64> {
    let output = Command::new("taskset").args(["-c", CORES[1]]).args(words).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.trim_start().starts_with(key))?;
    let number = line.trim_start().trim_start_matches(key).trim();
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let unit = if number[end..].starts_with("ms") { 1000.0 } else { 1.0 };
    Some(number[..end].parse::<f64>().ok()? * unit)
}

fn closed_loop(url: &str) {
    let ours = || on_core(url, &["--closed", "--connections", "64", "--duration", SECONDS])["per_s"].as_f64();
    let wrk = || other(&["wrk", "-t1", "-c64", &format!("-d{SECONDS}"), url], "Requests/sec:");
    let oha = || other(&["oha", "--no-tui", "-c", "64", "-z", &format!("{SECONDS}s"), url], "Requests/sec:");
    pairs("closed loop, 64 connections: requests/s over wrk's", ours, wrk);
    pairs("closed loop, 64 connections: requests/s over oha's", ours, oha);
}

fn one_connection(url: &str) {
    let ours = || on_core(url, &["--closed", "--connections", "1", "--duration", SECONDS])["service_p50_us"].as_f64();
    let wrk = || other(&["wrk", "-t1", "-c1", "--latency", &format!("-d{SECONDS}"), url], "50%");
    pairs("closed loop, one connection: p50 service time over wrk's", ours, wrk);
}

/// Takes both in turn, and prints the median of the ratios.
fn pairs(name: &str, ours: impl Fn() -> Option<f64>, theirs: impl Fn() -> Option<f64>) {
    let pair = || Some((ours()?, theirs()?));
    let mut found: Vec<(f64, f64)> = Vec::new();
    for _ in 0..PAIRS {
        let Some(pair) = pair() else {
            println!("{name}: left out, since the other program is not installed");
            return;
        };
        found.push(pair);
    }
    let ratios = sorted(found.iter().map(|(ours, theirs)| ours / theirs));
    let (ours, theirs) = (sorted(found.iter().map(|pair| pair.0)), sorted(found.iter().map(|pair| pair.1)));
    println!(
        "{name}: {:.2} [{:.2}, {:.2}] over {PAIRS} pairs; medians {:.0} and {:.0}",
        median(&ratios),
        ratios[1],
        ratios[PAIRS - 2],
        median(&ours),
        median(&theirs)
    );
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

fn open_loop(url: &str) {
    for (rate, seconds) in [("20000", "10"), ("1000", "5")] {
        for _ in 0..3 {
            let driven = on_core(url, &["--rate", rate, "--connections", "64", "--duration", seconds]);
            print_lag(&format!("open loop, {rate}/s for {seconds} s on a core of its own"), &driven);
        }
    }
}

fn print_lag(name: &str, driven: &serde_json::Value) {
    let number = |key: &str| driven[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "{name}: answered {:.4} of planned, lag p99 {:.1} µs, p99.9 {:.1} µs; p50 response {:.1} µs, service {:.1} µs",
        number("answered") / number("planned"),
        number("lag_p99_us"),
        number("lag_p999_us"),
        driven["latency"]["p50_us"].as_f64().unwrap_or(f64::NAN),
        number("service_p50_us"),
    );
}

fn connections(url: &str) {
    let driven = on_core(url, &["--rate", "20000", "--connections", "10000", "--duration", "3"]);
    println!(
        "10,000 connections: {:.0} MiB at most in the driver's process, {} errors",
        driven["peak_rss_mib"].as_f64().unwrap_or(f64::NAN),
        driven["errors"]
    );
}

/// In real time on all cores, while 64 threads of a server use all the time there is.
fn beside_spinning_threads() {
    let busy = Server::start(&["env"], "runtime-std", "thread-per-connection");
    let idle = Server::start(&["env"], "runtime-tokio", "current-thread");
    let spin = format!("{}/timer?ms=100&clock=cpu", busy.url);
    let mut blockers = Command::new(STALLBENCH)
        .args(["drive", &spin, "--closed", "--connections", "64", "--duration", "3600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("stallbench runs");
    for _ in 0..3 {
        let driven = drive(&idle.url, &["--rate", "220", "--connections", "64", "--duration", "8", "--real-time"]);
        print_lag("open loop, 220/s in real time beside 64 spinning threads", &driven);
    }
    let _ = blockers.kill();
    let _ = blockers.wait();
}
