//! A pane: a thread that keeps one server. The kernel ends a server with the thread that started it, so the thread lives as long as the lab.

use bench::stage::{Kept, Placement, Server, Target, build};
use serde::Serialize;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Interval at which a pane checks that its server runs, and which processes serve.
const LOOK: Duration = Duration::from_millis(250);

/// An order to a pane.
#[derive(Debug)]
pub enum Order {
    /// Keep this server, instead of the one before.
    Start(Box<Server>, usize, usize),
    /// Replace its processes.
    Reload,
    /// Kill one of them.
    Kill,
    /// Save a launch, and look for it on other connections.
    Launch,
    /// End it.
    Stop,
}

/// A pane's status.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// `building`, `starting`, `serving`, `reloading`, `failed` or `stopped`.
    pub state: &'static str,
    /// The reason why it failed, or why the last order did.
    pub error: Option<String>,
    /// The processes that serve.
    pub pids: Vec<i32>,
    /// The status that each of them reports of itself, if it does.
    pub says: Vec<Option<String>>,
    /// It can be reloaded.
    pub can_reload: bool,
    /// Its processes are the lab's to kill.
    pub can_kill: bool,
    /// What became of the last launch, in words.
    pub launch: Option<String>,
}

/// The targets of a pane's requests.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The quick page.
    pub quick: Target,
    /// A user's own slow page; ours are asked for by length.
    pub slow: Option<Target>,
}

/// A report of a pane, by its number.
#[derive(Debug)]
pub struct Report {
    /// The pane.
    pub pane: usize,
    /// The number of the order to start that it is about.
    pub start: u64,
    /// Its status.
    pub status: Status,
    /// The targets of requests, once it serves.
    pub targets: Option<Targets>,
}

/// The end of a pane that takes orders; dropped, it waits until the pane's server has ended.
pub struct Pane {
    orders: Option<Sender<(u64, Order)>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Pane {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pane {
    /// Starts the thread of a pane.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn open(number: usize, placement: Placement, reports: Sender<Report>) -> std::io::Result<Self> {
        let (orders, ordered) = channel();
        let keeper = Keeper { number, placement, reports, start: 0, kept: None };
        let thread = thread::Builder::new().name(format!("pane-{number}")).spawn(move || keeper.run(&ordered))?;
        Ok(Pane { orders: Some(orders), thread: Some(thread) })
    }

    /// Gives an order; `start` counts the orders to start.
    pub fn order(&self, start: u64, order: Order) {
        // A pane that is gone takes none.
        let _ = self.orders.as_ref().map(|orders| orders.send((start, order)));
    }
}

struct Keeper {
    number: usize,
    placement: Placement,
    reports: Sender<Report>,
    start: u64,
    kept: Option<Kept>,
}

impl Keeper {
    fn run(mut self, orders: &Receiver<(u64, Order)>) {
        loop {
            match orders.recv_timeout(LOOK) {
                Ok((start, order)) => {
                    self.start = start;
                    self.obey(order);
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.end();
    }

    fn end(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.end();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Start(server, threads, processes) => {
                self.end();
                self.say("building", None, None);
                let built = build(std::slice::from_ref(&*server));
                self.say("starting", None, None);
                match built.and_then(|()| self.begin(&server, threads, processes)) {
                    Ok(targets) => self.say("serving", None, Some(targets)),
                    Err(error) => {
                        self.end();
                        self.say("failed", Some(format!("{error:#}")), None);
                    }
                }
            }
            Order::Stop => {
                self.end();
                self.say("stopped", None, None);
            }
            Order::Reload | Order::Kill | Order::Launch => {
                // One that has failed stays so, with its reason.
                let Some(kept) = &mut self.kept else { return };
                let done = match order {
                    Order::Kill => kept.kill_worker(),
                    Order::Launch => {
                        let launch = kept.launch().map_or_else(|error| format!("{error:#}"), |launch| launch.to_string());
                        self.report("serving", None, None, Some(launch));
                        return;
                    }
                    _ => {
                        self.say("reloading", None, None);
                        self.kept.as_ref().map_or(Ok(()), Kept::reload)
                    }
                };
                self.say("serving", done.err().map(|error| format!("{error:#}")), None);
            }
        }
    }

    fn begin(&mut self, server: &Server, threads: usize, processes: usize) -> anyhow::Result<Targets> {
        let kept = self.kept.insert(Kept::start(server, threads, processes, self.placement)?);
        if server.own.is_some() {
            let (quick, slow) = kept.own_targets(server)?;
            return Ok(Targets { quick, slow: Some(slow) });
        }
        Ok(Targets { quick: kept.target("/")?, slow: None })
    }

    /// Checks that it runs, and reports which processes serve: the supervisor replaces them by itself.
    fn look(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        match kept.ended() {
            Some(how) => {
                self.end();
                self.say("failed", Some(how), None);
            }
            None => self.say("serving", None, None),
        }
    }

    fn say(&mut self, state: &'static str, error: Option<String>, targets: Option<Targets>) {
        self.report(state, error, targets, None);
    }

    fn report(&mut self, state: &'static str, error: Option<String>, targets: Option<Targets>, launch: Option<String>) {
        let reports = self.kept.as_mut().and_then(|kept| kept.reports().ok()).unwrap_or_default();
        let (pids, says) = reports.into_iter().unzip();
        let can_reload = self.kept.as_ref().is_some_and(Kept::can_reload);
        let can_kill = self.kept.as_ref().is_some_and(Kept::can_kill);
        let status = Status { state, error, pids, says, can_reload, can_kill, launch };
        let _ = self.reports.send(Report { pane: self.number, start: self.start, status, targets });
    }
}
