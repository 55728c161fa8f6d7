//! The tables of a round: the headline first, then work instead of sleep, then what each server costs.

use super::numbers::{Cell, LIMITS_MS, Numbers, Percentile};
use super::{Table, count, ms, series, significant};
use crate::experiment::{ALL, Kind, Mode, Outcome, collateral::OWN};
use crate::round::{Entry, Round, Trial};
use crate::stats::Summary;
use anyhow::Result;
use std::cell::RefCell;
use std::cmp::Ordering;

/// Number of blockers at which the collateral factor is given: every mode of a round measures it.
const FACTOR_AT: usize = 4;

/// What throughput finds besides, unless the round is quick.
const DEEP: [&str; 3] = ["x16 CPU µs", "x16 user µs", "x16 req/s"];

/// All tables of a round.
///
/// # Errors
/// A histogram that cannot be read.
pub fn tables(round: &Round, percentile: Percentile) -> Result<Vec<Table>> {
    let report = Report { percentile, ..Report::new(round, Numbers::of(round, percentile)?) };
    let mut tables = Vec::new();
    if report.has("collateral") {
        tables.push(report.headline());
        tables.extend(round.header.settings.kinds.iter().map(|kind| report.blockers(*kind)));
    }
    if ["two-tabs", "throughput", "footprint"].into_iter().any(|name| report.has(name)) {
        tables.push(report.costs());
    }
    tables.extend(series::tables(&report));
    Ok(tables)
}

/// The headline table alone.
///
/// # Errors
/// A histogram that cannot be read.
pub fn headline(round: &Round) -> Result<Table> {
    Ok(Report::new(round, Numbers::of(round, Percentile::default())?).headline())
}

/// What tables of one round share.
pub struct Report<'r> {
    round: &'r Round,
    numbers: Numbers,
    /// Read from the histograms.
    pub percentile: Percentile,
    servers: Vec<&'r Entry>,
    /// Reasons of invalid cells, numbered as the tables show them.
    notes: RefCell<Vec<String>>,
}

impl<'r> Report<'r> {
    /// Over all servers of a round, the least harmed first.
    pub fn new(round: &'r Round, numbers: Numbers) -> Self {
        let mut servers: Vec<&Entry> = round.header.servers.iter().collect();
        servers.sort_by(|a, b| order(&numbers, &round.header.settings.blockers, a, b));
        Report { round, numbers, percentile: Percentile::default(), servers, notes: RefCell::default() }
    }

    /// Whether an experiment was run.
    pub fn has(&self, experiment: &str) -> bool {
        self.round.header.settings.experiments.iter().any(|one| one == experiment)
    }

    /// The median of a metric.
    pub fn median(&self, server: &str, metric: &str) -> Option<f64> {
        self.numbers.median(server, metric)
    }

    /// The sum of a metric over all trials.
    pub fn sum(&self, server: &str, metric: &str) -> f64 {
        self.numbers.values(server, metric).iter().sum()
    }

    fn headline(&self) -> Table {
        let settings = &self.round.header.settings;
        let mut columns = vec!["server".to_string(), "threads".into()];
        columns.extend(settings.blockers.iter().map(|k| format!("k={k}")));
        columns.extend(LIMITS_MS.map(limit_name));
        columns.push(format!("x k={FACTOR_AT}"));
        columns.extend(settings.tabs.first().map(|tabs| tab_columns(*tabs)).into_iter().flatten());
        columns.extend(["CPU µs", "MiB", "binary"].map(String::from));
        let title = format!(
            "{} of / in ms beside k requests that block for 100 ms (/sleep); the smallest k that freezes it at each limit; costs; W = {}, {}, {}",
            self.percentile,
            settings.threads,
            settings.placement,
            trials(settings.trials),
        );
        let mut table = self.table("headline", title, columns, |server| self.headline_row(server));
        table.is_stacked = true;
        table.notes.extend(self.servers.iter().filter_map(|server| remarks(server)));
        table.notes.extend(broken(&self.servers));
        table.notes.extend(settings.left_out.iter().map(|what| format!("left out: {what}")));
        table.notes.push(
            "threads: those that run handlers / those that may poll I/O, in each process; k (5/6): five of six trials; 10 s: measured by --thorough only".into(),
        );
        table.notes.push(format!(
            "x k={FACTOR_AT}: p99 with {FACTOR_AT} blockers over that with none; CPU µs: processor time of a request; MiB: memory when idle, and of the binary"
        ));
        table.notes.push("blockers are as long as the first limit, so one loop with k=1 stands on its edge".into());
        table
    }

