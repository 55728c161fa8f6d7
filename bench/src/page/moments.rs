//! Single requests for the report: waterfalls, each probe of a step, and percentiles over all trials.

use crate::experiment::{self, Scene, Step};
use crate::load::{Sample, Times};
use crate::measure::{Latency, Timeline, known, leb128};
use crate::metrics::Percentile;
use crate::report::{Counted, Figure, Places, Point, Scale, Series, significant};
use crate::round::{Outcome, Round, Trial};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// Timelines and percentiles beside more blockers at a time are left out: by then every server has shown what it does.
const MOST_BLOCKERS: usize = 4;
/// Of all kinds of blockers but the first, timelines beside only this many are shown, so that a page does not become too large.
const OF_OTHERS: usize = 4;
/// The unit of times in timelines, in microseconds.
const UNIT_US: u64 = 10;
/// The percentiles that are drawn.
const QUANTILES: [f64; 13] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995];
/// Samples that must lie beyond a percentile that is drawn.
const BEYOND: f64 = 10.0;

/// Everything of a round that shows single requests.
#[derive(Serialize)]
pub struct Moments {
    waterfalls: Vec<Waterfall>,
    timelines: Vec<TimelineOf>,
    /// The unit of the times in timelines, in ms.
    unit_ms: f64,
}

#[derive(Serialize)]
struct Waterfall {
    server: String,
    length_ms: f64,
    finished_ms: Vec<f64>,
    /// When the server had read each of the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_ms: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct TimelineOf {
    server: String,
    #[serde(flatten)]
    step: Step,
    block_ms: f64,
    start_ms: f64,
    end_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<String>,
    /// For each probe the time since the one before was due; then for each by how much its answer came after the later of two instants, when it was due
    /// and the answer before: folded (0, -1, 1, -2, ...) and doubled (odd without an answer). LEB128, deflated, in base64.
    probes: String,
    /// The blockers in the same form, followed by the connection of each.
    blockers: String,
}

impl Moments {
    /// The first trial of each server that kept something.
    ///
    /// # Errors
    /// A trial that cannot be read.
    pub fn of(round: &Round) -> Result<Self> {
        let mut moments = Moments { waterfalls: Vec::new(), timelines: Vec::new(), unit_ms: UNIT_US as f64 / 1e3 };
        for trial in round.trials.iter().filter(|trial| trial.trial == 1) {
            let mut first = None;
            for scene in scenes(round, trial)? {
                let server = trial.server.clone();
                match scene {
                    Scene::Waterfall { length_ms, finished_ms, read_ms } => {
                        moments.waterfalls.push(Waterfall { server, length_ms, finished_ms, read_ms });
                    }
                    Scene::Step { step, block_ms, invalid, timeline: Some(timeline), .. } => {
                        let is_first = *first.get_or_insert(step.kind.clone()) == step.kind;
                        let shown = if is_first { 1..=MOST_BLOCKERS } else { OF_OTHERS..=OF_OTHERS };
                        if !shown.contains(&step.k) {
                            continue;
                        }
                        moments.timelines.push(TimelineOf::of(server, step, block_ms, invalid, &timeline)?);
                    }
                    Scene::Step { .. } => {}
                }
            }
        }
        Ok(moments)
    }
}

impl TimelineOf {
    fn of(server: String, step: Step, block_ms: f64, invalid: Option<String>, timeline: &Timeline) -> Result<Self> {
        Ok(TimelineOf {
            server,
            step,
            block_ms,
            start_ms: timeline.start_us as f64 / 1e3,
            end_ms: timeline.end_us as f64 / 1e3,
            invalid,
            probes: coarse(&timeline.probes()?, false)?,
            blockers: coarse(&timeline.blockers()?, true)?,
        })
    }
}

/// Deflated, in base64.
fn coarse(requests: &[Sample], with_connections: bool) -> Result<String> {
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
    deflated.write_all(&units(requests, with_connections))?;
    Ok(STANDARD.encode(deflated.finish()?))
}

