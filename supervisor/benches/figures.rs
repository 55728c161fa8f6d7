//! The supervisor's memory use and response times: `cargo bench --package supervisor`.
//!
//! `stallbench bench --experiment reload` measures what happens to requests meanwhile.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Number of timed starts, and of timed ends.
const TIMES: usize = 9;
/// Number of restarts of a cluster of two, and instances of a large cluster.
const RESTARTS: usize = 500;
const MANY: usize = 100;
/// Number of processes that do nothing, and of commands that are timed beside them.
const THOUSAND: usize = 1000;
const COMMANDS: usize = 300;
/// Duration of the idle phase, and of the log flood.
const IDLE: Duration = Duration::from_secs(10);
const FLOOD: Duration = Duration::from_secs(10);
/// An address for the cluster; its port must be free.
const LISTEN: &str = "127.0.0.1:18099";

struct Supervisor(TempDir);

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.command(&["kill"]).output();
    }
}

impl Supervisor {
    fn home(&self) -> PathBuf {
        self.0.path().join("h")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
        command.args(arguments).env("SUPERVISOR_HOME", self.home()).stdout(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("supervisor");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn listed(&self) -> Value {
        serde_json::from_str(&self.run(&["list", "--json"])).expect("JSON")
    }

    fn start(&self) -> Command {
        let server = root().join("target/release/runtime-tokio");
        let server = server.to_string_lossy();
        self.command(&["start", &server, "-i", "2", "--name", "api", "--listen", LISTEN, "--", "--model", "current-thread"])
    }

    /// Process ids of its keeper and daemon.
    fn own(&self) -> [i64; 2] {
        let own = &self.listed()["supervisor"];
        ["keeper", "daemon"].map(|role| own[role].as_i64().expect(role))
    }

    fn rss_mib(&self) -> f64 {
        status(self.own(), &["VmRSS:"]) as f64 / 1024.0
    }

    fn descriptors(&self) -> usize {
        let of = |pid: i64| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.own().into_iter().map(of).sum()
    }
}

/// Sums these lines of `/proc/PID/status` over the processes.
fn status(pids: [i64; 2], names: &[&str]) -> u64 {
    let of = |pid: i64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let lines = status.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    };
    pids.into_iter().map(of).sum()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace")
}

fn main() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "--quiet", "--package", "runtime-tokio"];
    assert!(Command::new(cargo).current_dir(root()).args(build).status().expect("cargo").success());
    let supervisor = Supervisor(tempfile::Builder::new().prefix("sv").tempdir_in("/tmp").expect("a folder"));
    starts(&supervisor);
    assert!(supervisor.start().status().expect("start").success());
    weight(&supervisor);
    ends(&supervisor);
    restarts(&supervisor);
    many(&supervisor);
    thousand(&supervisor);
    flood(&supervisor);
}

/// Times `start -i 2` until the first correct answer, with no supervisor running yet.
fn starts(supervisor: &Supervisor) {
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let started = Instant::now();
            let mut command = supervisor.start().spawn().expect("start");
            while !answers() {}
            let time = ms(started);
            assert!(command.wait().expect("start").success());
            supervisor.run(&["kill"]);
            time
        })
        .collect();
    println!("start -i 2 until the first 200: {} ms", median(&mut times));
}