    fn headline_row(&self, server: &Entry) -> Vec<String> {
        let settings = &self.round.header.settings;
        let name = server.name.as_str();
        let mut row = vec![threads(server)];
        let kind = kind(server);
        row.extend(settings.blockers.iter().map(|k| self.p99(name, kind, *k)));
        row.extend(LIMITS_MS.map(|limit| self.freeze(name, kind, limit)));
        row.push(self.factor(name, kind));
        row.extend(settings.tabs.first().map(|tabs| self.finish_times(name, *tabs)).into_iter().flatten());
        row.push(self.plain(name, "cpu_us[kept-alive]", "throughput"));
        row.push(self.plain(name, "idle_pss_mib", "footprint"));
        // The same in every trial.
        row.push(self.numbers.median(name, "binary_mib").map_or("–".into(), significant));
        row
    }

    /// One kind of blocker in detail, with intervals.
    fn blockers(&self, kind: Kind) -> Table {
        let settings = &self.round.header.settings;
        let loads: Vec<usize> = settings.blockers.iter().copied().filter(|k| *k > 0).collect();
        let mut columns = vec!["server".to_string()];
        columns.extend(loads.iter().map(|k| format!("k={k}")));
        columns.extend(LIMITS_MS[..2].iter().map(|limit| limit_name(*limit)));
        columns.extend(["dead", "fresh max", "recovery", "blockers/s"].map(String::from));
        let what = match kind {
            Kind::Sleep => "blocked threads (/sleep)",
            Kind::Cpu => "work (/timer?clock=cpu)",
            Kind::Pbkdf2 => "a function (/pbkdf2)",
        };
        let kind = kind.name();
        let title = format!(
            "Added {} of / in ms [95 % interval] beside k blockers of 100 ms: {what}; the smallest k that freezes it; from 'dead' on at k={FACTOR_AT}",
            self.percentile
        );
        self.table(kind, title, columns, |server| {
            let name = server.name.as_str();
            let mut row: Vec<String> = loads.iter().map(|k| self.added(name, kind, *k)).collect();
            row.extend(LIMITS_MS[..2].iter().map(|limit| self.freeze(name, kind, *limit)));
            let at = |metric: &str| format!("{metric}[{kind},{FACTOR_AT}]");
            row.push(self.show(name, &at("dead"), "collateral", |share| format!("{:.0} %", share * 100.0)));
            row.push(self.show(name, &at("fresh_max_ms"), "collateral", ms));
            row.push(self.show(name, &at("recovery_ms"), "collateral", ms));
            row.push(self.show(name, &at("blockers_per_s"), "collateral", significant));
            row
        })
    }

    /// Only what was measured has columns.
    fn costs(&self) -> Table {
        let tabs: &[usize] = if self.has("two-tabs") { &self.round.header.settings.tabs } else { &[] };
        let settings = &self.round.header.settings;
        // Rounds of before it could be left out say nothing about it.
        let is_quick = settings.mode == Mode::Quick;
        let is_pipelined = settings.is_pipelined && !is_quick;
        let (has_throughput, has_footprint) = (self.has("throughput"), self.has("footprint"));
        let mut columns = vec!["server".to_string()];
        if has_throughput {
            columns.extend(["CPU µs", "user µs", "req/s"].map(String::from));
            columns.extend(is_pipelined.then_some(DEEP.map(String::from)).into_iter().flatten());
            columns.extend((!is_quick).then(|| "offload µs".into()));
        }
        if has_footprint {
            columns.extend(["ready ms", "threads", "RSS MiB", "KiB/conn", "idle conns"].map(String::from));
        }
        columns.extend(tabs.iter().flat_map(|tabs| tab_columns(*tabs)));
        let title = "What it costs: server processor time per request, kept alive and 16 pipelined (split), and more for one that goes to a pool; weight, and per idle connection; finish times of tabs";
        let mut table = self.table("costs", title.into(), columns, |server| {
            let name = server.name.as_str();
            let mut row = Vec::new();
            if has_throughput {
                row.extend(self.throughput(name, "kept-alive"));
                if is_pipelined {
                    row.extend(self.throughput(name, "pipelined"));
                }
                if !is_quick {
                    row.push(self.plain(name, "offload_us", "throughput"));
                }
            }
            if has_footprint {
                let metrics = ["ready_ms", "threads", "idle_rss_mib", "connection_kib", "idle_connections"];
                let format = |metric: &str| if ["threads", "idle_connections"].contains(&metric) { count } else { significant };
                row.extend(metrics.map(|metric| self.show(name, metric, "footprint", format(metric))));
            }
            row.extend(tabs.iter().flat_map(|tabs| self.finish_times(name, *tabs)));
            row
        });
        table.is_stacked = true;
        table.notes.extend(self.servers.iter().filter_map(|server| self.cap(server)));
        table
    }

