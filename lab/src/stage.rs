//! The stage decides which server each pane keeps and which loads run, and makes the frames.

use crate::bounds::{Ask, PANES};
use crate::desk::{self, Desk};
use crate::load::{self, Plan};
use crate::pane::{Order, Pane, Report, Status, Targets};
use crate::shown::{Panes, Shown};
use anyhow::{Context, Result};
use bench::stage::{Event, Live, Placement, Server, find, interrupt, say, watch};
use serde::Serialize;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};

/// From one frame to the next.
const TICK: Duration = Duration::from_millis(50);
/// Frames from one list of panes to the next.
const PANES_EVERY: u64 = 10;
/// Without an open page, everything ends after this time: one that is loaded anew is back sooner.
const ALONE: Duration = Duration::from_secs(1);
/// The words of an order that failed stay this long: a pane reports several times a second that it serves, and nobody reads that fast.
const READ: Duration = Duration::from_secs(8);
/// Probes a second at first, for each pane.
const RATE: u32 = 100;

/// A page's request, and the channel for its answer.
pub struct Asked {
    /// The request.
    pub ask: Ask,
    /// An error in words, or that it is done.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// A message to all open pages.
#[derive(Debug, Clone)]
pub struct Message {
    /// `frame` or `panes`, or `missed` where a page has missed some of them.
    pub name: &'static str,
    /// JSON.
    pub text: String,
}

/// A pane's part of the stage.
struct Part {
    server: Server,
    processes: usize,
    /// The number of the order that started it.
    start: u64,
    status: Status,
    /// When the last order failed.
    failed: Instant,
    targets: Option<Targets>,
}

/// A load that runs.
struct Running {
    live: Live,
    kind: desk::Load,
}

/// The stage.
pub struct Stage {
    servers: Vec<Server>,
    first: Vec<String>,
    placement: Placement,
    parts: Vec<Part>,
    /// Counts the orders to start, so that late reports of a previous server are recognized.
    start: u64,
    threads: usize,
    processes: usize,
    rate: u32,
    blockers: (usize, u64, bool),
    running: Vec<Running>,
    /// Counts loads.
    loads: u32,
    live: Live,
    events: Receiver<Event>,
    desk: Desk,
    messages: broadcast::Sender<Message>,
    alone_since: Option<Instant>,
}

impl Stage {
    /// An empty stage: nothing starts before a page is open.
    pub fn new(servers: Vec<Server>, first: Vec<String>, messages: broadcast::Sender<Message>) -> Self {
        let (live, events) = watch();
        Stage {
            servers,
            first,
            placement: Placement::default_here(),
            parts: Vec::new(),
            start: 0,
            threads: 2,
            processes: 1,
            rate: RATE,
            blockers: (0, 500, false),
            running: Vec::new(),
            loads: 0,
            live,
            events,
            desk: Desk::default(),
            messages,
            alone_since: None,
        }
    }

    /// Runs until the lab is interrupted.
    ///
    /// # Errors
    /// The system has no thread for a pane.
    pub fn run(mut self, asked: &Receiver<Asked>) -> Result<()> {
        let (reports, reported) = channel();
        let panes = (0..PANES).map(|number| Pane::open(number, self.placement, reports.clone()));
        let panes: Vec<Pane> = panes.collect::<std::io::Result<_>>().context("cannot start a thread")?;
        let (ended, has_ended) = channel();
        let (mut next, mut frames) = (Instant::now(), 0_u64);
        while !interrupt::is_requested() {
            match asked.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Asked { ask, answer }) => {
                    // A page that has left does not wait for it.
                    let _ = answer.send(self.obey(&ask, &panes, &ended));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            next = (next + TICK).max(Instant::now());
            for report in reported.try_iter() {
                self.report(report, &ended);
            }
            // Events of a load count before its end does.
            let ends: Vec<u32> = has_ended.try_iter().collect();
            let events: Vec<Event> = self.events.try_iter().collect();
            events.iter().for_each(|event| self.desk.take(event));
            for source in ends {
                self.desk.end(source);
                let position = self.running.iter().position(|one| one.live.source == source);
                match position.map(|position| self.running.remove(position).kind) {
                    // Nobody has told these to end: the server went away while they began, or their time was up.
                    Some(desk::Load::Probes) => self.probe(&ended),
                    Some(desk::Load::Blockers) if !self.running.iter().any(|one| one.kind == desk::Load::Blockers) => {
                        self.block(&ended)
                    }
                    _ => {}
                }
            }
            self.attend(&panes);
            // A page that has just opened needs the list.
            if frames % PANES_EVERY == 0 {
                self.tell_panes();
            }
            frames += 1;
            self.tell_frame();
        }
        self.close(&panes);
        Ok(())
    }

