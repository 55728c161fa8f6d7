//! The load driver: one thread, one epoll, every send planned before it is due.
//!
//! A [`Load`] is a number of [`Lane`]s that run side by side. An open lane has planned instants, and response time counts from the
//! plan, however late the request got out; a closed lane keeps a number of requests in flight. The driver stores response and
//! service time, its own lag behind the plan, and checks every answer.

mod engine;
mod flight;
pub mod record;

pub use record::{Recording, Report};

use std::net::SocketAddr;
use std::time::Duration;

/// What to ask, and what the answer must be.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// The request's bytes.
    pub request: Vec<u8>,
    /// The status that is right.
    pub status: u16,
    /// The body that is right; none if only the status counts.
    pub body: Option<Vec<u8>>,
}

/// A stream of like requests.
#[derive(Debug, Clone)]
pub struct Lane {
    /// What it asks.
    pub target: Target,
    /// When.
    pub pace: Pace,
    /// On how many connections; of a fresh lane, how many at once at most.
    pub connections: usize,
    /// Each request on a connection of its own.
    pub is_fresh: bool,
    /// Ask once on each connection before the run, so that the server has given it to whoever will serve it.
    pub is_introduced: bool,
    /// Keep each request's time besides the histograms.
    pub keeps_samples: bool,
    /// A request that fails is a result, however many do; so is an idle connection that the server closes.
    pub may_fail: bool,
}

impl Lane {
    /// So many requests in flight on each connection all the time.
    pub fn closed(target: Target, connections: usize, depth: usize) -> Self {
        let pace = Pace::Closed { depth, stagger: Duration::ZERO, most: None, think: Duration::ZERO };
        Lane { target, pace, connections, is_fresh: false, is_introduced: false, keeps_samples: false, may_fail: false }
    }

    /// Requests at planned instants, even ones or with exponential gaps.
    pub fn open(target: Target, connections: usize, rate: f64, is_poisson: bool) -> Self {
        Lane { pace: Pace::Open { rate, is_poisson }, ..Lane::closed(target, connections, 1) }
    }

    /// Under which connection a request counts: those of a fresh lane live for one request and count together.
    fn connection(&self, number: usize) -> usize {
        if self.is_fresh { 0 } else { number }
    }
}

/// When requests are due.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// At planned instants, this many in a second, whatever comes back.
    Open {
        /// Requests per second.
        rate: f64,
        /// Exponential gaps instead of even ones.
        is_poisson: bool,
    },
    /// As soon as the one before is answered, and some time for thought has passed.
    Closed {
        /// Requests in flight on each connection.
        depth: usize,
        /// The connections' first requests are spread over this time.
        stagger: Duration,
        /// Requests on each connection; none for no end.
        most: Option<u64>,
        /// From an answer to the next request.
        think: Duration,
    },
}

/// Lanes side by side, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// Time before the window; what is planned in it is left out.
    pub warmup: Duration,
    /// What is planned in this time counts.
    pub window: Duration,
    /// Longest wait for answers after the window.
    pub grace: Duration,
    /// Ends the wait as soon as more than 1 % of the first lane's requests are known to take longer than this.
    pub give_up: Option<Duration>,
    /// The last part of a wait for a planned instant is spent looking at the clock, since a sleeping thread wakes up late.
    pub spin: Duration,
    /// Order in which connections are opened, and gaps of Poisson arrivals.
    pub seed: u64,
}

/// Puts the load on and reports what came of it.
///
/// # Errors
/// What keeps the driver from working: no descriptor, no connection, an interrupt. What the servers do wrong is in the report.
pub fn run(load: &Load) -> anyhow::Result<Report> {
    run_marked(load, &mut || ())
}

/// The same, and calls `mark` when the window begins and when it ends, so that what is read elsewhere covers the same time.
///
/// # Errors
/// As above.
pub fn run_marked(load: &Load, mark: &mut dyn FnMut()) -> anyhow::Result<Report> {
    engine::Engine::new(load)?.run(mark)
}
