//! What the servers on tokio share: connections from tokio's own listener, and a socket that a drain waits for.
//!
//! tokio expects a socket that its own listener has accepted to be readable, and so reads at once; one that comes from elsewhere is polled first.

mod counted;

pub use counted::Counted;

use common::{Acceptor, Served};
use std::io;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};

/// A source of connections on tokio.
pub enum Connections {
    /// tokio's own listener, closed before the acceptor that it accepts for.
    Listener(TcpListener, Acceptor),
    /// The parent process hands them out.
    Parent(AsyncFd<Acceptor>),
}

impl Connections {
    /// Registers the acceptor with the runtime.
    ///
    /// # Errors
    /// Fails if no descriptor is left, or outside a runtime.
    pub fn new(acceptor: Acceptor) -> io::Result<Self> {
        match acceptor.listener() {
            Some(listener) => Ok(Connections::Listener(TcpListener::from_std(listener?)?, acceptor)),
            // SAFETY: it owns its descriptor, never changes it, and keeps it open until it and its registration are dropped.
            None => Ok(Connections::Parent(unsafe { AsyncFd::register(acceptor)? })),
        }
    }

    /// Waits for the next connection. Nothing is lost if it is dropped before.
    ///
    /// # Errors
    /// Fails if the runtime ends.
    pub async fn next(&self) -> io::Result<Served<TcpStream>> {
        loop {
            let served = match self {
                Connections::Listener(listener, acceptor) => {
                    acceptor.accepted(listener.accept().await.map(|(stream, _)| stream)).ok()
                }
                Connections::Parent(acceptor) => {
                    let mut readable = acceptor.readable().await?;
                    let accepted = readable.try_io(|acceptor| acceptor.get_ref().accept(TcpStream::from_std));
                    let accepted = accepted.ok().and_then(Result::ok);
                    if accepted.is_none() {
                        // The channel of a parent that is gone is readable for ever, and nothing else would run.
                        tokio::task::yield_now().await;
                    }
                    accepted
                }
            };
            if let Some(served) = served {
                return Ok(served);
            }
        }
    }
}