/// Ten microseconds are less than a point of any screen. Whoever was held has an answer right after others who were, so what an answer comes later
/// than those is small, and takes half of the room that response times take.
fn units(requests: &[Sample], with_connections: bool) -> Vec<u8> {
    let units = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / UNIT_US;
    let (mut bytes, mut answers) = (Vec::new(), Vec::new());
    let (mut last, mut before) = (0, 0);
    for one in requests {
        let at = units(one.planned);
        let answer = at + units(one.response);
        leb128(&mut bytes, at - last);
        let expected = at.max(before);
        let folded = if answer < expected { (expected - answer) * 2 - 1 } else { (answer - expected) * 2 };
        leb128(&mut answers, folded << 1 | u64::from(!one.is_answered));
        (last, before) = (at, answer);
    }
    bytes.append(&mut answers);
    for one in requests.iter().filter(|_| with_connections) {
        leb128(&mut bytes, one.connection as u64);
    }
    bytes
}

/// The scenes of a trial.
fn scenes(round: &Round, trial: &Trial) -> Result<Vec<Scene>> {
    let Outcome::Found(outcome) = &trial.outcome else { return Ok(Vec::new()) };
    let place = || format!("{}:{}", round.folder.join("trials.jsonl").display(), trial.line);
    experiment::find(&trial.experiment)?.scenes(outcome).with_context(place)
}

/// The response times of all trials, by step and server.
pub struct Percentiles {
    /// By step and length of a blocker, in microseconds: a thorough round has two lengths of one kind. Each with the times by server.
    steps: BTreeMap<(Step, u64), BTreeMap<String, Merged>>,
}

/// The times of one step of one server.
struct Merged {
    points: Vec<(f64, f64, bool)>,
    counted: Counted,
}

impl Percentiles {
    /// Adds the histograms of all valid trials.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn of(round: &Round) -> Result<Self> {
        let mut steps: BTreeMap<(Step, u64), BTreeMap<String, Merged>> = BTreeMap::new();
        for row in &round.header.servers {
            // Histograms are large, so those of one server are merged and read before the next.
            let mut merged: BTreeMap<(Step, u64), All> = BTreeMap::new();
            let mut invalid: BTreeMap<(Step, u64), usize> = BTreeMap::new();
            // Trials without any step, by experiment.
            let mut whole: BTreeMap<&str, usize> = BTreeMap::new();
            for trial in round.trials.iter().filter(|trial| trial.server == row.name) {
                if matches!(trial.outcome, Outcome::Invalid { .. }) {
                    *whole.entry(&trial.experiment).or_default() += 1;
                }
                for scene in scenes(round, trial)? {
                    let Scene::Step { step, block_ms, invalid: why, times, .. } = scene else { continue };
                    let key = (step, (block_ms * 1e3) as u64);
                    match why {
                        _ if key.0.k > MOST_BLOCKERS => {}
                        Some(_) => *invalid.entry(key).or_default() += 1,
                        None => add(&mut merged, key, &trial.experiment, &times)?,
                    }
                }
            }
            for (key, all) in merged {
                let lost = whole.get(all.experiment.as_str()).copied().unwrap_or(0);
                let invalid = invalid.get(&key).copied().unwrap_or(0) + lost;
                steps.entry(key).or_default().insert(row.name.clone(), Merged::of(&all, invalid));
            }
        }
        Ok(Percentiles { steps })
    }

    /// A figure for each step, with a line for each of the servers.
    pub fn figures(&self, order: &[&str]) -> Vec<Figure> {
        let figure = |((step, block_us), servers): (&(Step, u64), &BTreeMap<String, Merged>)| {
            let block_ms = significant(*block_us as f64 / 1e3);
            let of = if *block_us == 0 || step.k == 0 { String::new() } else { format!(", {block_ms} ms each") };
            // The shortest comes first.
            let is_first = self.steps.keys().find(|(other, _)| other == step).is_none_or(|(_, first)| first == block_us);
            let more = if is_first { String::new() } else { format!("-{block_ms}ms") };
            let line = |name: &&str| {
                let Merged { points, counted } = servers.get(*name)?;
                let point = |(x, y, is_bound): &(f64, f64, bool)| Point {
                    x: *x,
                    y: *y,
                    interval: None,
                    is_bound: *is_bound,
                    counted: *counted,
                };
                Some(Series { name: (*name).to_owned(), points: points.iter().map(point).collect() })
            };
            let ticks = [0.0, 0.5, 0.9, 0.99, 0.999].map(|q| (place(q), format!("{} %", (q * 1000.0) / 10.0)));
            Figure {
                name: format!("percentiles-{}-{}{more}", step.kind, step.k),
                title: format!(
                    "Percentiles of the response time of / beside k = {} ({}{of}), all trials together",
                    step.k, step.kind
                ),
                x: Places { label: "share of requests that were faster".into(), ticks: ticks.into(), marks: Vec::new() },
                y: Scale { label: "response time of /".into(), ..Scale::response_time(Percentile::default()) },
                series: order.iter().filter_map(line).collect(),
            }
        };
        self.steps.iter().map(figure).collect()
    }
}

