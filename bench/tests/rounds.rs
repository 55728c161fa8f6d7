//! Rounds over real processes: what is kept, what is ended, and what wrong words are answered with.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn stallbench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    stallbench(arguments).output().expect("stallbench runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds what these tests measure, once and outside of what they time out on.
fn built() {
    assert!(output(&["build", "tokio-current-thread"]).status.success());
}

fn tiny(folder: &Path) -> Vec<String> {
    let fixed = ["bench", "--quick", "--no-build", "tokio-current-thread", "--experiment", "two-tabs,footprint", "--out"];
    fixed.iter().map(ToString::to_string).chain([folder.display().to_string()]).collect()
}

#[test]
fn a_round_leaves_header_trials_tables_and_numbers_and_is_never_overwritten() {
    built();
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("round");
    let arguments = tiny(&folder);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let first = output(&arguments);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains("tokio-current-thread"));
    assert_eq!(fs::read_to_string(folder.join("trials.jsonl")).unwrap().lines().count(), 2);
    for file in ["round.json", "README.md", "summary.csv", "report.html"] {
        assert!(folder.join(file).exists(), "{file} is missing");
    }
    let again = output(&arguments);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("never overwritten"), "{}", text(&again.stderr));

    let path = folder.display().to_string();
    assert!(output(&["tables", &path, "--json"]).status.success());
    assert!(text(&output(&["compare", &path, &path]).stdout).contains("0 of "));
    let resumed = output(&["bench", "--resume", "--out", &path]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert_eq!(fs::read_to_string(folder.join("trials.jsonl")).unwrap().lines().count(), 2, "nothing is measured twice");
    let tables = output(&["tables", &path]);
    assert!(
        format!("{}{}", text(&tables.stdout), text(&tables.stderr)).contains("resumed at"),
        "a round says which commit resumed it"
    );
}

#[test]
fn a_result_is_printed_though_the_disk_is_full_when_the_report_is_written() {
    built();
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("round");
    // No file may be as long as the report.
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let round = Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_stallbench")]).args(tiny(&folder)).output().unwrap();
    let words = text(&round.stderr);
    assert!(round.status.success() && text(&round.stdout).contains("tokio-current-thread"), "{words}");
    let hint = format!("write it with `stallbench report {}`", folder.display());
    assert!(words.contains("warning: cannot write") && words.contains(&hint), "{words}");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(left.iter().all(|name| name != "report.html" && name != "report.new"), "{left:?}");
}

#[test]
fn a_handler_that_waits_for_another_request_is_stuck_on_one_loop_and_not_on_a_thread_of_its_own() {
    let names = ["std-event-loop", "std-thread-per-connection"];
    assert!(output(&["build", names[0], names[1]]).status.success());
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("round").display().to_string();
    let arguments = ["bench", "--quick", "--no-build", names[0], names[1], "--experiment", "rendezvous", "--out", &folder];
    let round = output(&arguments);
    assert!(round.status.success(), "{}", text(&round.stderr));
    let tables: Value = serde_json::from_slice(&output(&["tables", &folder, "--json"]).stdout).unwrap();
    let cells = tables["cells"].as_array().unwrap();
    let stuck = |name: &str| {
        let cell = cells.iter().find(|cell| cell["server"] == name && cell["metric"] == "stuck[1]").unwrap();
        cell["values"][0].as_f64().unwrap()
    };
    assert_eq!(names.map(stuck), [1.0, 0.0]);
}

/// The requests of a timeline: when each was due and how long it took, in microseconds. LEB128 as its standard describes it.
fn requests(text: &str) -> Vec<(u64, u64)> {
    let bytes = STANDARD.decode(text).unwrap();
    let mut numbers = bytes
        .split_inclusive(|byte| byte & 0x80 == 0)
        .map(|group| group.iter().rev().fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f)));
    let (mut all, mut at) = (Vec::new(), 0);
    while let (Some(since), Some(took), Some(_connection)) = (numbers.next(), numbers.next(), numbers.next()) {
        at += since;
        all.push((at, took >> 1));
    }
    all
}

