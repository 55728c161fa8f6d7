//! The state that all connections of a process share.

use crate::args::{Knobs, Limits, WhenFull};
use crate::dispatch::WorkerSlot;
use crate::gate::{Admitted, Gate};
use crate::state::Setting;
use crate::watch::Watch;
use crate::work::Work;
use crate::{Connection, Model, Served, Unseen, announce, http, routes};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Barrier, OnceLock};
use std::time::Duration;

/// State shared by all connections of this process.
#[derive(Clone, Copy)]
pub struct Service(&'static Inner);

struct Inner {
    watch: Watch,
    gate: Gate,
    /// Where the event loops wait for each other.
    starting: Barrier,
    knobs: Knobs,
    address: SocketAddr,
}

impl Service {
    pub(crate) fn new(knobs: Knobs, address: SocketAddr, loops: usize) -> io::Result<Self> {
        // Where each loop has a pool of its own, as many as one of them takes: more could wait behind one loop while another has room.
        let threads = if knobs.blocking_threads > 0 { knobs.blocking_threads } else { knobs.threads };
        let gate = Gate::new(threads + knobs.queue, knobs.when_full);
        Ok(Service(Box::leak(Box::new(Inner {
            watch: Watch::new(knobs.limits, knobs.capacity())?,
            gate,
            starting: Barrier::new(loops),
            knobs,
            address,
        }))))
    }

    /// Reports that an event loop is set up, and waits for the others: were one of them to accept now, its connections might take the
    /// descriptors that another needs for its setup. Once all are, the process is ready: a forked worker tells its parent; any other
    /// process writes to stdout and to the service manager.
    pub fn ready(self) {
        if !self.0.starting.wait().is_leader() {
            return;
        }
        match WorkerSlot::here() {
            Some(slot) => slot.ready(self.0.knobs.capacity()),
            None => announce(self.0.address),
        }
    }

    /// A mark for the connections of a library that accepts by itself: a drain waits until it is dropped.
    #[must_use]
    pub fn unseen(self) -> Unseen {
        Unseen::new(self)
    }

    /// The server state that the routes need.
    #[must_use]
    pub fn context(self) -> routes::Context {
        routes::Context { max_block: self.0.knobs.limits.max_block, is_draining: self.is_draining() }
    }

    /// Handles a request and runs any blocking work on the calling thread. Peers, which bring their own HTTP, use it.
    #[must_use]
    pub fn answer(self, request: routes::Request<'_>) -> http::Answer {
        match routes::handle(self.context(), request) {
            routes::Outcome::Instant(answer) => answer,
            routes::Outcome::Blocking(call) => Work::from(call).run(),
        }
    }

    /// Makes a blocking call in a pool, if that has room for it.
    ///
    /// # Errors
    /// Returns the error of the pool.
    pub async fn offload<F: Future<Output = io::Result<http::Answer>>>(
        self,
        work: Work,
        pool: impl FnOnce(Work) -> F,
    ) -> io::Result<http::Answer> {
        match self.admit() {
            // A caller may stop waiting, but what it has sent to the pool takes its place there until it is done.
            Ok(admitted) => pool(work.admitted(admitted)).await,
            Err(full) => Ok(full),
        }
    }

    /// Like [`Service::answer`], but makes blocking calls in a pool.
    pub async fn answer_with<F: Future<Output = io::Result<http::Answer>>>(
        self,
        request: routes::Request<'_>,
        pool: impl FnOnce(Work) -> F,
    ) -> http::Answer {
        let work = match routes::handle(self.context(), request) {
            routes::Outcome::Instant(answer) => return answer,
            routes::Outcome::Blocking(call) => Work::from(call),
        };
        let failed =
            |error| http::Answer::error(http::Status::InternalServerError, format!("the blocking call failed: {error}\n"));
        self.offload(work, pool).await.unwrap_or_else(failed)
    }

    /// Blocking calls are made in a pool, and keep no connection waiting.
    pub(crate) fn offloads(self) -> bool {
        self.0.knobs.blocking_threads > 0
    }

    /// The value of the `X-Worker` header in this process.
    pub fn worker(self) -> &'static str {
        static WORKER: OnceLock<String> = OnceLock::new();
        WORKER.get_or_init(|| std::process::id().to_string())
    }

    /// Asks for permission to send blocking work to a pool. Keep it until the work is done.
    ///
    /// # Errors
    /// Returns the answer to send instead if the pool is full and `--when-full` is `refuse`.
    pub fn admit(self) -> Result<Admitted, http::Answer> {
        self.0.gate.admit()
    }

    /// The address that this process serves.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0.address
    }

    /// A new connection on this socket.
    #[doc(hidden)]
    #[must_use]
    pub fn connection(self, socket: &impl AsRawFd) -> Connection {
        Connection::new(self, socket, None)
    }

    /// A new connection and its socket.
    #[doc(hidden)]
    #[must_use]
    pub fn served<S: AsRawFd>(self, stream: S) -> Served<S> {
        Served::new(self, stream, None)
    }

    pub(crate) fn watch(self) -> &'static Watch {
        &self.0.watch
    }

    pub(crate) fn is_draining(self) -> bool {
        self.watch().is_draining()
    }

    /// A service without a listener, for benches and tests of a connection.
    ///
    /// # Panics
    /// Panics if the process has no file descriptor left for its events.
    #[doc(hidden)]
    #[must_use]
    pub fn for_tests() -> Self {
        let knobs = Self::knobs_for_tests();
        Self::new(knobs, knobs.listen, 1).expect("event descriptors")
    }

    /// The knobs of that service.
    pub(crate) fn knobs_for_tests() -> Knobs {
        let second = Duration::from_secs(1);
        let limits = Limits {
            max_block: second,
            drain: second,
            drain_idle: second,
            header_timeout: second,
            request_timeout: second,
            idle_timeout: second,
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        const MODEL: &Model = &Model::one_thread(|_| Ok(()));
        Knobs {
            state: &Setting::Memory,
            model: MODEL,
            listen,
            threads: 1,
            processes: 1,
            dispatch: None,
            blocking_threads: 0,
            queue: 0,
            when_full: WhenFull::Wait,
            limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Call;
    use std::pin::pin;
    use std::sync::mpsc::channel;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_call_that_nobody_waits_for_any_more_keeps_its_place_until_it_is_done() {
        let knobs = Knobs { when_full: WhenFull::Refuse, blocking_threads: 1, ..Service::knobs_for_tests() };
        let service = Service::new(knobs, knobs.listen, 1).unwrap();
        let (pool, queued) = channel();
        let ask = || {
            let queue = |work: Work| {
                pool.send(work).unwrap();
                std::future::pending()
            };
            match pin!(service.offload(Work::from(Call::Sleep(Duration::ZERO)), queue))
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Pending => None,
                Poll::Ready(answer) => Some(answer.unwrap().status),
            }
        };
        // Each future is dropped at once, as hyper does when a client has gone.
        assert_eq!((ask(), ask()), (None, Some(http::Status::ServiceUnavailable)));
        let _ = queued.recv().unwrap().run();
        assert_eq!(ask(), None);
    }
}
