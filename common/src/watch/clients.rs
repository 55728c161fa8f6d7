//! Time limits for clients. They count a client's lateness only. While bytes of it lie in the socket, it is the server that is late, unless the
//! client does not take its answers: then the server does not read. The server may also be late while as many handlers run as keep connections
//! waiting: a runtime over io_uring has then taken the bytes out of the socket already.

use super::{Entry, Phase, Watch, cut};
use nix::libc::{self, c_int};
use nix::sys::socket::Shutdown;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The time limit for a client to close after the server has shut down its sending side, and all is sent.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// The check runs this many times within the shortest limit.
pub(super) const CHECKS: u32 = 8;

/// What the last check of a connection saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// The phase word, and the number of requests.
    marks: (u32, u32),
    /// Since when nothing has moved; in a head or a body, since when the client has not taken what was sent.
    since: Instant,
    /// When the last check was.
    at: Instant,
    /// For how long the client has been late in the current phase.
    late: Duration,
    /// Bytes that were sent and not acknowledged.
    unsent: c_int,
}

impl Seen {
    pub fn new() -> Self {
        let now = Instant::now();
        Seen { marks: (0, 0), since: now, at: now, late: Duration::ZERO, unsent: 0 }
    }
}

impl Watch {
    /// Cuts off clients that have used up their time.
    pub(super) fn cut_slow_clients(&self) {
        // Cleared first: an owner that enters a phase during the check sets it again and wakes the thread.
        self.is_ticking.store(false, Ordering::SeqCst);
        let now = Instant::now();
        let mut is_any_limited = false;
        let mut entries = self.entries();
        if entries.is_empty() {
            // The next connection sets it again, and wakes this thread.
            self.has_clients.store(false, Ordering::SeqCst);
        }
        for (_, entry) in entries.iter_mut() {
            is_any_limited |= self.check(entry, now);
        }
        drop(entries);
        if is_any_limited {
            self.is_ticking.store(true, Ordering::SeqCst);
        }
    }

    /// Checks one connection; true if it is in a phase with a short limit.
    fn check(&self, entry: &mut Entry, now: Instant) -> bool {
        let seen = &mut entry.seen;
        // A check that comes late is no client's fault.
        let passed = now.duration_since(seen.at).min(2 * self.tick());
        seen.at = now;
        let marks = (entry.marks.phase.load(Ordering::Acquire), entry.marks.requests.load(Ordering::Relaxed));
        if marks != seen.marks {
            // What comes behind the last answer does not extend the time for all of it.
            let lingers_on = [marks.0, seen.marks.0].map(Phase::of) == [Phase::Lingering; 2];
            seen.marks = marks;
            if !lingers_on {
                (seen.since, seen.late) = (now, Duration::ZERO);
            } else if unacknowledged(entry.socket) == 0 {
                seen.since = now;
            }
        }
        let limits = &self.limits;
        match Phase::of(marks.0) {
            Phase::Busy => false,
            phase @ (Phase::Head | Phase::Body) => {
                let unsent = unacknowledged(entry.socket);
                if unsent == 0 || unsent != seen.unsent || self.is_full() {
                    (seen.unsent, seen.since) = (unsent, now);
                }
                // Bytes that lie in the socket were sent in time, also if the server does not read them because the client takes no answers.
                if !self.is_full() && unread(entry.socket) == 0 {
                    seen.late += passed;
                }
                let limit = if phase == Phase::Head { limits.header_timeout } else { limits.request_timeout };
                if seen.late >= limit || now.duration_since(seen.since) >= limits.idle_timeout {
                    cut(entry.socket, Shutdown::Both);
                }
                true
            }
            phase @ (Phase::Open | Phase::Lingering) => {
                let is_lingering = phase == Phase::Lingering;
                // One that has its last answer and goes on sending has as long for that as for a request.
                if is_lingering && unacknowledged(entry.socket) == 0 && !self.is_full() {
                    seen.late += passed;
                    if seen.late >= limits.request_timeout {
                        cut(entry.socket, Shutdown::Both);
                    }
                }
                let shortest = if is_lingering { LINGER } else { limits.idle_timeout };
                if now.duration_since(seen.since) < shortest {
                    return is_lingering;
                }
                let unsent = unacknowledged(entry.socket);
                // A client that is not done taking its answers is not read from, so then its unread bytes say nothing of the server.
                let is_unread = unsent == 0 && unread(entry.socket) > 0;
                if unsent != seen.unsent || is_unread || self.is_full() {
                    // The client takes its answer, or it is not its turn.
                    (seen.unsent, seen.since) = (unsent, now);
                } else if unsent > 0 && now.duration_since(seen.since) >= limits.idle_timeout {
                    cut(entry.socket, Shutdown::Both);
                } else if unsent == 0 {
                    cut(entry.socket, if is_lingering { Shutdown::Both } else { Shutdown::Read });
                }
                is_lingering
            }
        }
    }