#[test]
fn the_probes_that_the_first_trial_keeps_are_those_of_its_histograms() {
    built();
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("round");
    let fixed =
        ["bench", "--quick", "--no-build", "tokio-current-thread", "--experiment", "collateral", "--trials", "2", "--out"];
    let path = folder.display().to_string();
    output(&[&fixed[..], &[path.as_str()]].concat());
    let trials = fs::read_to_string(folder.join("trials.jsonl")).unwrap();
    let trials: Vec<Value> = trials.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps = |trial: u64| {
        let last = trials.iter().rev().find(|one| one["trial"] == trial).unwrap();
        last["outcome"]["runs"][0]["steps"].as_array().unwrap().clone()
    };
    assert!(steps(2).iter().all(|step| step["timeline"].is_null()), "only the first trial keeps them");
    for step in steps(1) {
        let (timeline, probes) = (&step["timeline"], &step["probes"]);
        let window = timeline["start_us"].as_u64().unwrap()..timeline["end_us"].as_u64().unwrap();
        let kept = requests(timeline["probes"].as_str().unwrap());
        let mut took: Vec<u64> = kept.into_iter().filter(|(at, _)| window.contains(at)).map(|(_, took)| took).collect();
        took.sort_unstable();
        assert_eq!(took.len() as u64, probes["planned"].as_u64().unwrap());
        let (p99, counted) = (took[took.len() * 99 / 100 - 1] as f64, probes["p99_us"].as_f64().unwrap());
        assert!((p99 - counted).abs() < 0.01 * counted + 30.0, "k = {}: {p99} is not {counted}", step["k"]);
        assert_eq!(requests(timeline["blockers"].as_str().unwrap()).is_empty(), step["k"] == 0);
    }
}

/// Starts a round and returns it with its server's process id, as soon as that server runs.
#[allow(clippy::zombie_processes, reason = "the caller waits for it")]
fn running_round(folder: &Path) -> (Child, String) {
    built();
    let arguments = tiny(folder);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let child = stallbench(&arguments).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let server = until("the server runs", || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
        let server = children.split_whitespace().next()?.to_owned();
        let name = fs::read_to_string(format!("/proc/{server}/comm")).unwrap_or_default();
        name.starts_with("runtime-tokio").then_some(server)
    });
    (child, server)
}

/// Polls until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "not so after a minute: {what}");
        std::thread::yield_now();
    }
}

/// The server has ended with all its threads: there is no such process, or it waits to be reaped.
fn is_gone(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("\nState:\tZ") && status.contains("\nThreads:\t1\n")
}

#[test]
fn no_server_outlives_a_harness_that_is_killed() {
    let base = tempfile::tempdir().unwrap();
    let (mut harness, server) = running_round(&base.path().join("round"));
    harness.kill().unwrap();
    harness.wait().unwrap();
    until("the server has ended", || is_gone(&server).then_some(()));
}

