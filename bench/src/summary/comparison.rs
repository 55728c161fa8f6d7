//! Two measurements side by side: what differs by more than noise, as a table, and the gates that fail.

use super::told::apart;
use super::untold;
use super::{gates as judging, missing};
use crate::catalog::{Filter, takes_metric};
use crate::metrics::{Cell as Measured, Change, Metric, Numbers, Role, Summary, Unit};
use crate::report::{self, Cell, Column, Line, Quantity, Table, significant};
use crate::stats::geometric_mean;
use crate::verdict::drift::{self, Drift};
use crate::verdict::gate::Gate;
use crate::verdict::noise::Noise;
use crate::verdict::{self, Pair};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// From here on a change is a factor.
const FACTOR: f64 = 10.0;

/// Names of both sides, and of the servers in them.
pub struct Sides<'s> {
    /// The first side's numbers, and its name.
    pub before: (&'s Numbers, &'s str),
    /// The second's.
    pub after: (&'s Numbers, &'s str),
    /// Each server's label, its name in the first, and its name in the second.
    pub servers: Vec<(String, String, String)>,
    /// The drift of each family between the two, where they were measured at two times.
    pub drift: BTreeMap<String, Drift>,
    /// Costs cannot be judged: the machine cannot be told from the servers.
    pub cannot_judge_costs: bool,
}

/// A comparison of two measurements.
#[derive(Serialize)]
pub struct Comparison {
    before: String,
    after: String,
    pub(super) lines: Vec<Judged>,
    /// What a gate is about, and the second side has lost.
    missing: Vec<String>,
    /// What gates say of numbers of the second side alone.
    alone: Vec<String>,
    pub(super) notes: Vec<String>,
    #[serde(skip)]
    is_corrected: bool,
    /// The gate that no cell can fail, if there is one.
    #[serde(skip)]
    wrong_gate: Option<anyhow::Error>,
}

#[derive(Serialize)]
pub(super) struct Judged {
    pub(super) server: String,
    pub(super) metric: String,
    #[serde(skip)]
    pub(super) unit: Unit,
    #[serde(flatten)]
    pub(super) comparison: verdict::Comparison,
    /// Whether it was judged at all.
    pub(super) is_judged: bool,
    /// Pairs of trials, one of each side, of which the second is on the side that most are on; and all pairs.
    pub(super) apart: (usize, usize),
    /// The gates that this cell fails.
    failed: Vec<String>,
}

/// Compares the cells that both sides have. A gate fails on a cell that the second has lost, and an absolute one also on a cell that the first lacks.
///
/// # Errors
/// No cell in common.
pub fn compare(sides: &Sides<'_>, noise: &Noise, gates: &[Gate], filters: &[Filter], notes: Vec<String>) -> Result<Comparison> {
    let cells = common_cells(sides, filters);
    let lost = missing::missing(sides, filters);
    let left: BTreeSet<&str> = cells.iter().map(|(server, ..)| server.as_str()).collect();
    let missing = missing::in_words(&lost, gates, &left);
    let singles = judging::singles(sides, filters);
    let alone = judging::failed_singles(gates, &singles);
    let is_gated = singles.iter().any(|single| gates.iter().any(|gate| single.is_of(gate)));
    if cells.is_empty() && missing.is_empty() && !is_gated {
        bail!("{} and {} have no server and metric in common", sides.before.1, sides.after.1);
    }
    let pairs: Vec<Pair<'_>> = cells
        .iter()
        .map(|(_, metric, before, after)| Pair {
            metric,
            before: (*before).clone(),
            after: drift::without(sides.drift.get(metric.family.name.as_ref()), after),
        })
        .collect();
    let judged = verdict::judge(&pairs, noise);
    let lines = cells.iter().zip(&pairs).zip(judged).filter_map(|(((server, metric, _, after), pair), comparison)| {
        let mut comparison = comparison?;
        let is_judged = !(sides.cannot_judge_costs && metric.family.role == Role::Cost);
        comparison.differs &= is_judged;
        let mut judged = Judged {
            server: server.clone(),
            metric: metric.to_string(),
            unit: metric.family.unit,
            comparison,
            is_judged,
            apart: apart(&pair.before.values, &pair.after.values),
            failed: Vec::new(),
        };
        let raw = after.summary().map(|summary| summary.median);
        judged.failed = judging::failed(gates, metric, raw, &judged);
        Some(judged)
    });
    let lines: Vec<Judged> = lines.collect();
    let metrics: Vec<&Metric> = cells.iter().map(|(_, metric, ..)| *metric).collect();
    let of_cells: Vec<(&Metric, &Judged)> = metrics.iter().copied().zip(&lines).collect();
    let wrong_gate = judging::check(gates, &of_cells, &singles, &lost).err();
    let (lone, open) = (untold::alone(&of_cells), judging::open_note(gates, &of_cells));
    let is_corrected = sides.drift.values().any(|drift| drift.servers >= drift::LEAST_SERVERS);
    let (before, after) = (sides.before.1.into(), sides.after.1.into());
    let mut comparison = Comparison { before, after, lines, missing, alone, notes, is_corrected, wrong_gate };
    for (count, one, other) in [(missing::of_first(&lost), "first", "second"), (singles.len(), "second", "first")] {
        if count > 0 {
            comparison.notes.push(format!("{count} cells of the {one} have no number in the {other}"));
        }
    }
    comparison.notes.extend(drift_note(sides));
    comparison.notes.extend(comparison.means(&metrics));
    comparison.notes.extend(lone);
    comparison.notes.extend(open);
    comparison.notes.push(format!(
        "~: no difference by the exact rank-sum test (5 %, Benjamini-Hochberg over each family) that exceeds noise; {}",
        noise.note()
    ));
    Ok(comparison)
}

