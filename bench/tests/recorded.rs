//! Recorded rounds read again: compared, ranked, filtered, at other percentiles, and refused where they are broken.

use serde_json::{Value, json};
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
    changed_copy(&recorded(), base, change)
}

fn changed_copy(of: &Path, base: &Path, change: impl Fn(usize, &mut Value)) -> String {
    let folder = base.join("changed");
    fs::create_dir(&folder).unwrap();
    fs::copy(of.join("round.json"), folder.join("round.json")).unwrap();
    let lines = fs::read_to_string(of.join("trials.jsonl")).unwrap();
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
    double_cpu_of("smol-", trial);
}

fn double_cpu_of(runtime: &str, trial: &mut Value) {
    if trial["server"].as_str().unwrap().starts_with(runtime) && trial["outcome"]["experiment"] == "throughput" {
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

/// Two rounds of different hours, in the second of which the machine was slower.
fn hours_apart() -> [PathBuf; 2] {
    ["2026-11-23-vm.3", "2026-11-23-vm.6"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results").join(name))
}

/// Server and metric of the cells that differ.
fn differing(before: &Path, after: &str) -> Vec<(String, String)> {
    let compared = stallbench(&["compare", &before.display().to_string(), after, "--json"]);
    let compared: Value = serde_json::from_slice(&compared.stdout).expect("JSON");
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = compared[0]["lines"].as_array().unwrap().iter().filter(|line| line["differs"] == true);
    lines.map(|line| (word(line, "server"), word(line, "metric"))).collect()
}

#[test]
fn a_slower_machine_is_not_taken_for_slower_servers() {
    let [before, after] = hours_apart();
    let found = differing(&before, &after.display().to_string());
    let costs: Vec<_> = found.iter().filter(|(server, _)| server.starts_with("express") || server.starts_with("go-")).collect();
    assert!(costs.is_empty(), "nothing of these servers changed: {costs:?}");
    let shown = text(&stallbench(&["compare", &before.display().to_string(), &after.display().to_string()]).stdout);
    assert!(shown.contains("machine: taken out") && shown.contains("cpu_us x 1."), "{shown}");
}

#[test]
fn a_doubled_cost_is_found_on_a_slower_machine_too() {
    let base = tempfile::tempdir().unwrap();
    let [before, after] = hours_apart();
    let doubled = changed_copy(&after, base.path(), |_, trial| double_cpu_of("std-", trial));
    let found = differing(&before, &doubled);
    assert!(found.contains(&("std-thread-per-connection".into(), "cpu_us[kept-alive]".into())), "{found:?}");
}

#[test]
fn with_few_servers_in_common_costs_are_not_judged_and_a_gate_on_them_is_refused() {
    let [before, after] = hours_apart().map(|folder| folder.display().to_string());
    let base = tempfile::tempdir().unwrap();
    let few = changed_copy(Path::new(&after), base.path(), |_, trial| {
        if !trial["server"].as_str().unwrap().starts_with("go-") {
            trial["server"] = "somebody-else".into();
        }
    });
    let shown = text(&stallbench(&["compare", &before, &few, "--all"]).stdout);
    assert!(shown.contains("not judged") && shown.contains("stallbench ab"), "{shown}");
    let refused = stallbench(&["compare", &before, &few, "--fail-if", "cpu_us>10%"]);
    assert!(text(&refused.stderr).contains("use `stallbench ab`"), "{}", text(&refused.stderr));
}

#[test]
fn a_gate_that_cannot_fail_is_refused() {
    let round = recorded().display().to_string();
    for (gate, wanted) in
        [("p98>10%", "did you mean p99_ms"), ("colour>1%", "covers no metric"), ("p99_ms[5]>10", "covers no metric")]
    {
        let refused = stallbench(&["compare", &round, &round, "--fail-if", gate]);
        assert_eq!(refused.status.code(), Some(2), "{gate}");
        assert!(text(&refused.stderr).contains(wanted), "{gate}: {}", text(&refused.stderr));
    }
    let base = tempfile::tempdir().unwrap();
    let single = changed(base.path(), |_, trial| {
        if trial["trial"] != 1 {
            trial["server"] = "somebody-else".into();
        }
    });
    for gate in ["p99>10%", "p99_ms[4]>1000"] {
        let refused = stallbench(&["compare", &round, &single, "--fail-if", gate]);
        assert!(text(&refused.stderr).contains("too few trials"), "{gate}: {}", text(&refused.stderr));
    }
}

#[test]
fn absolute_gates_and_servers_that_are_gone_fail_with_three() {
    let round = recorded().display().to_string();
    let failed = stallbench(&["compare", &round, &round, "--fail-if", "freeze_k[100ms]<8"]);
    assert_eq!(failed.status.code(), Some(3), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("tokio-current-thread freeze_k"), "{}", text(&failed.stderr));
    assert!(stallbench(&["compare", &round, &round, "--fail-if", "p99_ms[1]>5000"]).status.success());
    let base = tempfile::tempdir().unwrap();
    let without = changed(base.path(), |_, trial| {
        if trial["server"] == "smol-forked" {
            trial["server"] = "somebody-else".into();
        }
    });
    let gone = stallbench(&["compare", &round, &without, "--fail-if", "p99>10%"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(text(&gone.stderr).contains("missing in the second: smol-forked"), "{}", text(&gone.stderr));
    let base = tempfile::tempdir().unwrap();
    let crashed = changed(base.path(), |_, trial| {
        if trial["server"] == "smol-forked" {
            trial["outcome"] = json!({"experiment": "invalid", "reason": "it does not get ready"});
        }
    });
    let gone = stallbench(&["compare", &round, &crashed, "--fail-if", "p99>10%"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(text(&gone.stderr).contains("missing in the second: smol-forked (it does not get ready)"), "{}", text(&gone.stderr));
    let metrics = text(&stallbench(&["compare", &round, &round, "--list-metrics"]).stdout);
    assert!(metrics.lines().any(|line| line == "p99_ms[sleep@100,4]"), "{metrics}");
}

#[test]
fn reading_a_round_never_writes_to_it() {
    let base = tempfile::tempdir().unwrap();
    let copy = changed(base.path(), |_, _| ());
    let path = Path::new(&copy).join("trials.jsonl");
    let half = fs::read_to_string(&path).unwrap() + "{\"server\": \"half a li";
    fs::write(&path, &half).unwrap();
    for verb in [&["tables", &copy][..], &["rank", &copy], &["compare", &copy, &copy]] {
        assert!(stallbench(verb).status.success(), "{verb:?}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), half);
}

#[test]
fn tables_fit_the_terminal_and_pipes_get_no_escape_codes() {
    let round = recorded().display().to_string();
    for width in [80, 100, 120, 160] {
        for verb in [&["tables", &round][..], &["rank", &round], &["compare", &round, &round, "--all"], &["servers"]] {
            let output =
                Command::new(env!("CARGO_BIN_EXE_stallbench")).args(verb).env("COLUMNS", width.to_string()).output().unwrap();
            let shown = text(&output.stdout);
            let long = shown.lines().find(|line| line.chars().count() > width && !line.contains('/'));
            assert!(long.is_none() && !shown.is_empty(), "{verb:?} at {width}: {long:?}");
            assert!(!shown.contains('\u{1b}'), "{verb:?}");
        }
    }
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
    assert!(only.contains(",never (64 tried),") || only.contains("not reached"), "words for what is not a number: {only}");
    assert!(shown(&["--markdown"]).contains("| tokio-forked |"));
    assert!(shown(&["--table", "headline", "--columns", "k=4,k=0", "--markdown"]).contains("| server | k=4 | k=0 |"));
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
