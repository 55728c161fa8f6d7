//! What a page opens with: who freezes beside which kind of slow request, or what else was measured, in one sentence.

use crate::measure::Kind;
use crate::metrics::{Numbers, Percentile};
use crate::report::{Cell, Figure, Group, Table, significant};
use crate::round::Round;
use anyhow::Result;
use serde::Serialize;
use serde_json::Value as Json;

/// Servers that are shown at first, where the catalog tags them so.
const SHOWN: &str = "readme";
/// So few are all shown, since each has a colour; and as many where the catalog tags none.
const FEW: usize = 8;

/// A median below this part of the largest is no further from it than one at it: nothing is infinitely far from zero.
const LEAST_PART: f64 = 1e-4;

/// The first screen.
#[derive(Serialize)]
pub struct Opening {
    /// The heading of the first figure.
    heading: String,
    /// The result in one sentence, which is about the first kind of slow request if there are several.
    sentence: String,
    /// The same for the other kinds.
    others: Vec<String>,
    /// The round is about servers that freeze.
    is_about_freezing: bool,
    freezing: Vec<Freezing>,
}

/// Who freezes beside one kind of slow request.
#[derive(Serialize)]
pub struct Freezing {
    /// Its name, which the names of its figures contain.
    kind: &'static str,
    /// The requests or clients, in words.
    #[serde(skip)]
    beside: String,
    /// Groups that are not empty, the best first, each with its servers.
    groups: Vec<(&'static str, Vec<String>)>,
}

impl Opening {
    /// Returns the opening of a round that has these figures and tables.
    ///
    /// # Errors
    /// Settings that are not those of their experiment.
    pub fn of(round: &Round, numbers: &Numbers, figures: &[Figure], tables: &[Table]) -> Result<Self> {
        let freezing = freezing(round, numbers)?;
        let settings = &round.header.settings;
        let width = settings.conditions.threads;
        let is_about_freezing = !freezing.is_empty() || settings.is_own();
        let names: Vec<String> = settings.experiments().map(|(one, _)| one.name().replace('-', " ")).collect();
        let heading = if is_about_freezing { "Who freezes?".into() } else { format!("What was measured: {}", names.join(", ")) };
        let sentence = match freezing.first() {
            Some(first) => first.sentence(width),
            None => {
                let found = figures.first().map(of_figure).or_else(|| tables.iter().find_map(of_table));
                let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
                let servers = count(round.header.servers.len(), "server");
                let trials = count(settings.trials as usize, "trial");
                let counted = match round.trials_found() {
                    found if found < settings.trials => format!("{servers}, {found} of {trials} of each so far."),
                    _ => format!("{servers}, {trials} of each."),
                };
                found.map_or_else(|| counted.clone(), |found| format!("{found} {counted}"))
            }
        };
        let others = freezing.iter().skip(1).map(|one| one.sentence(width)).collect();
        Ok(Opening { heading, sentence, others, is_about_freezing, freezing })
    }
}

impl Freezing {
    /// The number of servers in each group.
    fn sentence(&self, width: usize) -> String {
        let count =
            |group: Group| self.groups.iter().find(|(name, _)| *name == group.name()).map_or(0, |(_, servers)| servers.len());
        let (never, late, once) = (count(Group::NeverFreezes), count(Group::FreezesLate), count(Group::FreezesAtOnce));
        let known = never + late + once;
        let (beside, servers) = (&self.beside, if known == 1 { "server" } else { "servers" });
        let freeze = if once == 1 { "freezes" } else { "freeze" };
        format!(
            "Beside {beside}, {once} of {known} {servers} {freeze} with at most {width} at a time, {late} with more, and {never} never."
        )
    }
}

/// Who freezes, for each kind of slow request that the round has.
///
/// # Errors
/// Settings that are not those of their experiment.
pub fn freezing(round: &Round, numbers: &Numbers) -> Result<Vec<Freezing>> {
    let settings = &round.header.settings;
    let mut all = Vec::new();
    for (one, own) in settings.experiments() {
        for kind in kinds(own) {
            let Some((_, threshold)) = one.criteria(own, kind, Percentile::default())?.into_iter().next() else { continue };
            let median = |name: &str| numbers.summary(name, &threshold).map(|summary| summary.median);
            let group = |name: &str| Group::of(median(name), settings.conditions.threads as u32);
            let servers: Vec<(Group, &String)> = round.header.servers.iter().map(|row| (group(&row.name), &row.name)).collect();
            let of = |wanted: Group| -> (&'static str, Vec<String>) {
                let own = servers.iter().filter(|(group, _)| *group == wanted);
                (wanted.name(), own.map(|(_, name)| (*name).clone()).collect())
            };
            let groups = [Group::NeverFreezes, Group::FreezesLate, Group::FreezesAtOnce, Group::Unknown].map(of);
            if servers.iter().any(|(group, _)| *group != Group::Unknown) {
                let groups = groups.into_iter().filter(|(_, servers)| !servers.is_empty()).collect();
                all.push(Freezing { kind: kind.name(), beside: beside(kind), groups });
            }
        }
    }
    Ok(all)
}

/// The kinds of slow requests in an experiment's settings.
fn kinds(settings: &Json) -> Vec<Kind> {
    settings.get("kinds").and_then(|kinds| serde_json::from_value(kinds.clone()).ok()).unwrap_or_default()
}

/// Slow requests of a kind in a few words; figures say it in full.
fn beside(kind: Kind) -> String {
    let place = match kind {
        Kind::Sleep => return "requests that sleep".into(),
        Kind::Cpu => return "requests that work".into(),
        Kind::Pbkdf2 => return "requests that derive keys".into(),
        Kind::LaunchesMemory => "memory",
        Kind::LaunchesSqlite => "SQLite",
        Kind::LaunchesSqliteFull => "SQLite, each on the disk",
        Kind::LaunchesPostgres => "PostgreSQL",
    };
    format!("clients that save launches in {place}")
}

/// The servers that are drawn in colour at first: all of a few, those that pages quote, or the first few.
pub fn shown<'n>(round: &Round, names: impl Iterator<Item = &'n str> + Clone) -> Vec<String> {
    let is_quoted = |name: &&str| {
        let row = round.header.servers.iter().find(|row| row.name == **name);
        row.is_some_and(|row| row.tags.iter().any(|tag| tag == SHOWN))
    };
    let quoted: Vec<String> = names.clone().filter(is_quoted).map(str::to_owned).collect();
    let is_few = names.clone().count() <= FEW;
    if is_few || quoted.is_empty() { names.take(FEW).map(str::to_owned).collect() } else { quoted }
}