    /// Begins when the first page opens, and ends everything when the last one has gone.
    fn attend(&mut self, panes: &[Pane]) {
        let has_page = self.messages.receiver_count() > 0;
        match (has_page, self.alone_since) {
            (true, _) => {
                self.alone_since = None;
                if self.parts.is_empty() && !self.first.is_empty() {
                    let first = self.first.clone();
                    if let Err(error) = self.show(&first, self.threads, self.processes, &[], panes) {
                        say(&format!("stallbench lab: {error}"));
                        self.first.clear();
                    }
                }
            }
            (false, None) => self.alone_since = Some(Instant::now()),
            (false, Some(since)) if since.elapsed() > ALONE && !self.parts.is_empty() => self.close(panes),
            (false, Some(_)) => {}
        }
    }

    fn close(&mut self, panes: &[Pane]) {
        // Whoever opens the page again has started none.
        self.blockers.0 = 0;
        self.running.drain(..).for_each(|one| one.live.end());
        self.parts.clear();
        self.start += 1;
        panes.iter().for_each(|pane| pane.order(self.start, Order::Stop));
        self.desk.reset(0);
    }

    fn obey(&mut self, ask: &Ask, panes: &[Pane], ended: &Sender<u32>) -> Result<(), String> {
        ask.check()?;
        match ask {
            Ask::Show { servers, threads, processes, each } => self.show(servers, *threads, *processes, each, panes)?,
            Ask::Rate { per_s } => {
                self.rate = *per_s;
                self.probe(ended);
            }
            Ask::Tabs { count, length_ms, spins } => {
                for pane in self.serving() {
                    let target = load::slow(&pane.1, *length_ms, *spins);
                    self.begin(Plan::Tabs(target, *count), &[pane.0], desk::Load::Tabs, ended);
                }
            }
            Ask::Blockers { count, length_ms, spins } => {
                self.blockers = (*count, *length_ms, *spins);
                self.block(ended);
            }
            Ask::Reload { pane } => {
                self.order(panes, *pane, || Order::Reload, |status| status.can_reload, "be reloaded")?;
            }
            Ask::Kill { pane } => {
                self.order(
                    panes,
                    *pane,
                    || Order::Kill,
                    |status| status.can_kill,
                    "lose a process that the lab has not started",
                )?;
            }
            Ask::Launch => self.order(panes, None, || Order::Launch, |_| true, "")?,
            Ask::Start { pane } => {
                let part = self.parts.get_mut(*pane).ok_or_else(|| format!("there is no pane {pane}"))?;
                self.start += 1;
                part.start = self.start;
                let order = Order::Start(Box::new(part.server.clone()), self.threads, part.processes);
                panes[*pane].order(self.start, order);
            }
        }
        self.tell_panes();
        Ok(())
    }

    /// Gives an order to a pane, or to every one that can obey; `what` is what the others cannot. One that has not served yet obeys when it does.
    /// What the order before could not do is of the past then.
    fn order(
        &mut self,
        panes: &[Pane],
        pane: Option<usize>,
        order: impl Fn() -> Order,
        can: impl Fn(&Status) -> bool,
        what: &str,
    ) -> Result<(), String> {
        if let Some(pane) = pane.filter(|pane| *pane >= self.parts.len()) {
            return Err(format!("there is no pane {pane}"));
        }
        let can = |status: &Status| can(status) || matches!(status.state, "building" | "starting");
        let able = |number: &usize| pane.is_none_or(|pane| pane == *number) && can(&self.parts[*number].status);
        let able: Vec<usize> = (0..self.parts.len()).filter(able).collect();
        if able.is_empty() && !self.parts.is_empty() {
            let one = |pane: usize| format!("{} cannot {what}", self.parts[pane].server.name);
            return Err(pane.map_or_else(|| format!("none of the servers can {what}"), one));
        }
        for number in able {
            let part = &mut self.parts[number];
            part.status.error = None;
            panes[number].order(part.start, order());
        }
        Ok(())
    }

    /// Other servers, or the same with other numbers of threads and processes.
    fn show(&mut self, names: &[String], threads: usize, processes: usize, each: &[usize], panes: &[Pane]) -> Result<(), String> {
        let chosen = names.iter().map(|name| find(&self.servers, name).map_err(|error| format!("{error:#}")));
        let chosen: Vec<Server> = chosen.collect::<Result<_, _>>()?;
        self.running.drain(..).for_each(|one| one.live.end());
        (self.threads, self.processes) = (threads, processes);
        self.start += 1;
        self.desk.reset(chosen.len());
        let status = || Status { state: "starting", ..Status::default() };
        let start = self.start;
        let parts = chosen.into_iter().enumerate().map(|(number, server)| {
            let processes = each.get(number).copied().unwrap_or(processes);
            Part { server, processes, start, status: status(), failed: Instant::now(), targets: None }
        });
        self.parts = parts.collect();
        self.first = names.to_vec();
        for (number, pane) in panes.iter().enumerate() {
            let order = match self.parts.get(number) {
                Some(part) => Order::Start(Box::new(part.server.clone()), threads, part.processes),
                None => Order::Stop,
            };
            pane.order(self.start, order);
        }
        self.tell_panes();
        Ok(())
    }