/// The times of one step of one server in all trials, and of how many of them a right answer is missing.
struct All {
    experiment: String,
    trials: usize,
    times: Times,
    unanswered: u64,
    youngest_us: f64,
}

fn add(merged: &mut BTreeMap<(Step, u64), All>, key: (Step, u64), experiment: &str, latency: &Latency) -> Result<()> {
    let (times, unanswered) = (latency.times()?, latency.unanswered);
    let youngest_us = if unanswered > 0 { latency.youngest_us.unwrap_or(0.0) } else { f64::INFINITY };
    match merged.get_mut(&key) {
        Some(all) => {
            all.trials += 1;
            all.times.add(&times).map_err(|error| anyhow::anyhow!("histograms of one round differ: {error}"))?;
            all.unanswered += unanswered;
            all.youngest_us = all.youngest_us.min(youngest_us);
        }
        None => {
            merged.insert(key, All { experiment: experiment.to_owned(), trials: 1, times, unanswered, youngest_us });
        }
    }
    Ok(())
}

/// The axis of percentiles: each nine takes the same room.
fn place(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

impl Merged {
    /// Only percentiles with enough samples beyond them; `invalid` counts the trials that were left out.
    fn of(All { trials, times, unanswered, youngest_us, .. }: &All, invalid: usize) -> Self {
        let has_enough = |q: &&f64| times.len() as f64 * (1.0 - **q) >= BEYOND - 1e-6;
        let point = |q: &f64| {
            let us = times.value_at_quantile(*q) as f64 / 1e3;
            (place(*q), us / 1e3, known(times, *unanswered, Some(*youngest_us), (*q, us)).is_open())
        };
        let counted = Counted { valid: *trials, all: trials + invalid };
        Merged { points: QUANTILES.iter().filter(has_enough).map(point).collect(), counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Recording;

    #[test]
    fn percentiles_stop_where_samples_end_and_bounds_say_so() {
        let mut times = Recording::default().response;
        (0..900).for_each(|_| times.record(1_000_000).unwrap());
        (0..100).for_each(|_| times.record(500_000_000).unwrap());
        let points =
            Merged::of(&All { experiment: String::new(), trials: 1, times, unanswered: 100, youngest_us: 500_000.0 }, 0).points;
        assert_eq!(points.len(), 9, "p99 is the last with ten samples beyond it: {points:?}");
        let (x, y, is_bound) = points[3];
        assert!((x - 0.301).abs() < 1e-3 && (y - 1.0).abs() < 0.01 && !is_bound, "the median is 1 ms");
        assert!(points[6].2 && (points[6].1 - 500.0).abs() < 1.0, "p95 is at least 500 ms");
    }

    #[test]
    fn an_answer_is_told_by_the_later_of_its_own_instant_and_the_answer_before() {
        let sample = |planned_us, response_us, is_answered, connection| Sample {
            planned: Duration::from_micros(planned_us),
            response: Duration::from_micros(response_us),
            is_answered,
            connection,
        };
        // The report's tests read the same bytes.
        let held = [
            sample(1000, 49_000, true, 0),
            sample(2000, 48_010, true, 1),
            sample(3000, 120, true, 2),
            sample(4000, 900, false, 3),
        ];
        assert_eq!(units(&held, true), [100, 100, 100, 100, 0x90, 0x99, 1, 4, 0xC2, 0x92, 1, 0xE9, 2, 0, 1, 2, 3]);
    }

    #[test]
    fn one_young_request_without_an_answer_moves_no_percentile_of_thousands() {
        let mut times = Recording::default().response;
        (0..30_000).for_each(|_| times.record(1_000_000).unwrap());
        let points = Merged::of(&All { experiment: String::new(), trials: 1, times, unanswered: 1, youngest_us: 10.0 }, 0).points;
        assert!(points.iter().all(|(.., is_bound)| !is_bound), "{points:?}");
    }
}