    /// Why a server had no more idle connections, if it had fewer than were tried.
    fn cap(&self, server: &Entry) -> Option<String> {
        let cap = |trial: &Trial| match &trial.outcome {
            Outcome::Footprint(footprint) if trial.server == server.name => footprint.cap.clone(),
            _ => None,
        };
        self.round.trials.iter().find_map(cap).map(|cap| format!("{}: no more idle connections: {cap}", server.name))
    }

    fn throughput(&self, name: &str, way: &str) -> [String; 3] {
        let plain = |metric: &str, format: fn(f64) -> String| self.show(name, &format!("{metric}[{way}]"), "throughput", format);
        let is_bound = self.numbers.median(name, &format!("driver_bound[{way}]")).is_some_and(|share| share > 0.0);
        let per_s = plain("per_s", significant);
        [plain("cpu_us", significant), plain("user_us", significant), if is_bound { format!(">= {per_s}") } else { per_s }]
    }

    /// A table with a row for each server; one that is unavailable says so.
    pub fn table(&self, name: &'static str, title: String, columns: Vec<String>, row: impl Fn(&Entry) -> Vec<String>) -> Table {
        self.notes.borrow_mut().clear();
        let mut notes = Vec::new();
        let mut rows = Vec::new();
        for server in &self.servers {
            let mut cells = vec![label(server)];
            if let Some(reason) = &server.unavailable {
                notes.push(format!("{}: unavailable({reason})", server.name));
                cells.resize(columns.len(), "unavailable".into());
            } else {
                cells.extend(row(server));
            }
            rows.push(cells);
        }
        notes.extend(self.notes.borrow().iter().enumerate().map(|(number, reason)| format!("({}) {reason}", number + 1)));
        Table { name, title, columns, rows, notes, ..Table::default() }
    }

    fn p99(&self, server: &str, kind: &str, k: usize) -> String {
        self.show(server, &self.percentile.metric(kind, k), "collateral", ms)
    }

    /// Added p99: with k blockers less without, the median over the round.
    fn added(&self, server: &str, kind: &str, k: usize) -> String {
        let base = self.numbers.median(server, &self.percentile.metric(kind, 0)).unwrap_or(0.0);
        let added = |value: f64| if value > 1000.0 { ms(value) } else { significant(value - base) };
        self.show(server, &self.percentile.metric(kind, k), "collateral", added)
    }

    /// The smallest k whose median p99 passes the limit, beside it how many trials froze if not all did, and the interval of the
    /// single trials' smallest k.
    fn freeze(&self, server: &str, kind: &str, limit_ms: f64) -> String {
        // Beyond the p99 at which k stopped to ascend nothing was measured; a thorough round has long blockers for it.
        let (kind, loads, at) = match limit_ms > 1000.0 {
            true => (format!("{kind}1000"), vec![1, 2, 4, 8, 16], " @ 1 s"),
            false => (kind.to_owned(), self.round.header.settings.blockers.clone(), ""),
        };
        let metric = |k: usize| self.percentile.metric(&kind, k);
        let loads: Vec<usize> = loads.into_iter().filter(|k| *k > 0).collect();
        let is_known = loads.iter().any(|k| self.numbers.median(server, &metric(*k)).is_some());
        if !is_known {
            return "–".into();
        }
        let interval = self.numbers.cell(server, &format!("freeze_k[{kind},{limit_ms}]"), "collateral").and_then(Cell::summary);
        let most = loads.iter().max().copied().unwrap_or(0);
        let beyond = |k: f64| if k.is_finite() { count(k) } else { format!("> {most}") };
        let interval = interval.map_or(String::new(), |summary| interval_of(&summary, beyond));
        match freezing(&self.numbers, server, metric, &loads, limit_ms) {
            Some((k, frozen, trials)) if frozen == trials => format!("{k}{at}{interval}"),
            Some((k, frozen, trials)) => format!("{k}{at} ({frozen}/{trials}){interval}"),
            None if loads.iter().any(|k| self.numbers.median(server, &metric(*k)).is_none()) => "–".into(),
            None => format!("> {most}{at}{interval}"),
        }
    }

    /// p99 with a few blockers divided by that without any: with the interval of the first over the median of the second.
    fn factor(&self, server: &str, kind: &str) -> String {
        let base = self.numbers.median(server, &self.percentile.metric(kind, 0));
        let factor = |value: f64| base.filter(|_| value.is_finite()).map_or("–".into(), |base| significant(value / base));
        self.show(server, &self.percentile.metric(kind, FACTOR_AT), "collateral", factor)
    }

