//! The tables of the experiments that a standard round has not.

use super::headline::Report;
use super::numbers::{BEARABLE_MS, LIMITS_MS};
use super::{Table, count, ms, significant};
use crate::experiment::{blocking_functions, dose_response, latency, reload, scaling};

/// Those of the experiments that were run.
pub fn tables(report: &Report<'_>) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut add = |experiment, table: fn(&Report<'_>) -> Table| tables.extend(report.has(experiment).then(|| table(report)));
    add("dose-response", dose);
    add("blocking-functions", functions);
    add("latency", below_peak);
    add("scaling", sizes);
    add("reload", transparent);
    tables
}

fn dose(report: &Report<'_>) -> Table {
    let mut columns = vec!["server".to_string()];
    columns.extend(dose_response::LENGTHS_MS.map(|length| format!("T={length}")));
    columns.extend(BEARABLE_MS.map(|limit| format!("T for {limit} ms")));
    let title = format!(
        "{} of / in ms beside requests that work for T ms each and take {:.0} % of one processor together; the longest T that keeps it within a limit",
        report.percentile,
        dose_response::UTILISATION * 100.0
    );
    report.table("dose-response", title, columns, |server| {
        let show = |metric: String, format: fn(f64) -> String| report.show(&server.name, &metric, "dose-response", format);
        let lengths = dose_response::LENGTHS_MS.map(|length| show(format!("{}_ms[dose,{length}]", report.percentile), ms));
        let bearable = BEARABLE_MS.map(|limit| show(format!("bearable_ms[{limit}]"), length_ms));
        lengths.into_iter().chain(bearable).collect()
    })
}

/// A length of a blocker, in ms; none is shorter than the shortest.
fn length_ms(length: f64) -> String {
    if length == 0.0 { format!("< {}", dose_response::LENGTHS_MS[0]) } else { length.to_string() }
}

fn functions(report: &Report<'_>) -> Table {
    let mut columns = vec!["server".to_string()];
    columns.extend(blocking_functions::names().into_iter().flat_map(|name| [name.to_owned(), format!("/ beside {name}")]));
    let title = format!(
        "Blocking functions, {} a second each: how long one takes (median, ms), and {} of / meanwhile (ms, and how that feels)",
        blocking_functions::RATE,
        report.percentile
    );
    report.table("blocking-functions", title, columns, |server| {
        let show = |metric: String, format: fn(f64) -> String| report.show(&server.name, &metric, "blocking-functions", format);
        let names = blocking_functions::names().into_iter();
        let pair =
            |name| [show(format!("function_ms[{name}]"), ms), show(format!("{}_ms[function,{name}]", report.percentile), graded)];
        names.flat_map(pair).collect()
    })
}

/// A response time with what people feel of it.
fn graded(response_ms: f64) -> String {
    let words = ["instant", "flow", "attention", "lost"];
    let passed = LIMITS_MS.iter().filter(|limit| response_ms > **limit).count();
    format!("{} {}", ms(response_ms), words[passed])
}

fn below_peak(report: &Report<'_>) -> Table {
    let mut columns = vec!["server".to_string(), "peak req/s".into()];
    columns.extend(
        latency::SHARES
            .into_iter()
            .flat_map(|percent| [format!("p50 {percent} %"), format!("{} {percent} %", report.percentile)]),
    );
    let title = "Response time of / in ms at shares of the highest rate, on one core, with arrivals at random (>=: the driver was the limit)";
    report.table("latency", title.into(), columns, |server| {
        let show = |metric: String, format: fn(f64) -> String| report.show(&server.name, &metric, "latency", format);
        let is_bound = report.median(&server.name, "driver_bound[peak]").is_some_and(|share| share > 0.0);
        let peak = show("peak_per_s".into(), significant);
        let mut row = vec![if is_bound { format!(">= {peak}") } else { peak }];
        for percent in latency::SHARES {
            row.push(show(format!("p50_ms[share,{percent}]"), ms));
            row.push(show(format!("{}_ms[share,{percent}]", report.percentile), ms));
        }
        row
    })
}

fn sizes(report: &Report<'_>) -> Table {
    let widths = scaling::widths();
    let mut columns = vec!["server".to_string()];
    for what in ["freezes at", "work/s", "p99"] {
        columns.extend(widths.iter().map(|width| format!("{what} W={width}")));
    }
    let title = "Up or out: with W threads or processes, the smallest k of blockers of 100 ms (/sleep) that freezes / at 0.1 s; how many of 100 ms of work it does a second when asked for 16 at once, and p99 of / in ms meanwhile";
    report.table("scaling", title.into(), columns, |server| {
        let show = |metric: String, format: fn(f64) -> String| report.show(&server.name, &metric, "scaling", format);
        let freezing = widths.iter().map(|width| show(format!("freeze_k[width,{width}]"), k));
        let work = widths.iter().map(|width| show(format!("work_per_s[{width}]"), significant));
        let p99 = widths.iter().map(|width| show(format!("{}_ms[work,{width}]", report.percentile), ms));
        freezing.chain(work).chain(p99).collect()
    })
}

fn k(blockers: f64) -> String {
    if blockers.is_finite() { count(blockers) } else { format!("> {}", scaling::MOST) }
}

fn transparent(report: &Report<'_>) -> Table {
    let mut columns: Vec<String> = ["server", "first answer ms", "manager MiB"].map(String::from).into();
    columns
        .extend(reload::Act::ALL.iter().flat_map(|act| ["failed", "longest ms"].map(|what| format!("{}: {what}", act.name()))));
    columns.push("reload took ms".into());
    let title = "A cluster of two under a thousand requests a second, half on fresh connections, while its processes are replaced: how many failed in all trials, and the longest wait of those that did not";
    report.table("reload", title.into(), columns, |server| {
        let show = |metric: String, format: fn(f64) -> String| report.show(&server.name, &metric, "reload", format);
        let mut row = vec![show("first_answer_ms".into(), ms), show("manager_rss_mib".into(), significant)];
        for act in reload::Act::ALL {
            let name = act.name();
            // Of all trials: a median would hide what failed in one of them.
            let [failed, of] = ["failed", "requests"].map(|metric| report.sum(&server.name, &format!("{metric}[{name}]")));
            let has_none = of == 0.0;
            row.push(if has_none {
                show(format!("failed[{name}]"), count)
            } else {
                format!("{} of {}", count(failed), count(of))
            });
            row.push(show(format!("longest_ms[{name}]"), ms));
        }
        row.push(show("took_ms[reload]".into(), ms));
        row
    })
}
