//! A handler that waits for another request: does any thread serve the other connection meanwhile?
//!
//! `/wait?t=` blocks its thread until `/release?t=` comes over another connection. Both connections have been used before, so what decides is who
//! polls I/O while a thread is blocked. It is the deadlock that tokio's maintainers test their eager handoff with, over HTTP.

use super::contract::{Choices, Experiment, trials};
use crate::catalog::{Program, Row, Server};
use crate::console::interrupt;
use crate::http::{Client, get};
use crate::measure::{Conditions, Mode, Session};
use crate::metrics::{Family, Metric, Percentile, Reading, Role, Unit, Value};
use crate::process::Running;
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::thread;
use std::time::Duration;

/// Values of W.
const WIDTHS: [usize; 3] = [1, 2, 4];
/// The longest wait, in ms: one that is not released by then is stuck.
const WAIT_MS: u64 = 300;
/// From the wait to its release. It is part of what is measured: threads that the wait has woken are asleep again, so what decides is who
/// polls I/O on a server that is idle but for the one that is blocked.
const LEAD: Duration = Duration::from_millis(5);
/// The body of a wait that was released.
const RELEASED: &[u8] = b"released\n";

const STUCK: Family = Family::new("stuck", Unit::Share, Role::Threshold);

/// One entry for each W.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rendezvous {
    sizes: Vec<Size>,
}

/// A number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Size {
    /// W.
    width: usize,
    /// Pairs of requests.
    pairs: u32,
    /// Those of which the first waited in vain.
    stuck: u32,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Values of W.
    widths: Vec<usize>,
    /// Pairs of requests at each.
    pairs: u32,
}

impl Experiment for Rendezvous {
    const NAME: &'static str = "rendezvous";
    const IS_TIMELESS: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        Settings { widths: WIDTHS.to_vec(), pairs: if mode == Mode::Quick { 10 } else { 20 } }
    }

    fn seconds(settings: &Settings) -> f64 {
        let each = WAIT_MS as f64 / 1e3 / 2.0;
        settings.widths.len() as f64 * (0.1 + f64::from(settings.pairs) * each)
    }

    fn unsupported(server: &Server, _: &Settings) -> Option<String> {
        let is_forked = server.args.iter().any(|argument| argument == "--processes");
        let has_routes = matches!(server.program, Program::Package(_)) && server.own.is_none();
        match (has_routes, is_forked) {
            (false, _) => Some("it has no /wait".into()),
            (_, true) => Some("the two requests may reach different processes, which share no condition".into()),
            _ => None,
        }
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let has_width = session.server.args.iter().any(|argument| argument.contains("{W}"));
        let mut sizes: Vec<Size> = Vec::new();
        for width in settings.widths.iter().copied() {
            // Without a number of threads, W changes nothing.
            if let Some(first) = sizes.first().filter(|_| !has_width) {
                sizes.push(Size { width, ..first.clone() });
                continue;
            }
            let conditions = Conditions { threads: width, ..session.conditions.clone() };
            let session = Session { conditions: &conditions, ..*session };
            let mut running = session.start()?;
            let stuck = stuck(&running, settings.pairs);
            sizes.push(Size { width, pairs: settings.pairs, stuck: running.explain(stuck)? });
        }
        Ok(Rendezvous { sizes })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let share = |size: &Size| Value::Exact(f64::from(size.stuck) / f64::from(size.pairs.max(1)));
        Ok(self.sizes.iter().map(|size| (metric(size.width), Ok(share(size)))).collect())
    }

    fn families(_: Percentile) -> Vec<Family> {
        vec![STUCK]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let columns = settings.widths.iter().map(|width| report::Column::number(format!("W={width}"))).collect();
        let title = format!(
            "A handler that waits for another request: the share of {} pairs that was stuck for {WAIT_MS} ms; {}",
            settings.pairs,
            trials(view)
        );
        let cells = |row: &Row| -> Vec<Cell> { settings.widths.iter().map(|width| view.cell(row, &metric(*width))).collect() };
        vec![view.table(Self::NAME, title, columns, cells)]
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let x = Places::even("threads (W)", &settings.widths);
        let title = format!("A handler that waits for another request: share of pairs that is stuck for {WAIT_MS} ms");
        let figure = view.figure(Self::NAME, title, x, Scale::linear("stuck", "%"), |at| metric(settings.widths[at]));
        figure.into_iter().collect()
    }
}

fn metric(width: usize) -> Metric {
    STUCK.at(Rendezvous::NAME, width.to_string())
}

/// Pairs, one after the other, each on two connections of its own; the number of those that were stuck.
fn stuck(running: &Running, pairs: u32) -> Result<u32> {
    let mut stuck = 0;
    for ticket in 1..=pairs {
        interrupt::check()?;
        let (mut first, mut second) = (Client::connect(running.address)?, Client::connect(running.address)?);
        first.ask(&get("/"))?;
        second.ask(&get("/"))?;
        first.send(&get(&format!("/wait?t={ticket}&ms={WAIT_MS}")))?;
        thread::sleep(LEAD);
        // The second may have been served before the first, and found nobody.
        while second.ask(&get(&format!("/release?t={ticket}")))?.status != 200 && !first.has_more() {
            thread::sleep(LEAD);
        }
        let waited = first.receive(false)?;
        if waited.status != 200 {
            bail!("/wait?ms={WAIT_MS} was answered {}: {}", waited.status, String::from_utf8_lossy(&waited.body).trim_end());
        }
        stuck += u32::from(waited.body != RELEASED);
    }
    Ok(stuck)
}
