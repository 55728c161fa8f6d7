//! The report as a file: what it weighs, what stands in it, and what cannot be shown. How it looks is tested in browsers, in `report/test/`.

use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The recorded round with the most servers.
const FULL: &str = "2026-11-23-vm.6";

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results").join(name)
}

fn report(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallbench")).arg("report").args(arguments).output().unwrap()
}

fn numbers(page: &Path) -> (String, Json) {
    let text = fs::read_to_string(page).unwrap();
    let (_, from) = text.split_once("<script id=\"numbers\" type=\"application/json\">").expect("numbers");
    let (json, _) = from.split_once("</script>").unwrap();
    assert!(!json.contains('<'), "nothing in the numbers ends the script");
    let json = serde_json::from_str(json).unwrap();
    (text, json)
}

#[test]
fn a_report_of_a_full_round_fits_and_holds_every_server_table_and_figure() {
    let base = tempfile::tempdir().unwrap();
    let page = base.path().join("report.html");
    let written = report(&[&recorded(FULL), Path::new("--out"), &page]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let (text, json) = numbers(&page);
    assert!(text.len() <= 1_500_000, "{} bytes", text.len());
    let header: Json = serde_json::from_str(&fs::read_to_string(recorded(FULL).join("round.json")).unwrap()).unwrap();
    let servers = header["servers"].as_array().unwrap().len();
    assert_eq!(json["order"].as_array().unwrap().len(), servers);
    assert_eq!(json["tables"][0]["rows"].as_array().unwrap().len(), servers);
    assert!(json["sentence"].as_str().unwrap().contains("never"));
    // Its numbers are those of summary.csv, which another piece of code wrote when the round was recorded.
    let csv = fs::read_to_string(recorded(FULL).join("summary.csv")).unwrap();
    let line = csv.lines().find(|line| line.starts_with("tokio-forked,\"p99_ms[sleep,2]\"")).expect("the cell");
    let median: f64 = line.rsplit("\",").next().unwrap().split(',').next().unwrap().parse().unwrap();
    let figure = json["figures"].as_array().unwrap().iter().find(|one| one["name"] == "sleep").unwrap();
    let series = figure["series"].as_array().unwrap().iter().find(|one| one["name"] == "tokio-forked").unwrap();
    let place = figure["x"]["ticks"].as_array().unwrap().iter().find(|tick| tick[1] == "2").unwrap()[0].as_f64().unwrap();
    let point = series["points"].as_array().unwrap().iter().find(|point| point[0].as_f64() == Some(place)).unwrap();
    assert!((point[1].as_f64().unwrap() - median).abs() < 0.01 * median, "{point} is not {median}");
}

#[test]
fn what_cannot_be_shown_gets_one_line_that_says_why() {
    let base = tempfile::tempdir().unwrap();
    let empty = base.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::copy(recorded(FULL).join("round.json"), empty.join("round.json")).unwrap();
    let newer = base.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("round.json"), r#"{"schema": 99}"#).unwrap();
    let out = base.path().join("report.html");
    let nowhere = base.path().join("nowhere/report.html");
    let full = recorded(FULL);
    let cases: [(&[&Path], &str); 5] = [
        (&[&empty, Path::new("--out"), &out], "has no trial yet"),
        (&[&newer, Path::new("--out"), &out], "use a newer stallbench"),
        (&[base.path(), Path::new("--out"), &out], "is not a round"),
        (&[&full, Path::new("--out"), &nowhere], "cannot write"),
        (&[&full, &newer, Path::new("--out"), &out], "use a newer stallbench"),
    ];
    for (arguments, why) in cases {
        let refused = report(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why) && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
        assert!(!out.exists(), "{arguments:?} left a page");
    }
}