    /// Takes a pane's report, unless it is about a previous server.
    fn report(&mut self, report: Report, ended: &Sender<u32>) {
        let Some(part) = self.parts.get_mut(report.pane).filter(|part| part.start == report.start) else { return };
        let served = part.targets.is_some();
        let is_gone = matches!(report.status.state, "failed" | "stopped" | "building" | "starting");
        if report.status.error.is_some() {
            part.failed = Instant::now();
        }
        let error = error_after(&report.status, &part.status, part.failed.elapsed());
        let is_news =
            part.status.state != report.status.state || part.status.pids != report.status.pids || part.status.error != error;
        let is_news = is_news || report.status.launch.is_some();
        let launch = report.status.launch.clone().or(part.status.launch.take()).filter(|_| !is_gone);
        part.status = Status { error, launch, ..report.status };
        if is_gone {
            part.targets = None;
        }
        part.targets = report.targets.clone().or(part.targets.take());
        if report.targets.is_some() || served && is_gone {
            self.probe(ended);
            self.block(ended);
        }
        if is_news || report.targets.is_some() {
            self.tell_panes();
        }
    }

    fn serving(&self) -> Vec<(usize, Targets)> {
        self.parts.iter().enumerate().filter_map(|(number, part)| Some((number, part.targets.clone()?))).collect()
    }

    /// Sends probes to every pane that serves.
    fn probe(&mut self, ended: &Sender<u32>) {
        self.stop(desk::Load::Probes);
        let serving = self.serving();
        if serving.is_empty() {
            return;
        }
        let numbers: Vec<usize> = serving.iter().map(|(number, _)| *number).collect();
        let targets = serving.into_iter().map(|(_, targets)| targets.quick).collect();
        self.begin(Plan::Probes(targets, self.rate), &numbers, desk::Load::Probes, ended);
    }

    /// Keeps slow requests in flight on every pane that serves.
    fn block(&mut self, ended: &Sender<u32>) {
        self.stop(desk::Load::Blockers);
        let (count, length_ms, spins) = self.blockers;
        if count == 0 {
            return;
        }
        for (number, targets) in self.serving() {
            let target = load::slow(&targets, length_ms, spins);
            let plan = Plan::Blockers(target, count, Duration::from_millis(length_ms));
            self.begin(plan, &[number], desk::Load::Blockers, ended);
        }
    }

    fn stop(&mut self, kind: desk::Load) {
        for one in self.running.iter().filter(|one| one.kind == kind) {
            one.live.end();
            self.desk.end(one.live.source);
        }
        self.running.retain(|one| one.kind != kind);
    }

    fn begin(&mut self, plan: Plan, panes: &[usize], kind: desk::Load, ended: &Sender<u32>) {
        self.loads += 1;
        let live = self.live.of(self.loads);
        for (lane, pane) in panes.iter().enumerate() {
            self.desk.assign(live.source, lane, *pane, kind);
        }
        match load::start(plan, live.clone(), self.placement, ended.clone()) {
            Ok(()) => self.running.push(Running { live, kind }),
            Err(error) => say(&format!("stallbench lab: cannot start a thread: {error}")),
        }
    }

    fn tell_frame(&mut self) {
        let frame = self.desk.frame(self.live.now());
        self.tell("frame", &frame);
    }

    fn tell_panes(&self) {
        let shown = self.parts.iter().map(|part| Shown {
            name: &part.server.name,
            about: &part.server.about,
            runs_on: part.server.runs_on.replace("{W}", &self.threads.to_string()),
            is_own: part.server.own.is_some(),
            start: part.start,
            status: &part.status,
        });
        let panes = shown.collect();
        let servers = self.servers.iter().map(|server| (server.name.as_str(), server.about.as_str())).collect();
        let (threads, processes, rate, (blockers, length_ms, spins)) = (self.threads, self.processes, self.rate, self.blockers);
        self.tell("panes", &Panes { panes, servers, threads, processes, rate, blockers, length_ms, spins });
    }

    fn tell(&self, name: &'static str, content: &impl Serialize) {
        // Without a page nobody listens.
        if let Ok(text) = serde_json::to_string(content) {
            let _ = self.messages.send(Message { name, text });
        }
    }
}

/// The error that is shown after a report: its own, or for a while that of the report before.
fn error_after(now: &Status, before: &Status, age: Duration) -> Option<String> {
    let kept = before.error.as_ref().filter(|_| now.state == before.state && age < READ);
    now.error.as_ref().or(kept).cloned()
}

#[cfg(test)]
mod tests;
