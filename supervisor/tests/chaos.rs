//! Commands under load, while the daemon, the keeper, both or a worker die at a moment that a seed chooses.
//!
//! A handful of runs; `CHAOS_RUNS=200 cargo test -p supervisor --test chaos -- --nocapture` does as many as are asked for, and prints what it found.

mod common;

use common::load::Load;
use common::{Supervisor, free, is_gone, server, signal, until};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Threads of the load, each of which has one request at a time.
const CLIENTS: usize = 4;
/// Actions of a run.
const ACTIONS: usize = 5;
/// Latest moment of a death, counted from the beginning of a command.
const LATEST: Duration = Duration::from_millis(400);

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Daemon,
    Keeper,
    Both,
    Worker,
}

/// The processes that carry the mark of a test's supervisor: its own, and all that it has started.
fn marked(supervisor: &Supervisor) -> Vec<(i64, String)> {
    let home = supervisor.path().display().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
    let read =
        |pid: i64, name: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned();
    pids.filter(|pid| read(*pid, "environ").contains(&home) && !is_gone(*pid))
        .map(|pid| (pid, read(pid, "cmdline").replace('\0', " ")))
        .collect()
}

/// Returns what is not as the list says, if something is not.
fn lie(supervisor: &Supervisor) -> Option<String> {
    let output = supervisor.run(&["list", "--json"]);
    let Ok(table) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return Some("no list".into()) };
    let instances = table["instances"].as_array()?.clone();
    let listed: BTreeSet<i64> = instances.iter().filter_map(|one| one["pid"].as_i64()).collect();
    if let Some(one) = instances.iter().find(|one| one["status"] != "online") {
        return Some(format!("an instance is {}: {}", one["status"], table["remarks"]));
    }
    if instances.is_empty() {
        return Some(format!("the list is empty: {}", table["remarks"]));
    }
    let processes = marked(supervisor);
    let own = |role: &str| processes.iter().filter(|(_, line)| line.contains("exe ") && line.contains(role)).count();
    let keepers = processes.iter().filter(|(_, line)| line.contains(" keeper ") || line.contains(" adopt ")).count();
    if (keepers, own(" daemon ")) != (1, 1) {
        return Some(format!("{keepers} keepers, {} daemons: {processes:?}", own(" daemon ")));
    }
    let workers: BTreeSet<i64> = processes.iter().filter(|(_, line)| line.contains("--model")).map(|(pid, _)| *pid).collect();
    (workers != listed).then(|| format!("the list has {listed:?}, and there are {workers:?}"))
}

/// Begins a command, whose outcome does not matter.
fn begin(supervisor: &Supervisor, words: &[&str]) -> Child {
    supervisor.command(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills whoever it is.
fn strike(supervisor: &Supervisor, rng: &mut Rng, victim: Victim) {
    let own = supervisor.listed()["supervisor"].clone();
    let roles: &[&str] = match victim {
        Victim::Daemon => &["daemon"],
        Victim::Keeper => &["keeper"],
        Victim::Both => &["keeper", "daemon"],
        Victim::Worker => &[],
    };
    let pids: Vec<i64> = roles.iter().filter_map(|role| own[role].as_i64()).collect();
    let worker = rng.choice(supervisor.pids()).filter(|_| victim == Victim::Worker);
    // Each may have ended meanwhile, on its own account.
    let all: Vec<i64> = pids.into_iter().chain(worker).filter(|pid| !is_gone(*pid)).collect();
    // Neither sees the other die.
    all.iter().for_each(|pid| signal("STOP", *pid));
    all.iter().for_each(|pid| signal("KILL", *pid));
}

/// What a run has found.
struct Found {
    slowest: Duration,
    answered: usize,
    failures: Vec<String>,
    workers_killed: usize,
    has_lost_both: bool,
}

fn run(seed: u64) -> Found {
    let mut rng = Rng::with_seed(seed);
    let supervisor = Supervisor::new();
    // A port of its own: one that the system chooses would be another after the death of both.
    let address = free();
    let program = server();
    let words = ["start", program.to_str().unwrap(), "--name", "api", "-i", "2", "--listen", &address, "--listen-timeout", "10s"];
    supervisor.ok(&[&words[..], &["--", "--model", "current-thread"]].concat());
    let load = Load::start(&address);
    let mut found = Found { slowest: Duration::ZERO, answered: 0, failures: Vec::new(), workers_killed: 0, has_lost_both: false };
    for _ in 0..ACTIONS {
        let count = rng.u32(1..4).to_string();
        let words: &[&str] = match rng.u32(..6) {
            0 | 1 => &["reload", "api"],
            2 => &["reload", "api", "--update-env", "--parallel", "2"],
            3 => &["restart", "api"],
            4 => &["scale", "api", &count],
            _ => &["list"],
        };
        let victim = [Victim::Daemon, Victim::Keeper, Victim::Both, Victim::Worker][rng.usize(..4)];
        let mut command = begin(&supervisor, words);
        thread::sleep(LATEST.mul_f64(rng.f64()));
        strike(&supervisor, &mut rng, victim);
        found.workers_killed += usize::from(victim == Victim::Worker);
        found.has_lost_both |= victim == Victim::Both;
        let since = Instant::now();
        command.wait().unwrap();
        let mut last = None;
        let is_true = || {
            last = lie(&supervisor);
            last.is_none()
        };
        until(&format!("seed {seed}, {words:?}, {victim:?}: the list is true"), is_true);
        found.slowest = found.slowest.max(since.elapsed());
        println!("seed {seed}: {words:?}, {victim:?}: the list was true after {:?}", since.elapsed());
        load.answers_more();
    }
    (found.failures, found.answered) = load.stop();
    supervisor.ok(&["kill"]);
    until("nothing is left", || marked(&supervisor).is_empty());
    found
}

#[test]
fn whatever_dies_whenever_the_list_is_true_and_no_request_fails_that_no_killed_worker_had_read() {
    let runs = std::env::var("CHAOS_RUNS").map_or(8, |runs| runs.parse().unwrap());
    let mut slowest = Duration::ZERO;
    let (mut answered, mut failed, mut killed) = (0, 0, 0);
    for seed in 0..runs {
        let found = run(seed);
        // Nobody listens between the deaths of both and the next command.
        if !found.has_lost_both {
            let most = found.workers_killed * CLIENTS;
            assert!(found.failures.len() <= most, "seed {seed}: {} workers killed, {:?}", found.workers_killed, found.failures);
            failed += found.failures.len();
            killed += found.workers_killed;
        }
        answered += found.answered;
        slowest = slowest.max(found.slowest);
    }
    println!(
        "{runs} runs: {answered} requests answered; {failed} failed, with {killed} workers killed (without the runs in which both died); \
         the list was true after {slowest:?} at most"
    );
}