    /// Whether all handlers may be at work, so that a connection has to wait for one.
    fn is_full(&self) -> bool {
        (self.running)() >= self.capacity
    }

    /// The time between two checks while a connection is in a phase with a short limit.
    pub(super) fn tick(&self) -> Duration {
        self.limits.header_timeout.min(self.limits.request_timeout).min(self.limits.idle_timeout).min(LINGER) / CHECKS
    }
}

/// Bytes that lie in the socket for the server to read.
pub(super) fn unread(socket: RawFd) -> c_int {
    ask(socket, libc::FIONREAD)
}

/// Bytes that the client has not acknowledged yet.
fn unacknowledged(socket: RawFd) -> c_int {
    ask(socket, libc::TIOCOUTQ)
}

fn ask(socket: RawFd, request: libc::Ioctl) -> c_int {
    let mut count: c_int = 0;
    // SAFETY: both requests write one int, and the descriptor is open, since its entry exists.
    let result = unsafe { libc::ioctl(socket, request, &raw mut count) };
    if result == 0 { count } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Limits;
    use crate::watch::Slot;
    use std::cell::Cell;
    use std::io::{self, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    /// All limits.
    const LIMIT: Duration = Duration::from_secs(1);

    thread_local! {
        static RUNNING: Cell<u32> = const { Cell::new(0) };
    }

    /// A connection in the watch, looked at at instants that the test makes up.
    struct Watched {
        watch: &'static Watch,
        slot: Slot,
        server: TcpStream,
        client: TcpStream,
        now: Instant,
    }

    impl Watched {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            let limits = Limits {
                max_block: LIMIT,
                drain: LIMIT,
                drain_idle: LIMIT,
                header_timeout: LIMIT,
                request_timeout: LIMIT,
                idle_timeout: LIMIT,
            };
            // Other tests run handlers at the same time.
            let watch = Watch { running: || RUNNING.get(), ..Watch::new(limits, 1).unwrap() };
            let watch: &'static Watch = Box::leak(Box::new(watch));
            Watched { watch, slot: watch.open(&server, false), server, client, now: Instant::now() }
        }

        /// Checks at every tick for this many times the limit. Returns whether the connection is cut off.
        fn pass(&mut self, limits: f64) -> bool {
            let end = self.now + LIMIT.mul_f64(limits);
            while self.now < end {
                self.now += self.watch.tick();
                let mut entries = self.watch.entries();
                for (_, entry) in entries.iter_mut() {
                    self.watch.check(entry, self.now);
                }
            }
            let is_cut = |error: io::Error| error.kind() == io::ErrorKind::BrokenPipe;
            // What lies unread in the socket hides its end.
            matches!(self.server.peek(&mut [0]), Ok(0)) || self.server.write(&[]).is_err_and(is_cut)
        }

        /// Sends from the client, and waits until it has arrived.
        fn send(&mut self, bytes: &[u8]) {
            self.client.write_all(bytes).unwrap();
            self.server.set_nonblocking(false).unwrap();
            self.server.peek(&mut [0]).unwrap();
            self.server.set_nonblocking(true).unwrap();
        }
    }

    #[test]
    fn a_head_that_does_not_go_on_is_cut_off_and_one_that_the_server_has_not_read_is_not() {
        let mut watched = Watched::new();
        watched.slot.begin();
        watched.send(b"more of it");
        assert!(!watched.pass(3.0), "the rest lies in the socket");
        watched.server.read_exact(&mut [0; 10]).unwrap();
        assert!(!watched.pass(0.5) && watched.pass(1.0));
    }

    #[test]
    fn no_byte_of_a_body_extends_its_limit() {
        let mut watched = Watched::new();
        watched.slot.set(Phase::Body);
        for _ in 0..3 {
            assert!(!watched.pass(0.25));
            watched.send(b"1");
            watched.server.read_exact(&mut [0]).unwrap();
        }
        assert!(watched.pass(0.5));
    }

    #[test]
    fn a_client_that_sends_on_after_its_last_answer_is_cut_off_in_the_end() {
        let mut watched = Watched::new();
        watched.slot.set(Phase::Lingering);
        watched.send(b"more");
        assert!(!watched.pass(0.7));
        watched.pass(0.4);
        // What lies unread in the socket hides its end.
        watched.server.read_exact(&mut [0; 4]).unwrap();
        assert!(watched.pass(0.0));
    }

    #[test]
    fn a_client_that_is_still_sending_behind_its_last_answer_has_as_long_as_for_a_request_where_the_server_reads_at_once() {
        let mut watched = Watched::new();
        // Four times as long as a silent one has.
        let limits = Limits { request_timeout: LINGER * 4, ..watched.watch.limits };
        let watch: &'static Watch = Box::leak(Box::new(Watch { running: || RUNNING.get(), ..Watch::new(limits, 1).unwrap() }));
        watched.slot = watch.open(&watched.server, false);
        watched.watch = watch;
        watched.slot.set(Phase::Lingering);
        for _ in 0..7 {
            assert!(!watched.pass(0.5));
            // What a connection does with each read.
            watched.slot.set(Phase::Lingering);
        }
        assert!(watched.pass(1.0), "not for ever");
    }

    #[test]
    fn nobody_is_late_while_a_handler_runs_that_may_keep_him_waiting() {
        let mut watched = Watched::new();
        watched.slot.begin();
        RUNNING.set(1);
        assert!(!watched.pass(3.0));
        RUNNING.set(0);
        assert!(watched.pass(1.5));
    }

    #[test]
    fn a_connection_on_which_nothing_moves_ends_unless_its_request_is_at_work() {
        let mut watched = Watched::new();
        watched.slot.block();
        assert!(!watched.pass(5.0));
        watched.slot.settle();
        assert!(!watched.pass(0.5) && watched.pass(1.0));
    }

    #[test]
    fn a_client_that_sends_on_and_takes_its_answers_slowly_is_not_cut_off_and_one_that_takes_none_is() {
        for phase in [Phase::Open, Phase::Head, Phase::Body] {
            let mut watched = Watched::new();
            while watched.server.write(&[b'x'; 65536]).is_ok() {}
            watched.slot.set(phase);
            watched.send(b"more requests, which the server does not read");
            for _ in 0..5 {
                assert!(!watched.pass(0.9), "{phase:?}");
                // As much as it takes for the server to hear of it.
                let before = unacknowledged(watched.server.as_raw_fd());
                while unacknowledged(watched.server.as_raw_fd()) == before {
                    watched.client.read_exact(&mut [0; 65536]).unwrap();
                }
            }
            assert!(watched.pass(2.5), "{phase:?}");
        }
    }
}
