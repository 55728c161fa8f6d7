//! Results of other load engines, of the collateral experiment that `stallbench deploy` writes for them.
//!
//! Both engines time a request from when it was sent, not from when it was due, so what waits inside them does not show.

use crate::load::Recording;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
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
    /// What was left out of the files.
    pub notes: Vec<String>,
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
    /// A file of another format, of another engine or other blockers than the first, or files without probes.
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let (mut all, mut notes) = (None::<Foreign>, Vec::new());
        for path in paths {
            let path = path.as_ref();
            let read = requests(path).with_context(|| path.display().to_string())?;
            if read.is_cut {
                let what = "its last line is cut off and left out: k6 ended before it had written everything";
                notes.push(format!("{}: {what}", path.display()));
            }
            for request in read.requests {
                let engine = read.engine;
                let foreign =
                    all.get_or_insert(Foreign { engine, block_ms: request.block_ms, steps: BTreeMap::new(), notes: Vec::new() });
                if foreign.engine != engine || foreign.block_ms != request.block_ms {
                    bail!("{}: of another engine or other blockers than {}", path.display(), paths[0].as_ref().display());
                }
                foreign.steps.entry(request.k).or_default().add(&request);
            }
        }
        let all = all.filter(|all| all.steps.values().any(|step| step.probes.answered > 0));
        let all = all.context("no probe was answered in these files: run what `stallbench deploy k6` or `locust` prints")?;
        Ok(Foreign { notes, ..all })
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
        let (kind, k, block_ms) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse::<f64>().ok()?);
        let is_ours = matches!(kind, "probe" | "blocker") && parts.next().is_none() && block_ms.is_finite() && block_ms >= 0.0;
        is_ours.then_some(Requests { is_probe: kind == "probe", k, block_ms, times: Vec::new(), failed: 0, dropped: 0 })
    }

    fn answered(&self) -> u64 {
        self.times.iter().map(|(_, count)| count).sum()
    }
}

/// What one file holds.
struct Contents {
    engine: Engine,
    requests: Vec<Requests>,
    /// Its last line is not whole.
    is_cut: bool,
}

fn requests(path: &Path) -> Result<Contents> {
    let mut file = BufReader::new(File::open(path).context("cannot be read")?);
    // A pipe can be looked at, and not be read again.
    match file.fill_buf().context("cannot be read")? {
        [] => bail!("is empty"),
        [0x1f, 0x8b, ..] => bail!("is compressed: run gunzip on it first"),
        [b'[', ..] => of_locust(file),
        _ => of_k6(file),
    }
}

/// An entry of what Locust's `--json-file` writes.
#[derive(Deserialize)]
struct Entry {
    name: String,
    num_requests: u64,
    num_failures: u64,
    response_times: BTreeMap<String, u64>,
}

fn of_locust(file: impl Read) -> Result<Contents> {
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
        all.push(requests);
    }
    Ok(Contents { engine: Engine::Locust, requests: all, is_cut: false })
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

/// The longest line that is read, in bytes; those of k6 take a thousand.
const LONGEST_LINE: u64 = 1 << 20;

/// A line of what k6's `--out json` writes.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    metric: String,
    data: Json,
}

fn of_k6(mut file: impl BufRead) -> Result<Contents> {
    let mut all: BTreeMap<String, Requests> = BTreeMap::new();
    let (mut bytes, mut number, mut is_cut) = (Vec::new(), 0, false);
    loop {
        bytes.clear();
        if file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes).context("cannot be read")? == 0 {
            break;
        }
        number += 1;
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = match serde_json::from_slice(&bytes) {
            Ok(line) => line,
            // k6 was killed, or is still writing.
            Err(_) if number > 1 && !bytes.ends_with(b"\n") && file.fill_buf().is_ok_and(<[u8]>::is_empty) => {
                is_cut = true;
                break;
            }
            Err(error) => {
                let what = "is not what k6's --out json writes, and the file is no list of Locust's either";
                return Err(error).with_context(|| format!("line {number} {what}"));
            }
        };
        let scenario = line.data["tags"]["scenario"].as_str().unwrap_or_default();
        let Some(fresh) = (line.kind == "Point").then(|| Requests::named(scenario)).flatten() else { continue };
        let requests = all.entry(scenario.to_owned()).or_insert(fresh);
        let value = line.data["value"].as_f64();
        match line.metric.as_str() {
            // Those that failed are counted by another line.
            "http_req_duration" if line.data["tags"]["expected_response"] != "false" => {
                requests.times.push((nanoseconds(value).with_context(|| format!("line {number}"))?, 1));
            }
            "http_req_failed" => requests.failed += u64::from(value == Some(1.0)),
            "dropped_iterations" => requests.dropped += value.unwrap_or(0.0).max(0.0) as u64,
            _ => {}
        }
    }
    Ok(Contents { engine: Engine::K6, requests: all.into_values().collect(), is_cut })
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
        let [requests] = &all.requests[..] else { panic!("one scenario") };
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
        assert_eq!(all.requests[0].times, [(1_000_000, 1), (150_000_000, 2), (3_400_000_000, 1)]);
        assert_eq!(all.requests[0].failed, 2);
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

    /// What is read of a file with these bytes.
    fn read(bytes: &[u8]) -> Result<Foreign> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k6.json");
        std::fs::write(&path, bytes).unwrap();
        Foreign::read(&[path])
    }

    fn line(scenario: &str) -> String {
        format!(r#"{{"type":"Point","data":{{"value":1,"tags":{{"scenario":"{scenario}"}}}},"metric":"http_req_duration"}}"#)
    }

    #[test]
    fn a_file_of_k6_may_have_empty_lines_and_end_within_a_line() {
        let line = line("probe-0-110");
        let text = format!("{line}\n\n{line}\r\n\n");
        let whole = read(text.as_bytes()).unwrap();
        assert_eq!((whole.steps[&0].probes.answered, whole.notes.len()), (2, 0));
        for cut in 1..line.len() {
            let cut = read(format!("{text}{}", &line[..cut]).as_bytes()).unwrap();
            assert_eq!(cut.steps[&0].probes.answered, 2);
            assert!(cut.notes[0].contains("k6.json: its last line is cut off"), "{:?}", cut.notes);
        }
        // In the middle it is no cut.
        let error = format!("{:#}", read(format!("{line}\n{}\n{line}\n", &line[..9]).as_bytes()).err().unwrap());
        assert!(error.contains("line 2 is not what k6's"), "{error}");
    }

    #[test]
    fn a_compressed_file_is_told_as_such() {
        let error = format!("{:#}", read(&[0x1f, 0x8b, 8, 0]).err().unwrap());
        assert!(error.contains("k6.json: is compressed: run gunzip on it first"), "{error}");
    }

    #[test]
    fn blockers_of_no_finite_length_are_not_ours() {
        for name in ["probe-0-NaN", "probe-0-inf", "probe-0-1e999"] {
            assert!(Requests::named(name).is_none(), "{name}");
            let error = format!("{:#}", read(line(name).as_bytes()).err().unwrap());
            assert!(error.contains("no probe was answered"), "{error}");
        }
    }
}
