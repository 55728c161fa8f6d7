//! The tables of a round: the headline first, then work instead of sleep, then what each server costs.

use super::numbers::{Cell, Numbers};
use super::{Table, ms, significant};
use crate::round::{Entry, Round};
use std::cell::RefCell;
use std::cmp::Ordering;

/// The limits of response-time research, in ms, with the names of DESIGN: instant, flow, attention.
pub const LIMITS_MS: [(f64, &str); 3] = [(100.0, "0.1 s"), (1000.0, "1 s"), (10_000.0, "10 s")];
/// Number of blockers at which the collateral factor is given: every mode of a round measures it.
const FACTOR_AT: usize = 4;

/// All tables of a round.
pub fn tables(round: &Round) -> Vec<Table> {
    let report = Report::new(round);
    let has = |names: &[&str]| round.header.settings.experiments.iter().any(|one| names.contains(&one.as_str()));
    let mut tables = Vec::new();
    if has(&["collateral"]) {
        tables.extend([report.headline(), report.blockers("sleep"), report.blockers("cpu")]);
    }
    if has(&["two-tabs", "throughput", "footprint"]) {
        tables.push(report.costs());
    }
    tables
}

/// The headline table alone.
pub fn headline(round: &Round) -> Table {
    Report::new(round).headline()
}

struct Report<'r> {
    round: &'r Round,
    numbers: Numbers,
    servers: Vec<&'r Entry>,
    /// Reasons of invalid cells, numbered as the tables show them.
    notes: RefCell<Vec<String>>,
}

impl<'r> Report<'r> {
    fn new(round: &'r Round) -> Self {
        let numbers = Numbers::of(round);
        let mut servers: Vec<&Entry> = round.header.servers.iter().collect();
        servers.sort_by(|a, b| order(&numbers, &round.header.settings.blockers, &a.name, &b.name));
        Report { round, numbers, servers, notes: RefCell::default() }
    }

    fn headline(&self) -> Table {
        let settings = &self.round.header.settings;
        let mut columns = vec!["server".to_string(), "threads".into()];
        columns.extend(settings.blockers.iter().map(|k| format!("k={k}")));
        columns.extend(LIMITS_MS.iter().map(|(_, name)| (*name).to_string()));
        columns.push(format!("x k={FACTOR_AT}"));
        columns.extend(settings.tabs.first().map(|tabs| format!("{tabs} tabs ms")));
        columns.extend(["CPU µs", "MiB", "binary"].map(String::from));
        let title = format!(
            "p99 of / in ms beside k requests that block for 100 ms (/sleep); the smallest k that freezes it at each limit; costs; W = {}, {}, {}",
            settings.threads,
            settings.placement,
            trials(settings.trials),
        );
        let mut table = self.table(title, columns, |server| self.headline_row(server));
        table.notes.extend(self.servers.iter().filter_map(|server| remarks(server)));
        table.notes.push(
            "threads: those that run handlers / those that may poll I/O, in each process; 10 s: measured by --thorough only"
                .into(),
        );
        table.notes.push("blockers are as long as the first limit, so one loop with k=1 stands on its edge".into());
        table
    }

    fn headline_row(&self, server: &Entry) -> Vec<String> {
        let settings = &self.round.header.settings;
        let name = server.name.as_str();
        let mut row = vec![threads(server)];
        row.extend(settings.blockers.iter().map(|k| self.p99(name, "sleep", *k)));
        row.extend(LIMITS_MS.iter().map(|(limit, _)| self.freeze(name, "sleep", *limit)));
        row.push(self.factor(name));
        row.extend(settings.tabs.first().map(|tabs| self.finish_times(name, *tabs)));
        row.push(self.plain(name, "cpu_us[kept-alive]", "throughput"));
        row.push(self.plain(name, "idle_pss_mib", "footprint"));
        row.push(self.plain(name, "binary_mib", "footprint"));
        row
    }