type Common<'s> = (String, &'s Metric, &'s Measured, &'s Measured);

fn common_cells<'s>(sides: &'s Sides<'_>, filters: &[Filter]) -> Vec<Common<'s>> {
    let mut cells = Vec::new();
    for (label, before, after) in &sides.servers {
        for (metric, cell) in sides.before.0.of_server(before) {
            if metric.family.role == Role::Detail || !takes_metric(filters, &metric.to_string()) {
                continue;
            }
            let other = sides.after.0.cell(after, metric).filter(|other| !other.values.is_empty());
            if let (Some(other), false) = (other, cell.values.is_empty()) {
                cells.push((label.clone(), metric, cell, other));
            }
        }
    }
    cells
}

/// What moved all servers alike, family by family.
fn drift_note(sides: &Sides<'_>) -> Vec<String> {
    let factor = |(family, drift): (&String, &Drift)| {
        let factor = drift.log_factor.exp();
        let direction = if factor >= 1.0 { "more" } else { "less" };
        format!("{family} x {factor:.2} ({direction} in the second, over {} servers)", drift.servers)
    };
    if sides.drift.is_empty() {
        return Vec::new();
    }
    if sides.cannot_judge_costs {
        return vec![format!(
            "costs are not judged: the rounds share fewer than {} servers, so a slower machine cannot be told from slower servers; `stallbench ab` interleaves both",
            drift::LEAST_SERVERS
        )];
    }
    let factors: Vec<String> =
        sides.drift.iter().filter(|(_, drift)| drift.servers >= drift::LEAST_SERVERS).map(factor).collect();
    vec![format!("machine: taken out of the second before anything is judged: {}", factors.join(", "))]
}

impl Comparison {
    /// Whether what the machine did to all servers alike was taken out of the second side's values.
    pub fn is_corrected(&self) -> bool {
        self.is_corrected
    }

    /// The gates that failed.
    pub fn failed(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().flat_map(|line| &line.failed).chain(&self.missing).chain(&self.alone)
    }

    /// Refuses a gate that covers nothing, or rests on too few trials: after the result is shown, which it must not cost.
    ///
    /// # Errors
    /// There is one.
    pub fn check_gates(&mut self) -> Result<()> {
        self.wrong_gate.take().map_or(Ok(()), Err)
    }

    /// Server and metric of every cell that differs.
    pub fn differing(&self) -> Vec<String> {
        let differing = self.lines.iter().filter(|line| line.comparison.differs);
        differing.map(|line| format!("{} {}", line.server, line.metric)).collect()
    }

    /// Names of all metrics that were compared.
    pub fn metrics(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for line in &self.lines {
            if !names.contains(&line.metric) {
                names.push(line.metric.clone());
            }
        }
        names
    }

    /// The overall change by family: only over cells with a ratio, and only a summary.
    fn means(&self, metrics: &[&Metric]) -> Option<String> {
        let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut without = 0;
        for (metric, line) in metrics.iter().zip(&self.lines) {
            match line.comparison.change {
                Change::Ratio(ratio) if ratio > 0.0 => ratios.entry(&metric.family.name).or_default().push(ratio),
                _ => without += 1,
            }
        }
        let means: Vec<String> = ratios
            .iter()
            .filter_map(|(family, ratios)| Some(format!("{family} x {:.2} ({})", geometric_mean(ratios)?, ratios.len())))
            .collect();
        let rest = if without > 0 { format!("; {without} cells without a ratio are left out") } else { String::new() };
        (!means.is_empty()).then(|| {
            format!("geometric mean of the changes (number of cells): {}{rest}; it hides which server changed", means.join(", "))
        })
    }

    /// The cells that differ, or all of them.
    pub fn table(&self, all: bool) -> Table {
        let columns = vec![
            Column::words("server"),
            Column::words("metric"),
            Column::number("before"),
            Column::number("after"),
            Column::number("change"),
            Column::number("noise"),
            Column::number("p"),
        ];
        let differs = self.lines.iter().filter(|line| line.comparison.differs).count();
        let mut notes = self.notes.clone();
        let hint = if all { "" } else { "; --all shows the others too" };
        notes.insert(0, format!("{differs} of {} cells differ{hint}", self.lines.len()));
        let shown = self.lines.iter().filter(|line| all || line.comparison.differs);
        Table {
            name: "compare",
            title: format!("{} -> {}: medians [95 % interval]", self.before, self.after),
            columns,
            lines: shown.map(line).collect(),
            notes,
            ..Table::default()
        }
    }
}