fn weight(supervisor: &Supervisor) {
    println!("resident memory with 2 instances: {:.2} MiB", supervisor.rss_mib());
    // Requested only once: each request wakes the supervisor up.
    let own = supervisor.own();
    let switches = || status(own, &["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]);
    thread::sleep(Duration::from_millis(100));
    let before = switches();
    thread::sleep(IDLE);
    println!("wake-ups in {} idle seconds: {}", IDLE.as_secs(), switches() - before);
}

/// Times the replacement of a killed process, until the next one has said that it is ready.
fn ends(supervisor: &Supervisor) {
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let ready = || {
                let events = fs::read_to_string(supervisor.home().join("events.log")).expect("events");
                events.lines().filter(|line| line.contains(r#""what":"ready""#)).count()
            };
            let pid = supervisor.listed()["instances"][0]["pid"].as_i64().expect("a process");
            let (before, started) = (ready(), Instant::now());
            assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill").success());
            while ready() == before {}
            let time = ms(started);
            // The process must be up for longer than --min-uptime, so that the next end is not an early exit.
            thread::sleep(Duration::from_millis(1200));
            time
        })
        .collect();
    println!("from the end of a killed process until another is ready: {} ms", median(&mut times));
}

fn restarts(supervisor: &Supervisor) {
    let (memory, descriptors) = (supervisor.rss_mib(), supervisor.descriptors());
    (0..RESTARTS).for_each(|_| drop(supervisor.run(&["restart", "api"])));
    println!(
        "{} process restarts: resident memory {memory:.2} to {:.2} MiB, descriptors {descriptors} to {}",
        2 * RESTARTS,
        supervisor.rss_mib(),
        supervisor.descriptors()
    );
}

fn many(supervisor: &Supervisor) {
    let started = Instant::now();
    supervisor.run(&["scale", "api", &MANY.to_string()]);
    println!("scale to {MANY}: {:.0} ms; resident memory afterwards: {:.2} MiB", ms(started), supervisor.rss_mib());
    supervisor.run(&["scale", "api", "2"]);
}

/// Times the start and the end of a thousand processes, and commands beside them.
fn thousand(supervisor: &Supervisor) {
    let before = supervisor.rss_mib();
    let started = Instant::now();
    supervisor.run(&["start", "sleep", "--name", "many", "-i", &THOUSAND.to_string(), "--min-uptime", "10ms", "--", "100000"]);
    let start = ms(started);
    let resident = supervisor.rss_mib();
    let (pid, list) = (commands(supervisor, &["pid", "many"]), commands(supervisor, &["list"]));
    let started = Instant::now();
    supervisor.run(&["delete", "many"]);
    println!(
        "{THOUSAND} instances: started in {start:.0} ms, ended in {:.0} ms; resident memory {before:.2} to {resident:.2} MiB; \
         beside them, `pid` takes {pid}, and `list` {list}",
        ms(started)
    );
}

/// Runs a command again and again; returns the median and the 99th percentile of the times that it takes.
fn commands(supervisor: &Supervisor, words: &[&str]) -> String {
    let mut times: Vec<f64> = (0..COMMANDS)
        .map(|_| {
            let asked = Instant::now();
            supervisor.run(words);
            ms(asked)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    format!("{:.1} ms (p99 {:.1})", times[COMMANDS / 2], times[COMMANDS * 99 / 100])
}

/// Measures the supervisor while a worker writes to its log as fast as it can.
fn flood(supervisor: &Supervisor) {
    let before = supervisor.rss_mib();
    supervisor.run(&["start", "yes", "--min-uptime", "50ms", "--", &"x".repeat(99)]);
    let pid = supervisor.listed()["instances"].as_array().and_then(|all| all.last()?["pid"].as_i64()).expect("yes");
    let written = || {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let (from, started, mut peak, mut slowest) = (written(), Instant::now(), 0.0_f64, 0.0_f64);
    while started.elapsed() < FLOOD {
        let asked = Instant::now();
        supervisor.run(&["flush", "api"]);
        slowest = slowest.max(ms(asked));
        peak = peak.max(supervisor.rss_mib());
        thread::sleep(Duration::from_millis(50));
    }
    let rate = (written() - from) as f64 / started.elapsed().as_secs_f64() / 1e6;
    let logs = fs::read_dir(supervisor.home().join("logs")).expect("logs").flatten();
    let own = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("yes"));
    let size: u64 = own.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum();
    println!(
        "{rate:.0} MB/s of log: resident memory {before:.2} MiB, at most {peak:.2} MiB; \
         log files {:.0} MiB (limit 40); slowest command {slowest:.0} ms",
        size as f64 / f64::from(1 << 20)
    );
}

fn answers() -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(LISTEN)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Formats the median, with the minimum and the maximum.
fn median(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1} to {:.1})", times[times.len() / 2], times[0], times[times.len() - 1])
}