    /// One kind of blocker in detail, with intervals.
    fn blockers(&self, kind: &str) -> Table {
        let settings = &self.round.header.settings;
        let loads: Vec<usize> = settings.blockers.iter().copied().filter(|k| *k > 0).collect();
        let mut columns = vec!["server".to_string()];
        columns.extend(loads.iter().map(|k| format!("k={k}")));
        columns.extend(LIMITS_MS[..2].iter().map(|(_, name)| (*name).to_string()));
        columns.extend(["dead", "fresh max", "recovery", "blockers/s"].map(String::from));
        let what = if kind == "cpu" { "work (/timer?clock=cpu)" } else { "blocked threads (/sleep)" };
        let title = format!(
            "Added p99 of / in ms [95 % interval] beside k blockers of 100 ms: {what}; the smallest k that freezes it; from 'dead' on at k={FACTOR_AT}"
        );
        self.table(title, columns, |server| {
            let name = server.name.as_str();
            let mut row: Vec<String> = loads.iter().map(|k| self.added(name, kind, *k)).collect();
            row.extend(LIMITS_MS[..2].iter().map(|(limit, _)| self.freeze(name, kind, *limit)));
            let at = |metric: &str| format!("{metric}[{kind},{FACTOR_AT}]");
            row.push(self.show(name, &at("dead"), "collateral", |share| format!("{:.0} %", share * 100.0)));
            row.push(self.show(name, &at("fresh_max_ms"), "collateral", ms));
            row.push(self.show(name, &at("recovery_ms"), "collateral", ms));
            row.push(self.show(name, &at("blockers_per_s"), "collateral", significant));
            row
        })
    }

    fn costs(&self) -> Table {
        let tabs = &self.round.header.settings.tabs;
        let mut columns = vec!["server".to_string()];
        columns.extend(["CPU µs", "user µs", "req/s", "x16 CPU µs", "x16 user µs", "x16 req/s"].map(String::from));
        columns.extend(["ready ms", "threads", "RSS MiB", "KiB/conn", "idle conns"].map(String::from));
        columns.extend(tabs.iter().map(|tabs| format!("{tabs} tabs ms")));
        let title = "What it costs: server processor time per request, kept alive and 16 pipelined (split); weight, and per idle connection; finish times of tabs";
        self.table(title.into(), columns, |server| {
            let name = server.name.as_str();
            let mut row = Vec::new();
            for way in ["kept-alive", "pipelined"] {
                let plain = |metric: &str| self.plain(name, &format!("{metric}[{way}]"), "throughput");
                let is_bound = self.numbers.median(name, &format!("driver_bound[{way}]")).is_some_and(|share| share > 0.0);
                row.extend([plain("cpu_us"), plain("user_us")]);
                row.push(if is_bound { format!(">= {}", plain("per_s")) } else { plain("per_s") });
            }
            let whole = |count: f64| format!("{count:.0}");
            row.push(self.plain(name, "ready_ms", "footprint"));
            row.push(self.show(name, "threads", "footprint", whole));
            row.push(self.plain(name, "idle_rss_mib", "footprint"));
            row.push(self.plain(name, "connection_kib", "footprint"));
            row.push(self.show(name, "idle_connections", "footprint", whole));
            row.extend(tabs.iter().map(|tabs| self.finish_times(name, *tabs)));
            row
        })
    }

    /// A table with a row for each server; one that is unavailable says so.
    fn table(&self, title: String, columns: Vec<String>, row: impl Fn(&Entry) -> Vec<String>) -> Table {
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
        Table { title, columns, rows, notes }
    }

    fn p99(&self, server: &str, kind: &str, k: usize) -> String {
        self.show(server, &p99_metric(kind, k), "collateral", ms)
    }

    /// Added p99: with k blockers less without, pooled over the round.
    fn added(&self, server: &str, kind: &str, k: usize) -> String {
        let metric = p99_metric(kind, k);
        let Some(base) = self.numbers.median(server, "p99_ms[0]") else { return self.p99(server, kind, k) };
        let Some(summary) = self.numbers.cell(server, &metric, "collateral").and_then(Cell::summary) else {
            return self.p99(server, kind, k);
        };
        let added = |value: f64| if value > 1000.0 { ms(value) } else { significant(value - base) };
        match summary.interval {
            Some((low, high)) if summary.median <= 1000.0 => {
                format!("{} [{}, {}]", added(summary.median), added(low), added(high))
            }
            _ => added(summary.median),
        }
    }

    /// The smallest k whose median p99 passes the limit, and beside it how many trials froze if not all did.
    fn freeze(&self, server: &str, kind: &str, limit_ms: f64) -> String {
        // Beyond the p99 at which k stopped to ascend nothing was measured; a thorough round has long blockers for it.
        if limit_ms > 1000.0 {
            return self.freeze_long(server, kind, limit_ms);
        }
        let loads = self.round.header.settings.blockers.iter().filter(|k| **k > 0);
        match freezing(&self.numbers, server, kind, loads.clone(), limit_ms) {
            Some((k, frozen, trials)) if frozen == trials => k.to_string(),
            Some((k, frozen, trials)) => format!("{k} ({frozen}/{trials})"),
            None if loads.clone().any(|k| self.numbers.median(server, &p99_metric(kind, *k)).is_none()) => "–".into(),
            None => loads.max().map_or("–".into(), |most| format!("> {most}")),
        }
    }