fn line(judged: &Judged) -> Line {
    let one = &judged.comparison;
    let quantity = |summary: Summary| {
        Cell::Quantity(Quantity { summary, unit: judged.unit, marks: Vec::new(), expected: None, is_felt: false })
    };
    let cells = vec![
        Cell::words(judged.server.clone()),
        Cell::words(judged.metric.clone()),
        quantity(one.before),
        quantity(one.after),
        Cell::words(verdict_of(judged)),
        Cell::words(one.noise.map_or("exact test".into(), |ratio| format!("x {}", significant(ratio)))),
        Cell::words(format!("{:.4}", one.p)),
    ];
    Line { group: None, cells }
}

/// What is said of a cell.
pub(super) fn verdict_of(judged: &Judged) -> String {
    let one = &judged.comparison;
    match (judged.is_judged, one.can_differ, one.differs) {
        (false, ..) => "not judged".into(),
        (_, false, _) => "cannot tell".into(),
        (_, _, true) => words(one, judged.unit),
        _ => "~".into(),
    }
}

/// A change in words, each kind by its own.
///
/// A time that is not reached was not measured, since fewer blockers had frozen the server; a threshold that is not reached is an improvement.
pub fn words(comparison: &verdict::Comparison, unit: Unit) -> String {
    let is_threshold = unit == Unit::Blockers;
    match comparison.change {
        Change::Ratio(ratio) => by(ratio),
        Change::FromZero(after) => format!("from 0 to {}", significant(after)),
        Change::RatioAtLeast(ratio) => format!("at least {}", by(ratio)),
        Change::RatioAtMost(ratio) => format!("at most {}", by(ratio)),
        Change::NoLongerReached if is_threshold => "no longer freezes".into(),
        Change::NoLongerReached => "frozen now".into(),
        Change::ReachedNow if is_threshold => "freezes now".into(),
        Change::ReachedNow => "no longer frozen".into(),
        Change::Unknown => "unknown".into(),
    }
}

/// A ratio as a change in percent, or as a factor where percents would have many digits.
fn by(ratio: f64) -> String {
    if ratio < FACTOR { format!("{:+.0} %", (ratio - 1.0) * 100.0) } else { format!("x {}", significant(ratio)) }
}

/// Servers that only one side has.
pub fn only_in_one(before: &Numbers, after: &Numbers) -> Vec<String> {
    let only = |a: &Numbers, b: &Numbers| -> Vec<String> {
        let theirs: BTreeSet<&str> = b.servers().collect();
        a.servers().filter(|server| !theirs.contains(server)).map(str::to_owned).collect()
    };
    let (in_a, in_b) = (only(before, after), only(after, before));
    let mut notes = Vec::new();
    notes.extend((!in_a.is_empty()).then(|| format!("missing in the second: {}", in_a.join(", "))));
    notes.extend((!in_b.is_empty()).then(|| format!("missing in the first: {}", in_b.join(", "))));
    notes
}

/// Writes a comparison as a table in a format.
///
/// # Errors
/// A table that the format cannot hold.
pub fn render(comparisons: &[Comparison], all: bool, format: report::Format, terminal: &report::Terminal) -> Result<String> {
    if format == report::Format::Json {
        return Ok(serde_json::to_string_pretty(comparisons)? + "\n");
    }
    let tables: Vec<Table> = comparisons.iter().map(|one| one.table(all)).collect();
    // Intervals are the point here.
    report::render(&tables, format, &report::Terminal { intervals: true, ..*terminal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Value;

    fn said(before: Value, after: Value, unit: Unit) -> String {
        let summary = |median| Summary { median, interval: None, trials: 7, heaps: None };
        let (before, after) = (summary(before), summary(after));
        let change = Change::between(before.median, after.median);
        let comparison =
            verdict::Comparison { before, after, change, p: 0.0, least_p: 0.0, noise: None, can_differ: true, differs: true };
        words(&comparison, unit)
    }

    #[test]
    fn each_kind_of_change_has_its_own_words() {
        use Value::{AtLeast, Exact, Never, NotReached};
        let never = Never { tried: 64.0 };
        assert_eq!(said(Exact(1.0), Exact(1.5), Unit::Ms), "+50 %");
        assert_eq!(said(Exact(0.07), Exact(60.0), Unit::Ms), "x 857");
        assert_eq!(said(Exact(0.0), Exact(1.95), Unit::Ms), "from 0 to 1.95");
        assert_eq!(said(Exact(100.0), AtLeast(504.0), Unit::Ms), "at least +404 %");
        assert_eq!(said(Exact(0.1), NotReached, Unit::Ms), "frozen now");
        assert_eq!(said(NotReached, Exact(0.1), Unit::Ms), "no longer frozen");
        assert_eq!(said(never, Exact(2.0), Unit::Blockers), "freezes now");
        assert_eq!(said(Exact(2.0), never, Unit::Blockers), "no longer freezes");
    }
}