/// The title of a figure, and the place at which its medians are furthest apart: a quotation, not a verdict. What rests on a part of the trials is not
/// quoted, and that some are left out is said.
fn of_figure(figure: &Figure) -> String {
    let at = |place: f64| {
        let own = figure.series.iter().filter_map(move |line| {
            let point = line.points.iter().find(|point| point.x == place)?;
            let bound = if point.is_bound { ">= " } else { "" };
            let amount = |value: f64| amount(value, figure.y.unit);
            let text = match point.heaps() {
                Some((low, high)) => format!("{} or {}", amount(low), amount(high)),
                None => format!("{bound}{}", amount(point.y)),
            };
            let has_invalid = point.counted.has_invalid();
            Some(Found { size: point.y, text, server: line.name.clone(), has_invalid })
        });
        own.collect::<Vec<Found>>()
    };
    let places = figure.x.ticks.iter().filter_map(|(place, word)| Some((Spread::of(at(*place))?, word)));
    let Some((spread, word)) = places.max_by(|(a, _), (b, _)| a.ratio.total_cmp(&b.ratio)) else {
        return format!("{}.", figure.title);
    };
    let place = if figure.x.label.is_empty() { word.clone() } else { format!("{} = {word}", figure.x.label) };
    let at = match (spread.is_wide() && figure.x.ticks.len() > 1, spread.is_of_all) {
        (true, true) => "The medians are furthest apart at",
        (true, false) => "Of servers whose trials are all valid, the medians are furthest apart at",
        (false, true) => "At",
        (false, false) => "Of servers whose trials are all valid, at",
    };
    format!("{}. {at} {place}: {}.", figure.title, spread.words)
}

/// What the first column of numbers says, for a round without a figure.
fn of_table(table: &Table) -> Option<String> {
    let cell = |line: &crate::report::Line, column: usize| {
        let Cell::Quantity(quantity) = line.cells.get(column)? else { return None };
        let text = line.cells[column].text(false, |_| None);
        let server = line.cells.first()?.text(false, |_| None).trim_end_matches(" ^").to_owned();
        Some(Found { size: quantity.summary.median.number()?, text, server, has_invalid: line.cells[column].has_invalid() })
    };
    let columns = table.columns.iter().enumerate().skip(1);
    let spreads = columns.filter_map(|(at, column)| {
        let found = table.lines.iter().filter_map(|line| cell(line, at)).collect();
        Some((&column.head, Spread::of(found)?))
    });
    let (head, spread) = spreads.into_iter().next()?;
    let title = first_clause(&table.title);
    let of = if spread.is_of_all { "" } else { ", of servers whose trials are all valid" };
    Some(format!("{title}. {head}{of}: {}.", spread.words))
}

/// A title up to its first colon or semicolon; those in parentheses do not end it.
fn first_clause(title: &str) -> &str {
    let mut depth = 0;
    let end = title.find(|letter: char| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        depth == 0 && matches!(letter, ':' | ';')
    });
    &title[..end.unwrap_or(title.len())]
}

/// What was found of one server.
struct Found {
    size: f64,
    text: String,
    server: String,
    /// Some of its trials are invalid.
    has_invalid: bool,
}

/// The smallest and the largest of what was found, in words.
struct Spread {
    /// The largest by the smallest.
    ratio: f64,
    words: String,
    /// Nothing was left out.
    is_of_all: bool,
}

impl Spread {
    /// Some servers differ.
    fn is_wide(&self) -> bool {
        self.ratio > 1.0
    }