    fn freeze_long(&self, server: &str, kind: &str, limit_ms: f64) -> String {
        let kind = format!("{kind}1000");
        let loads = [1, 2, 4, 8, 16];
        if self.numbers.median(server, &p99_metric(&kind, 1)).is_none() {
            return "–".into();
        }
        freezing(&self.numbers, server, &kind, loads.iter(), limit_ms).map_or("> 16 @ 1 s".into(), |(k, ..)| format!("{k} @ 1 s"))
    }

    fn factor(&self, server: &str) -> String {
        let base = self.numbers.median(server, "p99_ms[0]");
        let with = self.numbers.median(server, &p99_metric("sleep", FACTOR_AT));
        match (base, with) {
            (Some(base), Some(with)) if with.is_finite() => significant(with / base),
            _ => "–".into(),
        }
    }

    fn finish_times(&self, server: &str, tabs: usize) -> String {
        let first = self.show(server, &format!("first_ms[{tabs}]"), "two-tabs", |ms| format!("{ms:.0}"));
        let last = self.show(server, &format!("last_ms[{tabs}]"), "two-tabs", |ms| format!("{ms:.0}"));
        if first == last { first } else { format!("{first}, {last}") }
    }

    fn plain(&self, server: &str, metric: &str, experiment: &str) -> String {
        self.show(server, metric, experiment, significant)
    }

    /// A cell as text: the median, `unsupported`, or `invalid` with a number that a note below explains.
    fn show(&self, server: &str, metric: &str, experiment: &str, format: impl Fn(f64) -> String) -> String {
        let entry = self.round.header.servers.iter().find(|entry| entry.name == server);
        if let Some(reason) = entry.and_then(|entry| entry.unsupported.get(experiment)) {
            return self.noted("unsupported", &format!("{server}: {experiment}: {reason}"));
        }
        let Some(cell) = self.numbers.cell(server, metric, experiment) else { return "–".into() };
        match (cell.summary(), cell.invalid.first()) {
            // Fewer trials than the others had: some were invalid, or never got that far.
            (Some(summary), _) if summary.trials < self.round.header.settings.trials as usize => {
                format!("{} ({}/{})", format(summary.median), summary.trials, self.round.header.settings.trials)
            }
            (Some(summary), _) => format(summary.median),
            (None, Some(reason)) => {
                let at = metric.find('[').map_or("", |start| &metric[start..]);
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

fn p99_metric(kind: &str, k: usize) -> String {
    if k == 0 { "p99_ms[0]".into() } else { format!("p99_ms[{kind},{k}]") }
}

/// The smallest k whose median p99 passes the limit, with the trials that passed it and all trials.
fn freezing<'k>(
    numbers: &Numbers,
    server: &str,
    kind: &str,
    loads: impl Iterator<Item = &'k usize>,
    limit_ms: f64,
) -> Option<(usize, usize, usize)> {
    let mut loads: Vec<usize> = loads.copied().collect();
    loads.sort_unstable();
    loads
        .into_iter()
        .map_while(|k| {
            let metric = p99_metric(kind, k);
            let values = numbers.values(server, &metric);
            let frozen = values.iter().filter(|value| **value > limit_ms).count();
            // Where nothing is known of a k, nothing can be said of the larger ones.
            Some((numbers.median(server, &metric)?, (k, frozen, values.len())))
        })
        .find_map(|(median, found)| (median > limit_ms).then_some(found))
}

/// The one whose blockers harm the others least stands first: by the geometric mean of p99 over all numbers of blockers, where
/// what passed the limit counts as twice the limit.
fn order(numbers: &Numbers, blockers: &[usize], a: &str, b: &str) -> Ordering {
    let harm = |server: &str| -> f64 {
        let p99 = |k: &usize| numbers.median(server, &p99_metric("sleep", *k)).unwrap_or(f64::INFINITY);
        blockers.iter().filter(|k| **k > 0).map(|k| p99(k).min(2.0 * LIMITS_MS[1].0).ln()).sum()
    };
    harm(a).total_cmp(&harm(b)).then_with(|| a.cmp(b))
}

/// What a reader must know of a server besides its numbers.
fn remarks(server: &Entry) -> Option<String> {
    let status = server.receipt.as_ref().and_then(|receipt| receipt.knobs.get("status")).cloned();
    let lines: Vec<&str> = server.unsupported.keys().map(String::as_str).collect();
    let broken = (!lines.is_empty()).then(|| format!("keeps all of the contract but {}", lines.join(", ")));
    let remarks: Vec<String> = status.into_iter().chain(broken).collect();
    (!remarks.is_empty()).then(|| format!("{}: {}", server.name, remarks.join("; ")))
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