    fn finish_times(&self, server: &str, tabs: usize) -> [String; 2] {
        ["first", "last"].map(|which| self.show(server, &format!("{which}_ms[{tabs}]"), "two-tabs", count))
    }

    fn plain(&self, server: &str, metric: &str, experiment: &str) -> String {
        self.show(server, metric, experiment, significant)
    }

    /// A cell as text: the median with its interval, `unsupported`, or `invalid` with a number that a note below explains.
    pub fn show(&self, server: &str, metric: &str, experiment: &str, format: impl Fn(f64) -> String) -> String {
        let entry = self.round.header.servers.iter().find(|entry| entry.name == server);
        if let Some(reason) = entry.and_then(|entry| entry.unsupported.get(experiment)) {
            return self.noted("unsupported", &format!("{server}: {experiment}: {reason}"));
        }
        let Some(cell) = self.numbers.cell(server, metric, experiment) else { return "–".into() };
        match (cell.summary(), cell.invalid.first()) {
            (Some(summary), _) => {
                // Fewer trials than the others had: some were invalid, or never got that far.
                let all = self.round.header.settings.trials as usize;
                let of_all = if summary.trials < all { format!(" ({}/{all})", summary.trials) } else { String::new() };
                format!("{}{of_all}{}", format(summary.median), interval_of(&summary, format))
            }
            (None, Some(reason)) => {
                // An experiment that was invalid as a whole says so once.
                let is_whole = self.numbers.cell(server, metric, metric).is_none();
                let at = metric.find('[').filter(|_| !is_whole).map_or("", |start| &metric[start..]);
                self.noted("invalid", &format!("{server} {experiment}{at}: invalid({reason})"))
            }
            (None, None) => "–".into(),
        }
    }

    fn noted(&self, word: &str, note: &str) -> String {
        let mut notes = self.notes.borrow_mut();
        let number = notes.iter().position(|known| known == note).unwrap_or_else(|| {
            notes.push(note.to_owned());
            notes.len() - 1
        });
        format!("{word} ({})", number + 1)
    }
}

/// The interval, unless all of it is the same word, such as "more than was measured".
fn interval_of(summary: &Summary, format: impl Fn(f64) -> String) -> String {
    let Some((low, high)) = summary.interval else { return String::new() };
    let is_word = |text: &str| !text.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    let (low, high) = (format(low), format(high));
    if low == high && is_word(&low) { String::new() } else { format!(" [{low}, {high}]") }
}

fn tab_columns(tabs: usize) -> [String; 2] {
    ["first", "last"].map(|which| format!("{which} of {tabs} tabs ms"))
}

fn limit_name(limit_ms: f64) -> String {
    format!("{} s", limit_ms / 1000.0)
}

/// The smallest k whose median p99 passes the limit, with the trials that passed it and all trials.
fn freezing(
    numbers: &Numbers,
    server: &str,
    metric: impl Fn(usize) -> String,
    loads: &[usize],
    limit_ms: f64,
) -> Option<(usize, usize, usize)> {
    let mut loads = loads.to_vec();
    loads.sort_unstable();
    loads
        .into_iter()
        .map_while(|k| {
            let values = numbers.values(server, &metric(k));
            let frozen = values.iter().filter(|value| **value > limit_ms).count();
            // Where nothing is known of a k, nothing can be said of the larger ones.
            Some((numbers.median(server, &metric(k))?, (k, frozen, values.len())))
        })
        .find_map(|(median, found)| (median > limit_ms).then_some(found))
}

/// The one whose blockers harm the others least stands first: by the geometric mean of p99 over all numbers of blockers, where
/// what passed the limit counts as twice the limit.
fn order(numbers: &Numbers, blockers: &[usize], a: &Entry, b: &Entry) -> Ordering {
    let harm = |server: &Entry| -> f64 {
        let metric = |k: usize| Percentile::default().metric(kind(server), k);
        let p99 = |k: &usize| numbers.median(&server.name, &metric(*k)).unwrap_or(f64::INFINITY);
        blockers.iter().filter(|k| **k > 0).map(|k| p99(k).min(2.0 * LIMITS_MS[1]).ln()).sum()
    };
    harm(a).total_cmp(&harm(b)).then_with(|| a.name.cmp(&b.name))
}

/// What a reader must know of a server besides its numbers.
fn remarks(server: &Entry) -> Option<String> {
    let status = server.receipt.as_ref().and_then(|receipt| receipt.knobs.get("status")).cloned();
    let remarks: Vec<String> = server.own.clone().into_iter().chain(status).collect();
    (!remarks.is_empty()).then(|| format!("{}: {}", server.name, remarks.join("; ")))
}