    /// Leaves out what has invalid trials; `None` if there is nothing else.
    fn of(mut found: Vec<Found>) -> Option<Self> {
        let is_of_all = !found.iter().any(|one| one.has_invalid);
        found.retain(|one| !one.has_invalid);
        found.sort_by(|a, b| a.size.total_cmp(&b.size));
        let (low, high) = (found.first()?, found.last()?);
        let ratio = if high.size > low.size { high.size / low.size.max(high.size * LEAST_PART) } else { 1.0 };
        let name = |one: &Found| {
            let others = found.iter().filter(|other| other.text == one.text).count() - 1;
            let more = if others == 0 { String::new() } else { format!(" and {others} more") };
            format!("{} ({}{more})", one.text, one.server)
        };
        let words = if low.text == high.text { low.text.clone() } else { format!("{} to {}", name(low), name(high)) };
        Some(Spread { ratio, words, is_of_all })
    }
}

fn amount(value: f64, unit: &str) -> String {
    match unit {
        "ms" if value >= 1000.0 => format!("{} s", significant(value / 1e3)),
        "%" => format!("{:.0} %", value * 100.0),
        // A count.
        "" if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{} {unit}", significant(value)).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Counted, Places, Point, Scale, Series};

    fn found(all: &[(f64, &str)]) -> Vec<Found> {
        let one = |(size, server): &(f64, &str)| Found {
            size: *size,
            text: amount(*size, "ms"),
            server: (*server).into(),
            has_invalid: false,
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_spread_names_the_servers_at_its_ends_and_how_many_share_them() {
        let words = |all: &[(f64, &str)]| Spread::of(found(all)).unwrap().words;
        assert_eq!(words(&[(1200.0, "slow"), (3.0, "quick")]), "3.00 ms (quick) to 1.20 s (slow)");
        assert_eq!(words(&[(0.0, "a"), (0.0, "b"), (0.001, "c"), (7.0, "d")]), "0.00 ms (a and 2 more) to 7.00 ms (d)");
        assert_eq!(words(&[(3.0, "alone")]), "3.00 ms");
        assert!(Spread::of(Vec::new()).is_none());
    }

    #[test]
    fn a_sentence_names_the_kind_of_slow_request_that_it_counts() {
        let groups = vec![("never freezes", vec!["a".into(), "b".into()]), ("freezes at once", vec!["c".into()])];
        let one = Freezing { kind: "sleep", beside: beside(Kind::LaunchesPostgres), groups };
        let sentence = "Beside clients that save launches in PostgreSQL, 1 of 3 servers freezes with at most 2 at a time, 0 with more, and 2 never.";
        assert_eq!(one.sentence(2), sentence);
    }

    /// A figure of two servers at two places: at each of them the values of all trials of either, of which some are invalid.
    fn figure(places: [[(&[f64], usize); 2]; 2]) -> Figure {
        let point = |at: usize, (values, invalid): (&[f64], usize)| {
            let values: Vec<_> = values.iter().copied().map(crate::metrics::Value::Exact).collect();
            let valid = values.len();
            let summary = crate::metrics::Cell { values, ..Default::default() }.summary().unwrap();
            Point::of(at as f64, &summary, Counted { valid, all: valid + invalid }).unwrap()
        };
        let line = |server: usize| Series {
            name: ["quick", "slow"][server].into(),
            points: places.iter().enumerate().map(|(at, servers)| point(at, servers[server])).collect(),
        };
        Figure {
            name: "latency".into(),
            title: "Response time".into(),
            x: Places::even("k", &[1, 2]),
            y: Scale::linear("", "ms"),
            series: [0, 1].map(line).into(),
        }
    }

    #[test]
    fn a_server_of_which_trials_are_invalid_is_not_quoted() {
        let (whole, single): (&[f64], &[f64]) = (&[3.0; 6], &[599.0]);
        let far = [(&[0.38][..], 5), (single, 5)];
        let near = [(&[1.0; 6][..], 0), (whole, 0)];
        let sentence = of_figure(&figure([far, near]));
        assert_eq!(sentence, "Response time. The medians are furthest apart at k = 2: 1.00 ms (quick) to 3.00 ms (slow).");
        assert_eq!(of_figure(&figure([far, far])), "Response time.", "there is nothing to quote");
        let half = [(&[0.38][..], 5), (whole, 0)];
        let sentence = of_figure(&figure([half, half]));
        assert_eq!(sentence, "Response time. Of servers whose trials are all valid, at k = 2: 3.00 ms.");
    }

    #[test]
    fn both_heaps_of_a_server_are_quoted() {
        let place = [(&[1.0; 6][..], 0), (&[300.0, 300.0, 300.0, 600.0, 600.0, 600.0][..], 0)];
        let sentence = of_figure(&figure([place, place]));
        assert!(sentence.ends_with("1.00 ms (quick) to 300 ms or 600 ms (slow)."), "{sentence}");
    }

    #[test]
    fn a_title_is_not_cut_inside_a_parenthesis() {
        assert_eq!(first_clause("Waits (p99; ms: of all) of each: two rounds"), "Waits (p99; ms: of all) of each");
        assert_eq!(first_clause("Waits"), "Waits");
    }
}