#[test]
fn an_interrupted_round_ends_its_server_and_says_so() {
    let base = tempfile::tempdir().unwrap();
    let (mut harness, server) = running_round(&base.path().join("round"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(harness.id().cast_signed()), nix::sys::signal::Signal::SIGINT).unwrap();
    let mut words = String::new();
    harness.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(harness.wait().unwrap().code(), Some(130));
    assert!(words.contains("finished trials are kept"), "{words}");
    assert!(is_gone(&server));
}

#[test]
fn wrong_words_get_one_line_that_names_them_and_what_is_near() {
    let cases: [(&[&str], i32, &str); 12] = [
        (&["bench", "toky-forked"], 2, "did you mean tokio-forked"),
        (&["bench", "--experiment", "colateral"], 2, "did you mean collateral"),
        (&["serve", "smoll"], 2, "did you mean smol"),
        (&["bnech"], 2, "did you mean bench"),
        (&["bench", "--qick"], 2, "did you mean --quick"),
        (&["tables", "/nowhere"], 2, "is not a round"),
        (&["drive", "ftp://x", "--closed"], 2, "http://HOST:PORT/PATH"),
        (&["drive", "http://127.0.0.1:1/", "--rate=-5"], 2, "--rate"),
        (&["drive", "http://127.0.0.1:1/", "--rate", "5", "--pipeline", "2"], 2, "--pipeline"),
        (&["drive", "http://127.0.0.1:1/", "--closed", "--poisson"], 2, "--poisson"),
        (&["bench", "tokio", "--blocker", "/slow"], 2, "--command, --url or --servers-file"),
        (&["tables", "--filter", "metric=p99"], 2, "narrows the numbers of --csv"),
    ];
    for (arguments, code, wanted) in cases {
        let output = output(arguments);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {words}");
        assert!(words.contains(wanted), "{arguments:?}: {words}");
        assert_eq!(words.lines().count(), 1, "{arguments:?}: {words}");
    }
}

#[test]
fn servers_are_listed_for_a_person_and_for_a_program() {
    assert!(text(&output(&["servers"]).stdout).contains("tokio-current-thread"));
    let list: Value = serde_json::from_slice(&output(&["servers", "--json"]).stdout).unwrap();
    for key in ["name", "runtime", "model", "http", "blocking", "available", "reason", "receipt"] {
        assert!(list[0].get(key).is_some(), "{key} is missing");
    }
}

#[test]
fn serve_passes_knobs_on_and_becomes_the_server() {
    built();
    let more = ["serve", "tokio-multi-thread", "--listen", "127.0.0.1:0", "--threads", "3"];
    let mut child = stallbench(&more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready http://127.0.0.1:"), "{line}");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap().replace('\0', " ");
    assert!(command.contains("runtime-tokio") && command.contains("--threads 3"), "{command}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn drive_measures_any_server_and_refuses_to_call_a_failure_a_number() {
    built();
    let mut child =
        stallbench(&["serve", "tokio", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().trim_start_matches("ready ").to_owned() + "/";
    for load in [["--closed", "--pipeline", "4"], ["--closed", "--connections", "3"], ["--fresh", "--rate", "50"]] {
        let output = output(&[&["drive", &url, "--duration", "0.2", "--json"], load.as_slice()].concat());
        let driven: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(driven["answered"].as_u64().unwrap() > 0 && driven["errors"] == 0, "{load:?}: {driven}");
    }
    let slow = format!("{url}sleep?ms=1000");
    let late = output(&["drive", &slow, "--closed", "--timeout", "0.1"]);
    assert!(text(&late.stderr).contains("(--timeout 0.1): no answer within 0.1 s"), "{}", text(&late.stderr));
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = output(&["drive", &url, "--rate", "10", "--duration", "0.1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("cannot connect"), "{}", text(&refused.stderr));
}

#[test]
fn a_driver_without_descriptors_does_not_say_that_the_server_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut streams = listener.incoming().flatten();
        // The first one learns the answer; the others wait for theirs, so that each further request needs another descriptor.
        let asks = |stream: &mut TcpStream| stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0);
        let mut first = streams.by_ref().find_map(|mut stream| asks(&mut stream).then_some(stream)).unwrap();
        let _ = first.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        streams.collect::<Vec<_>>()
    });
    let drive = "ulimit -n 60; exec \"$0\" drive \"$1\" --fresh --rate 500 --duration 0.4 --json";
    let output = Command::new("sh").args(["-c", drive, env!("CARGO_BIN_EXE_stallbench"), &url]).output().unwrap();
    let driven: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let invalid = driven["invalid"].as_str().unwrap_or_default();
    assert!(invalid.starts_with("driver: cannot open a connection") && invalid.contains("ulimit -n"), "{driven}");
    assert_eq!((driven["refused"].as_u64(), output.status.success()), (Some(0), false), "{driven}");
}
