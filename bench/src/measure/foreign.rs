//! Results of other load engines, of the collateral experiment that `stallbench deploy` writes for them.
//!
//! Both engines time a request from when it was sent, not from when it was due, so what waits inside them does not show.

use crate::load::Recording;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

/// A load engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// k6, which writes every request.
    K6,
    /// Locust, which writes how many requests took how long.
    Locust,
}

impl Engine {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Engine::K6 => "k6",
            Engine::Locust => "locust",
        }
    }

    /// What its times are.
    pub fn resolution(self) -> &'static str {
        match self {
            Engine::K6 => {
                "k6 times each request, from when it is sent to its last byte; connecting, and waiting for a free virtual user, are not in it"
            }
            Engine::Locust => {
                "Locust rounds to whole milliseconds below 100 ms, and to two digits above, and times from when a request is sent; a client that waits sends none"
            }
        }
    }
}

/// What one engine found, of one length of blockers.
pub struct Foreign {
    /// The engine.
    pub engine: Engine,
    /// T, in ms.
    pub block_ms: f64,
    /// By the number of blockers.
    pub steps: BTreeMap<usize, Beside>,
}

/// Probes and blockers of one step.
#[derive(Default)]
pub struct Beside {
    /// Probes. Those that the engine could not send in time are planned, and never answered.
    pub probes: Recording,
    /// Blockers that were answered.
    pub blockers: u64,
}

impl Foreign {
    /// Reads the files of one run.
    ///
    /// # Errors
    /// A file of another format, of another engine or other blockers than the first, or one without probes.
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut all: Option<Foreign> = None;
        for path in paths {
            let path = path.as_ref();
            let requests = requests(path).with_context(|| path.display().to_string())?;
            for (engine, request) in requests {
                let foreign = all.get_or_insert(Foreign { engine, block_ms: request.block_ms, steps: BTreeMap::new() });
                if foreign.engine != engine || foreign.block_ms != request.block_ms {
                    bail!("{}: of another engine or other blockers than {}", path.display(), paths[0].as_ref().display());
                }
                foreign.steps.entry(request.k).or_default().add(&request);
            }
        }
        let all = all.filter(|all| all.steps.values().any(|step| step.probes.answered > 0));
        all.context("no probe was answered in these files: run what `stallbench deploy k6` or `locust` prints")
    }
}

impl Beside {
    fn add(&mut self, request: &Requests) {
        if !request.is_probe {
            self.blockers += request.answered();
            return;
        }
        let probes = &mut self.probes;
        for (ns, count) in &request.times {
            // A time that no histogram holds is one that nobody waits for; it counts as the longest.
            probes.response.saturating_record_n(*ns, u32::try_from(*count).unwrap_or(u32::MAX));
        }
        probes.answered += request.answered();
        probes.errors += request.failed;
        probes.failed += request.failed;
        probes.unanswered += request.dropped;
        probes.planned += request.answered() + request.failed + request.dropped;
    }
}

/// Requests of one kind in one step.
struct Requests {
    is_probe: bool,
    k: usize,
    block_ms: f64,
    /// Times in ns, each with the number of answers that took so long.
    times: Vec<(u64, u64)>,
    failed: u64,
    /// Never sent.
    dropped: u64,
}

impl Requests {
    /// Of a name as the scripts give it: `probe-4-110`.
    fn named(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (kind, k, block) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let is_ours = matches!(kind, "probe" | "blocker") && parts.next().is_none();
        is_ours.then_some(Requests { is_probe: kind == "probe", k, block_ms: block, times: Vec::new(), failed: 0, dropped: 0 })
    }

    fn answered(&self) -> u64 {
        self.times.iter().map(|(_, count)| count).sum()
    }
}

fn requests(path: &Path) -> Result<Vec<(Engine, Requests)>> {
    let mut file = BufReader::new(File::open(path).context("cannot be read")?);
    let mut first = [0];
    file.read_exact(&mut first).context("is empty, or no file")?;
    file.rewind()?;
    if first == *b"[" { of_locust(file) } else { of_k6(file) }
}

/// An entry of what Locust's `--json-file` writes.
#[derive(Deserialize)]
struct Entry {
    name: String,
    num_requests: u64,
    num_failures: u64,
    response_times: BTreeMap<String, u64>,
}

fn of_locust(file: impl Read) -> Result<Vec<(Engine, Requests)>> {
    let entries: Vec<Entry> =
        serde_json::from_reader(file).context("is not what Locust's --json-file writes, a list of statistics")?;
    let mut all = Vec::new();
    for entry in entries {
        let Some(mut requests) = Requests::named(&entry.name) else { continue };
        for (time, count) in &entry.response_times {
            requests.times.push((nanoseconds(time.parse().ok())?, *count));
        }
        // Those that failed have a time as well, among the others.
        requests.failed = entry.num_failures.min(entry.num_requests);
        requests.leave_out_fastest(requests.failed);
        all.push((Engine::Locust, requests));
    }
    Ok(all)
}

