//! Commands under load, while the daemon, the keeper, both or a worker die at a moment that a seed chooses.
//!
//! A handful of runs; `CHAOS_RUNS=200 cargo test -p supervisor --test chaos -- --nocapture` does as many as are asked for, prints what it found, and fails
//! if the list is late more than once in a hundred deaths.

mod common;

use common::load::Load;
use common::{Supervisor, free, is_gone, server, signal, until};
use fastrand::Rng;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Threads of the load, each of which has one request at a time.
const CLIENTS: usize = 4;
/// Actions of a run.
const ACTIONS: u32 = 5;
/// Latest moment of a death, counted from the beginning of a command.
const LATEST: Duration = Duration::from_millis(400);

/// Time within which the list is true after a death, on a machine that has nothing else to do, and the number of deaths of which one may take longer.
const PROMISED: Duration = Duration::from_secs(1);
const LATE: usize = 100;
/// The same, and that within which an app is at rest, on any machine.
const DEADLINE: Duration = Duration::from_secs(20);

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

/// Returns what is not as the list says, if something is not. A process that starts or ends may be listed as one.
fn lie(supervisor: &Supervisor) -> Option<String> {
    let output = supervisor.run(&["list", "--json"]);
    let Ok(table) = serde_json::from_slice::<Value>(&output.stdout) else { return Some("no list".into()) };
    let instances = table["instances"].as_array()?;
    let listed: BTreeSet<i64> = instances.iter().filter_map(|one| one["pid"].as_i64()).collect();
    if let Some(one) = instances.iter().find(|one| one["status"] == "online" && one["pid"].as_i64().is_none_or(is_gone)) {
        return Some(format!("{one} is called online: {}", table["remarks"]));
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

/// Returns what is not as it is at rest, if something is not.
fn unrest(supervisor: &Supervisor) -> Option<String> {
    let table = supervisor.listed();
    let instances = table["instances"].as_array()?;
    if instances.is_empty() {
        return Some(format!("the list is empty: {}", table["remarks"]));
    }
    let other = instances.iter().find(|one| one["status"] != "online");
    other.map(|one| format!("an instance is {}: {}", one["status"], table["remarks"])).or_else(|| lie(supervisor))
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

/// The app, as a file that `start` and `apply` read.
struct App {
    file: PathBuf,
    address: String,
}

impl App {
    /// Writes the file; with another number, its processes get another environment.
    fn write(&self, instances: u32, number: u32) {
        let text = format!(
            "[[app]]\nstart = \"{}\"\nname = \"api\"\ninstances = {instances}\nlisten = [\"{}\"]\nlisten-timeout = \"10s\"\n\
             arguments = [\"--model\", \"current-thread\"]\n[app.env]\nNUMBER = {number}\n",
            server().display(),
            self.address
        );
        fs::write(&self.file, text).unwrap();
    }

    /// Lets the app run again, whatever an interrupted command has left of it.
    fn restore(&self, supervisor: &Supervisor) {
        let file = self.file.to_str().unwrap();
        until("the app can be started again", || {
            let list = supervisor.list();
            let is_stopped = |one: &Value| ["stopped", "errored"].iter().any(|state| one["status"] == *state);
            match list.iter().find(|one| is_stopped(one)) {
                Some(_) => supervisor.run(&["start", "api"]).status.success(),
                None if list.is_empty() => supervisor.run(&["start", file]).status.success(),
                None => true,
            }
        });
    }
}

/// What the runs have found.
#[derive(Default)]
struct Found {
    /// The time from each death until the list was true.
    times: Vec<Duration>,
    answered: usize,
    failed: usize,
    workers_killed: usize,
    both_killed: usize,
}

/// Returns whether a request may fail so where nobody listens, or has stopped doing so a moment ago.
fn is_refusal(failure: &str) -> bool {
    ["refused", "reset", "Broken pipe"].iter().any(|word| failure.contains(word))
}

fn run(seed: u64, found: &mut Found) {
    let mut rng = Rng::with_seed(seed);
    let supervisor = Supervisor::new();
    // A port of its own: one that the system chooses would be another after the death of both.
    let app = App { file: supervisor.home.path().join("supervisor.toml"), address: free() };
    let file = app.file.to_str().unwrap();
    app.write(2, 0);
    supervisor.ok(&["start", file]);
    for number in 1..=ACTIONS {
        let count = rng.u32(1..4).to_string();
        let (words, serves): (&[&str], bool) = match rng.u32(..10) {
            0 | 1 => (&["reload", "api"], true),
            2 => (&["reload", "api", "--update-env", "--parallel", "2"], true),
            3 => (&["restart", "api"], true),
            4 => (&["scale", "api", &count], true),
            5 | 6 => {
                app.write(rng.u32(1..4), number);
                (&["apply", file], true)
            }
            7 => (&["stop", "api"], false),
            8 => (&["delete", "api"], false),
            _ => (&["list"], true),
        };
        let is_start = rng.bool();
        if !serves && is_start {
            // What was stopped or deleted is started while something dies.
            supervisor.ok(words);
        }
        let words = if !serves && is_start { &["start", if words[0] == "stop" { "api" } else { file }] } else { words };
        let victim = [Victim::Daemon, Victim::Keeper, Victim::Both, Victim::Worker][rng.usize(..4)];
        let what = format!("seed {seed}, {words:?}, {victim:?}");
        let load = serves.then(|| Load::start(&app.address));
        let mut command = begin(&supervisor, words);
        thread::sleep(LATEST.mul_f64(rng.f64()));
        strike(&supervisor, &mut rng, victim);
        let since = Instant::now();
        becomes(&format!("{what}: the list is true"), || lie(&supervisor));
        found.times.push(since.elapsed());
        println!("{what}: the list was true after {:?}", since.elapsed());
        command.wait().unwrap();
        app.restore(&supervisor);
        becomes(&format!("{what}: everything is at rest"), || unrest(&supervisor));
        found.workers_killed += usize::from(victim == Victim::Worker);
        found.both_killed += usize::from(victim == Victim::Both);
        let Some(load) = load else { continue };
        load.answers_more();
        let (failures, answered) = load.stop();
        match victim {
            Victim::Daemon | Victim::Keeper => assert!(failures.is_empty(), "{what}: {failures:?}"),
            // What it had read, at most one request of each client.
            Victim::Worker => assert!(failures.len() <= CLIENTS, "{what}: {failures:?}"),
            // Nobody listens between the end of the old processes and the start of the new ones; what they had read is answered.
            Victim::Both => assert!(failures.iter().all(|failure| is_refusal(failure)), "{what}: {failures:?}"),
        }
        found.answered += answered;
        found.failed += if victim == Victim::Both { 0 } else { failures.len() };
    }
    supervisor.ok(&["kill"]);
    until("nothing is left", || marked(&supervisor).is_empty());
}

/// Polls until nothing is wrong any more; says what still is, if it stays so.
fn becomes(what: &str, wrong: impl Fn() -> Option<String>) {
    let deadline = Instant::now() + DEADLINE;
    while let Some(why) = wrong() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}: {why}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whatever_dies_whenever_the_list_is_true_and_no_request_fails_that_no_killed_worker_had_read() {
    let asked = std::env::var("CHAOS_RUNS").ok();
    let runs = asked.as_ref().map_or(8, |runs| runs.parse().unwrap());
    let mut found = Found::default();
    (0..runs).for_each(|seed| run(seed, &mut found));
    found.times.sort_unstable();
    let late = found.times.iter().filter(|time| **time > PROMISED).count();
    println!(
        "{runs} runs, {} deaths: {} requests answered; {} failed, with {} workers killed (without the {} deaths of both); \
         the list was true after {:?} in the median and {:?} at most, and {late} times after more than {PROMISED:?}",
        found.times.len(),
        found.answered,
        found.failed,
        found.workers_killed,
        found.both_killed,
        found.times.get(found.times.len() / 2).copied().unwrap_or_default(),
        found.times.last().copied().unwrap_or_default(),
    );
    // Whoever asks for runs has a machine to themselves.
    assert!(asked.is_none() || late * LATE <= found.times.len(), "the list was late {late} times");
}
