//! Lanes side by side make a load.

use super::Live;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request, and the answer that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The server's address.
    pub address: SocketAddr,
    /// The request's bytes.
    pub request: Arc<[u8]>,
    /// The request is a HEAD, whose answer has no body.
    pub is_head: bool,
    /// The right status.
    pub status: u16,
    /// The right body; `None` if only the status counts.
    pub body: Option<Arc<[u8]>>,
}

impl Target {
    /// The request's method.
    pub fn method(&self) -> String {
        let end = self.request.iter().position(|byte| *byte == b' ').unwrap_or(0);
        String::from_utf8_lossy(&self.request[..end]).into_owned()
    }

    /// Whether to ask twice is as good as once (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        is_idempotent(&self.method())
    }
}

/// Whether a request has `Connection: close` (RFC 9112, section 9.6).
pub fn asks_to_close(request: &[u8]) -> bool {
    let head = request.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    let fields = head.filter_map(|line| Some(line.split_at(line.iter().position(|byte| *byte == b':')?)));
    fields.into_iter().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"connection")
            && value[1..].split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// Whether a request of this method may be sent again when its connection has broken (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// A stream of identical requests.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The request.
    pub target: Target,
    /// When it is due.
    pub pace: Pace,
    /// Connections that are kept; ignored by an open lane of fresh ones.
    pub connections: usize,
    /// Each request has a connection of its own.
    pub is_fresh: bool,
    /// What each kept connection asks once before the run, so that the server has given it to the worker that will serve it, and so that none is silent: a
    /// silent one may hold a thread. `None` if it asks nothing.
    pub primer: Option<Target>,
    /// Each request's time is kept besides the histograms.
    pub keeps_samples: bool,
    /// Requests wait for a server that refuses connections, and an idempotent one whose kept connection closed before any byte of its answer is
    /// sent again, as clients do. Otherwise they fail.
    pub retries: bool,
    /// The pause of a client whose request was answered 503, which is counted apart; `None` if such an answer is wrong.
    pub sheds: Option<Duration>,
    /// The pause of a client of a closed lane whose request failed, so that a failure is not cheaper than an answer; `None` if it just goes on.
    pub rests: Option<Duration>,
}

impl Lane {
    /// A closed loop: `depth` requests in flight on each connection all the time.
    pub fn closed(target: Target, connections: usize, depth: usize) -> Self {
        let pace = Pace::Closed { depth, stagger: Duration::ZERO, most: None, think: Duration::ZERO };
        Lane {
            target,
            pace,
            connections,
            is_fresh: false,
            primer: None,
            keeps_samples: false,
            retries: false,
            sheds: None,
            rests: None,
        }
    }

    /// Requests on a fixed schedule, evenly or with exponential gaps.
    pub fn open(target: Target, connections: usize, rate: f64, is_poisson: bool) -> Self {
        Lane { pace: Pace::Open { rate, is_poisson }, ..Lane::closed(target, connections, 1) }
    }

    /// Whether requests are due on a schedule, whatever comes back.
    pub fn is_open(&self) -> bool {
        matches!(self.pace, Pace::Open { .. })
    }

    /// Requests in flight on a connection at most.
    pub fn depth(&self) -> usize {
        if let Pace::Closed { depth, .. } = self.pace { depth } else { 1 }
    }
}

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// On a schedule, whatever comes back.
    Open {
        /// Requests per second.
        rate: f64,
        /// Exponential gaps instead of even ones.
        is_poisson: bool,
    },
    /// As soon as the previous one is answered, and some time for thought has passed.
    Closed {
        /// Requests in flight on each connection.
        depth: usize,
        /// The connections' first requests are spread over this time.
        stagger: Duration,
        /// Requests on each connection; `None` for no end.
        most: Option<u64>,
        /// From an answer to the next request.
        think: Duration,
    },
}

/// The kept connections of the driver as they are opened: the lane's slot, and the address at this end.
pub type Opened = Arc<Mutex<Vec<(usize, SocketAddr)>>>;

/// Lanes side by side, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// Time before the window; requests due in it are left out.
    pub warmup: Duration,
    /// Requests due in this time count.
    pub window: Duration,
    /// Longest wait for answers after the window.
    pub grace: Duration,
    /// Ends the wait as soon as more than 1 % of the first lane's requests are known to take longer than this.
    pub give_up: Option<Duration>,
    /// The driver spends the last part of a wait for a due request looking at the clock, since a sleeping thread wakes up late.
    pub spin: Duration,
    /// Seed of the order in which connections are opened, and of exponential gaps.
    pub seed: u64,
    /// Keep a histogram for each second of the window.
    pub keeps_seconds: bool,
    /// Somebody watches while it runs, and may end it early.
    pub live: Option<Live>,
    /// Somebody wants to know the connections of the first lane.
    pub opened: Option<Opened>,
    /// An interrupt ends the run early with what was observed so far, instead of being an error.
    pub can_be_cut_short: bool,
}

impl Load {
    /// A load of these lanes for a window, with two seconds of grace.
    pub fn of(lanes: Vec<Lane>, window: Duration, seed: u64) -> Self {
        Load {
            lanes,
            warmup: Duration::ZERO,
            window,
            grace: Duration::from_secs(2),
            give_up: None,
            spin: Duration::ZERO,
            seed,
            keeps_seconds: false,
            live: None,
            opened: None,
            can_be_cut_short: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_to_close_by_its_connection_field_and_not_by_its_body() {
        let asks = |head: &str| asks_to_close(format!("POST / HTTP/1.1\r\n{head}\r\n\r\nConnection: close\r\n").as_bytes());
        assert!(asks("Host: a\r\nconnection: Close") && asks("Connection: keep-alive, close"));
        assert!(!asks("Host: a") && !asks("Connection: keep-alive") && !asks("X: Connection: close"));
    }
}
