//! Recorded rounds read again: compared, ranked, filtered, at other percentiles, and refused where they are broken.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A standard round that stands in the repository.
fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results/2026-11-22-vm")
}

fn stallbench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallbench")).args(arguments).output().expect("stallbench runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A copy of the recorded round in which each trial was changed.
fn changed(base: &Path, change: impl Fn(usize, &mut Value)) -> String {
    let folder = base.join("changed");
    fs::create_dir(&folder).unwrap();
    fs::copy(recorded().join("round.json"), folder.join("round.json")).unwrap();
    let lines = fs::read_to_string(recorded().join("trials.jsonl")).unwrap();
    let change = |(number, line): (usize, &str)| {
        let mut trial = serde_json::from_str(line).unwrap();
        change(number, &mut trial);
        trial.to_string() + "\n"
    };
    fs::write(folder.join("trials.jsonl"), lines.lines().enumerate().map(change).collect::<String>()).unwrap();
    folder.display().to_string()
}

/// A runtime's new version that costs twice as much.
fn double_cpu(_: usize, trial: &mut Value) {
    if trial["server"].as_str().unwrap().starts_with("smol-") && trial["outcome"]["experiment"] == "throughput" {
        for one in trial["outcome"]["loops"].as_array_mut().unwrap() {
            one["cpu_us"] = (one["cpu_us"].as_f64().unwrap() * 2.0).into();
        }
    }
}

#[test]
fn a_round_does_not_differ_from_itself_and_passes_every_gate() {
    let round = recorded().display().to_string();
    let same = stallbench(&["compare", &round, &round, "--fail-if", "p99>0%", "--fail-if", "cpu_us>0%"]);
    assert!(same.status.success(), "{}", text(&same.stderr));
    assert!(text(&same.stdout).contains("\n  0 of "), "{}", text(&same.stdout));
}

#[test]
fn a_doubled_cost_is_found_where_it_is_and_fails_its_gate_only() {
    let base = tempfile::tempdir().unwrap();
    let (before, after) = (recorded().display().to_string(), changed(base.path(), double_cpu));
    let failed = stallbench(&["compare", &before, &after, "--fail-if", "cpu_us>10%", "--json"]);
    assert_eq!(failed.status.code(), Some(3));
    assert!(text(&failed.stderr).contains("smol-forked cpu_us[kept-alive] +100 %"), "{}", text(&failed.stderr));
    let compared: Value = serde_json::from_slice(&failed.stdout).unwrap();
    let differing = compared[0]["lines"].as_array().unwrap().iter().filter(|line| line["differs"] == true);
    let of_smol = |line: &Value| {
        line["server"].as_str().unwrap().starts_with("smol-") && line["metric"].as_str().unwrap().starts_with("cpu_us")
    };
    assert!(differing.clone().count() >= 3 && differing.clone().all(of_smol), "{compared}");
    assert!(stallbench(&["compare", &before, &after, "--fail-if", "p99>10%"]).status.success());
}

#[test]
fn a_histogram_that_does_not_decode_is_named_by_file_and_line() {
    let base = tempfile::tempdir().unwrap();
    let broken = changed(base.path(), |number, trial| {
        if number == 1 || trial["outcome"]["experiment"] == "collateral" && number < 4 {
            trial["outcome"]["baseline"]["probes"]["response"] = "AAAA".into();
        }
    });
    let lines = fs::read_to_string(Path::new(&broken).join("trials.jsonl")).unwrap();
    let line = lines.lines().position(|line| line.contains("\"AAAA\"")).unwrap() + 1;
    let refused = stallbench(&["tables", &broken]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains(&format!("trials.jsonl:{line}: ")), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("does not decode"), "{}", text(&refused.stderr));
}

#[test]
fn rounds_without_a_server_in_common_are_not_compared() {
    let base = tempfile::tempdir().unwrap();
    let other = changed(base.path(), |_, trial| trial["server"] = "nobody-else".into());
    let refused = stallbench(&["compare", &recorded().display().to_string(), &other]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("no server and metric in common"), "{}", text(&refused.stderr));
}

#[test]
fn tables_take_filters_percentiles_and_formats() {
    let round = recorded().display().to_string();
    let shown = |more: &[&str]| text(&stallbench(&[&["tables", &round], more].concat()).stdout);
    assert!(shown(&["--percentile", "99.9"]).contains("p99.9 of /"));
    let only = shown(&["--filter", "runtime=^smol$", "--csv"]);
    assert!(only.contains("smol-forked,") && !only.contains("tokio"), "{only}");
    assert!(shown(&["--markdown"]).contains("| tokio-forked |"));
    let json: Value = serde_json::from_str(&shown(&["--json"])).unwrap();
    assert!(
        json["cells"].as_array().unwrap().iter().any(|cell| cell["summary"]["interval"].is_array()),
        "intervals for programs"
    );
    let wrong = stallbench(&["tables", &round, "--filter", "express"]);
    assert!(text(&wrong.stderr).contains("the filters leave no server"), "{}", text(&wrong.stderr));
}

#[test]
fn ranks_put_the_one_that_never_freezes_first_and_one_loop_last() {
    let ranked = stallbench(&["rank", &recorded().display().to_string(), "--json"]);
    let places: Value = serde_json::from_slice(&ranked.stdout).unwrap();
    let rank = |server: &str| places.as_array().unwrap().iter().find(|place| place["server"] == server).unwrap()["rank"].as_u64();
    assert_eq!(rank("std-thread-per-connection"), Some(1));
    assert!(rank("tokio-current-thread") > rank("std-thread-pool"));
    assert_eq!(rank("tokio-current-thread"), rank("smol-current-thread"), "one loop is one loop");
}
