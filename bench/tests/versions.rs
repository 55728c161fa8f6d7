//! Two versions of a user's own service: what a gate may rest on, and what is said where a version has no number.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// One measurement at a time: two would disturb each other.
static MACHINE: Mutex<()> = Mutex::new(());

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    command.args(arguments).stdin(Stdio::null()).output().expect("stallbench runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn two_versions_are_not_measured_with_words_that_would_be_ignored_or_gates_that_cannot_be_judged() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let command = format!("touch {} {{port}}", asked.display());
    let own = ["--command", &command, "--command", &command, "--blocker", "/slow"];
    let gated = |gate: &'static str, trials: &'static str| [&own[..], &["--fail-if", gate, "--trials", trials]].concat();
    let cases: [(Vec<&str>, &str); 9] = [
        (gated("p99>20%", "3"), "takes four trials on each side, and 3 would be taken: raise --trials"),
        (gated("freeze_k<8", "1"), "takes more than one trial, and 1 would be taken: raise --trials"),
        (gated("p98>20%", "7"), "the gate 'p98>20%' covers no metric; did you mean p99_ms"),
        (gated("cpu_us>20%", "7"), "the gate 'cpu_us>20%' covers no metric"),
        ([&own[..], &["--blockers", "cpu"]].concat(), "--blockers"),
        (vec!["main", "HEAD", "tokio", "--blocker", "/slow"], "--blocker is about your own service"),
        (vec!["main", "HEAD", "--probe", "/health"], "--probe is about your own service"),
        (vec!["main", "HEAD", "--header", "A: b"], "--header is about your own service"),
        (vec!["--bin", "a=/bin/true", "--bin", "b=/bin/true", "tokio", "--blocker", "/slow"], "--blocker is about your own"),
    ];
    for (arguments, wanted) in cases {
        let refused = output(&[&["ab"], arguments.as_slice()].concat());
        let words = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(words.contains(wanted) && words.lines().count() == 1, "{arguments:?}: {words}");
        assert!(!asked.exists(), "{arguments:?}: nothing is started");
    }
}

/// Measures two versions of one server, of which one serves while it is learned from and never again, and returns the exit code and all words.
fn measured_without(side: usize) -> (Option<i32>, String) {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(output(&["build", "tokio-current-thread"]).status.success());
    let base = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_stallbench")).parent().unwrap().join("../release/runtime-tokio");
    let whole = format!("exec {} --model current-thread --listen 127.0.0.1:{{port}}", binary.display());
    let flag = base.path().join("learned").display().to_string();
    let broken = format!("test -e {flag} && exit 7; touch {flag}; {whole}");
    let commands = [0, 1].map(|one| if one == side { &broken } else { &whole });
    let folder = base.path().join("round").display().to_string();
    let fixed = ["--blocker", "/sleep?ms=60", "--trials", "3", "--fail-if", "p99_ms[1]>5000", "--out", &folder];
    let output = output(&[&["ab", "--command", commands[0], "--command", commands[1]], &fixed[..]].concat());
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_second_version_without_a_number_fails_and_is_told_and_a_first_one_stands_in_no_gates_way() {
    let (code, words) = measured_without(1);
    assert_eq!(code, Some(3), "{words}");
    assert!(
        words.contains("the second version has no number of: yours@B service (") && words.contains("exit status 7"),
        "{words}"
    );
    assert!(words.contains("missing in the second: yours"), "{words}");
    // A disturbed driver may cost the second version a number, which is another matter.
    let attempts = (0..5).map(|_| measured_without(0));
    let (code, words) = attempts
        .into_iter()
        .find(|(_, words)| !["has no number of", "too few trials"].iter().any(|lost| words.contains(lost)))
        .expect("a quiet moment");
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("yours@A: in a trial, service is invalid("), "{words}");
}