impl Requests {
    /// Which of the times are those of failures is not known. What fails fails fast more often than not, and to leave out the fastest makes no
    /// server look better.
    fn leave_out_fastest(&mut self, mut count: u64) {
        self.times.sort_unstable();
        for (_, of_time) in &mut self.times {
            let less = count.min(*of_time);
            *of_time -= less;
            count -= less;
        }
        self.times.retain(|(_, of_time)| *of_time > 0);
    }
}

/// A line of what k6's `--out json` writes.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    metric: String,
    data: Json,
}

fn of_k6(file: impl BufRead) -> Result<Vec<(Engine, Requests)>> {
    let mut all: BTreeMap<String, Requests> = BTreeMap::new();
    for (number, line) in file.lines().enumerate() {
        let line: Line = serde_json::from_str(&line.context("cannot be read")?).with_context(|| {
            format!("line {} is not what k6's --out json writes, and the file is no list of Locust's either", number + 1)
        })?;
        let scenario = line.data["tags"]["scenario"].as_str().unwrap_or_default();
        let Some(fresh) = (line.kind == "Point").then(|| Requests::named(scenario)).flatten() else { continue };
        let requests = all.entry(scenario.to_owned()).or_insert(fresh);
        let value = line.data["value"].as_f64();
        match line.metric.as_str() {
            // Those that failed are counted by another line.
            "http_req_duration" if line.data["tags"]["expected_response"] != "false" => {
                requests.times.push((nanoseconds(value).with_context(|| format!("line {}", number + 1))?, 1));
            }
            "http_req_failed" => requests.failed += u64::from(value == Some(1.0)),
            "dropped_iterations" => requests.dropped += value.unwrap_or(0.0).max(0.0) as u64,
            _ => {}
        }
    }
    Ok(all.into_values().map(|requests| (Engine::K6, requests)).collect())
}

/// Milliseconds, as nanoseconds.
fn nanoseconds(ms: Option<f64>) -> Result<u64> {
    let ms = ms.filter(|ms| ms.is_finite() && *ms >= 0.0).context("has a time that is not a number of milliseconds")?;
    // A time of zero is one that was rounded.
    Ok(((ms * 1e6) as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn requests_of_k6_are_timed_failed_or_dropped() {
        let point = |metric: &str, value: f64, scenario: &str, expected: &str| {
            format!(
                r#"{{"type":"Point","data":{{"time":"2026-11-28T07:00:00Z","value":{value},"tags":{{"scenario":"{scenario}","expected_response":"{expected}"}}}},"metric":"{metric}"}}"#
            )
        };
        let lines = [
            r#"{"type":"Metric","data":{"type":"trend","contains":"time"},"metric":"http_req_duration"}"#.to_owned(),
            point("http_req_duration", 0.25, "probe-4-110", "true"),
            point("http_req_duration", 330.5, "probe-4-110", "true"),
            point("http_req_duration", 2.0, "probe-4-110", "false"),
            point("http_req_failed", 1.0, "probe-4-110", "false"),
            point("http_req_failed", 0.0, "probe-4-110", "true"),
            point("dropped_iterations", 3.0, "probe-4-110", "true"),
            point("http_req_duration", 110.0, "default", "true"),
        ];
        let all = of_k6(Cursor::new(lines.join("\n"))).unwrap();
        let [(Engine::K6, requests)] = &all[..] else { panic!("one scenario") };
        assert_eq!(requests.times, [(250_000, 1), (330_500_000, 1)]);
        assert_eq!((requests.k, requests.block_ms, requests.failed, requests.dropped), (4, 110.0, 1, 3));
        let mut beside = Beside::default();
        beside.add(requests);
        assert_eq!((beside.probes.planned, beside.probes.answered, beside.probes.errors), (6, 2, 1));
    }

    #[test]
    fn counts_of_locust_leave_out_failures_and_never_flatter() {
        let text = r#"[{"name":"probe-0-110","num_requests":6,"num_failures":2,"response_times":{"1":3,"150":2,"3400":1}}]"#;
        let all = of_locust(text.as_bytes()).unwrap();
        assert_eq!(all[0].1.times, [(1_000_000, 1), (150_000_000, 2), (3_400_000_000, 1)]);
        assert_eq!(all[0].1.failed, 2);
    }

    #[test]
    fn what_is_no_result_is_refused() {
        assert!(format!("{:#}", of_k6(Cursor::new("hello")).err().unwrap()).contains("line 1"));
        assert!(of_locust("[{}]".as_bytes()).is_err());
        assert!(nanoseconds(Some(-1.0)).is_err() && nanoseconds(Some(f64::NAN)).is_err() && nanoseconds(None).is_err());
        assert!(Foreign::read(&["/nowhere"]).is_err());
        for name in ["probe-4", "probe-x-110", "other-4-110", "probe-4-110-1", ""] {
            assert!(Requests::named(name).is_none(), "{name}");
        }
    }
}
