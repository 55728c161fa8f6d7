//! What the servers on tokio share: connections from tokio's own listener, and a socket that a drain waits for.
//!
//! tokio expects a socket that its own listener has accepted to be readable, and so reads at once; one that comes from elsewhere is polled first.

mod counted;

pub use counted::Counted;

use common::{Acceptor, Room, Served};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
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
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    let is_full = accepted.as_ref().is_err_and(is_out_of_descriptors);
                    let served = acceptor.accepted(accepted).ok();
                    if is_full {
                        hear_that_nobody_waits(listener).await;
                    }
                    served
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

fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(common::is_out_of_descriptors)
}

/// Lets tokio ask once more with a descriptor to spare. Without one, `accept` fails before it looks whether anybody waits, so tokio would take the listener
/// for readable for ever, and spin. A client that has come meanwhile is turned away like those before it.
async fn hear_that_nobody_waits(listener: &TcpListener) {
    let _room = Room::make();
    let asked = poll_fn(|context| Poll::Ready(listener.poll_accept(context))).await;
    drop(asked);
}
