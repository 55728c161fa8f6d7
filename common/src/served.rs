//! A connection and its socket in one piece, so that no order of drops can be wrong.
//!
//! The side thread shuts down the sockets of late clients by their descriptors. So a connection must leave the watch before its socket closes: the
//! number of a closed descriptor may be another connection's at once.

use crate::dispatch::Arrival;
use crate::watch::Slot;
use crate::{Connection, Service};
use std::os::fd::AsRawFd;

/// A connection and its socket. They cannot be taken apart.
pub struct Served<S> {
    // Dropped in this order.
    connection: Connection,
    stream: S,
}

impl<S: AsRawFd> Served<S> {
    pub(crate) fn new(service: Service, stream: S, arrival: Option<Arrival>) -> Self {
        Served { connection: Connection::new(service, &stream, arrival), stream }
    }
}

impl<S> Served<S> {
    /// Both, for the loop that does what [`Connection::step`] says.
    pub fn parts(&mut self) -> (&mut S, &mut Connection) {
        (&mut self.stream, &mut self.connection)
    }

    /// Keeps only the registration, for a server whose own HTTP serves the socket: a drain waits for it, and no time limit of ours applies.
    #[must_use]
    pub fn into_registered(self) -> Registered<S> {
        Registered { _slot: self.connection.into_slot(), stream: self.stream }
    }
}

/// A socket that a drain waits for until it is closed.
pub struct Registered<S> {
    // Dropped in this order.
    _slot: Slot,
    /// The socket.
    pub stream: S,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::RawFd;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A socket that notes, when it is closed, how many connections the watch still knows.
    struct Noting<'a>(TcpStream, Service, &'a AtomicUsize);

    impl AsRawFd for Noting<'_> {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }

    impl Drop for Noting<'_> {
        fn drop(&mut self) {
            self.2.store(self.1.watch().count(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_connection_has_left_the_watch_when_its_socket_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service::for_tests();
        let noted = AtomicUsize::new(usize::MAX);
        let open =
            || Served::new(service, Noting(TcpStream::connect(listener.local_addr().unwrap()).unwrap(), service, &noted), None);
        drop(open());
        assert_eq!(noted.swap(usize::MAX, Ordering::Relaxed), 0);
        drop(open().into_registered());
        assert_eq!(noted.load(Ordering::Relaxed), 0);
    }
}