/// Those that cannot keep all of the contract, in one line.
fn broken(servers: &[&Entry]) -> Option<String> {
    // What concerns an experiment stands in its table.
    let lines = |server: &Entry| server.unsupported.keys().filter(|name| !ALL.contains(&name.as_str())).count();
    let some = servers.iter().filter(|server| lines(server) > 0);
    let each: Vec<String> = some.map(|server| format!("{} {}", server.name, lines(server))).collect();
    (!each.is_empty())
        .then(|| format!("so many lines of the contract they cannot keep (servers.toml says why): {}", each.join(", ")))
}

/// The blockers that the headline shows.
fn kind(server: &Entry) -> &'static str {
    if server.own.is_some() { OWN } else { "sleep" }
}

fn label(server: &Entry) -> String {
    if server.is_peer { format!("{} (peer)", server.name) } else { server.name.clone() }
}

/// Handler threads / threads that may poll I/O, for each process.
fn threads(server: &Entry) -> String {
    let short = |threads: &str| threads.replace(" per connection", "/conn");
    let Some(receipt) = &server.receipt else { return "–".into() };
    let (handlers, pollers) = (short(&receipt.handler_threads), short(&receipt.io_threads));
    match receipt.knobs.get("processes").map(String::as_str) {
        Some("1") | None => format!("{handlers} / {pollers}"),
        Some(processes) => format!("{processes} x {handlers} / {pollers}"),
    }
}

fn trials(count: u32) -> String {
    if count == 1 { "one trial".into() } else { format!("medians of {count} trials") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Settings;
    use crate::host::environment::Environment;
    use crate::round::Header;

    fn round(servers: &[&str]) -> Round {
        let entry = |name: &&str| Entry { name: (*name).into(), ..Entry::default() };
        let header = Header {
            schema: 1,
            started: String::new(),
            command: Vec::new(),
            settings: Settings::of(Mode::Standard, 2, 1),
            environment: Environment::default(),
            resumed: Vec::new(),
            servers: servers.iter().map(entry).collect(),
        };
        Round { folder: "made-up".into(), header, trials: Vec::new() }
    }

    fn report<'r>(round: &'r Round, cells: &[(&str, [f64; 6])]) -> Report<'r> {
        let mut numbers = Numbers::default();
        cells.iter().for_each(|(metric, values)| numbers.put("a", metric, values));
        Report::new(round, numbers)
    }

    #[test]
    fn added_p99_is_that_with_blockers_less_the_median_without() {
        let round = round(&["a"]);
        let report =
            report(&round, &[("p99_ms[0]", [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]), ("p99_ms[sleep,4]", [5.0, 6.0, 7.0, 7.0, 8.0, 9.0])]);
        assert_eq!(report.added("a", "sleep", 4), "5.00 [3.00, 7.00]");
        assert_eq!(report.factor("a", "sleep"), "3.50 [2.50, 4.50]");
    }

    #[test]
    fn the_freeze_threshold_is_that_of_the_medians_and_says_how_many_trials_froze() {
        let never = f64::INFINITY;
        let round = round(&["a"]);
        let cells = [
            ("p99_ms[sleep,1]", [50.0, 60.0, 70.0, 80.0, 90.0, 110.0]),
            ("p99_ms[sleep,2]", [90.0, 110.0, 120.0, 130.0, 140.0, 150.0]),
            ("p99_ms[sleep,4]", [200.0; 6]),
            ("p99_ms[sleep,16]", [never; 6]),
            ("p99_ms[sleep,64]", [never; 6]),
            ("freeze_k[sleep,100]", [4.0, 2.0, 2.0, 2.0, 2.0, 1.0]),
        ];
        assert_eq!(report(&round, &cells).freeze("a", "sleep", 100.0), "2 (5/6) [1, 4]");
        assert_eq!(report(&round, &cells[..1]).freeze("a", "sleep", 100.0), "–", "what follows is not known");
    }

    #[test]
    fn one_that_never_freezes_stands_first_and_its_threshold_beyond_the_last() {
        let round = round(&["a", "b"]);
        let mut numbers = Numbers::default();
        for k in [1, 2, 4, 16, 64] {
            numbers.put("b", &Percentile::default().metric("sleep", k), &[1.0; 6]);
            numbers.put("a", &Percentile::default().metric("sleep", k), &[500.0; 6]);
        }
        let report = Report::new(&round, numbers);
        assert_eq!(report.servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(report.freeze("b", "sleep", 100.0), "> 64");
    }
}
