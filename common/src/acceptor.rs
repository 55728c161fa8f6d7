//! The source of connections: a listening socket, or the parent that hands them out.
//!
//! Both are a descriptor that becomes readable; then [`Acceptor::accept`] takes one connection without blocking. The flag
//! `O_NONBLOCK` belongs to the open file, so every process that shares the file shares the flag. It is set once and never
//! cleared.

use crate::args::{Dispatch, Knobs};
use crate::blocking::serve_leftover;
use crate::dispatch::WorkerSlot;
use crate::watch::Incoming;
use crate::{Loops, Served, Service, turning_away};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept4, bind, getsockopt, listen, setsockopt, socket, sockopt,
};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

/// The number of connections that the kernel may hold until they are accepted.
pub(crate) const BACKLOG: i32 = 4096;

/// Most connections that a loop accepts in a row, after which others have their turn. tokio's own budget allows as many.
const MOST_IN_A_ROW: usize = 128;

/// Pause between two looks whether a library has closed its copy of a listener, in ms.
const LOOK_MS: u8 = 5;

/// Hands out connections. Wait until it is readable, then [`accept`](Acceptor::accept) up to [`in_a_row`](Acceptor::in_a_row) times.
pub struct Acceptor {
    source: Source,
    service: Service,
    flags: SockFlag,
    /// Its key in the watch.
    key: usize,
    in_a_row: usize,
}

pub(crate) enum Source {
    Listener(TcpListener),
    Parent(WorkerSlot),
}

impl Acceptor {
    pub(crate) fn new(source: Source, service: Service, knobs: &Knobs) -> Self {
        let is_shared = match &source {
            // Whoever has passed it on may have passed it to others, too.
            Source::Listener(_) if std::env::var_os("LISTEN_FDS").is_some() => true,
            Source::Listener(_) => {
                knobs.model.loops == Loops::SharedListener || knobs.processes > 1 && knobs.dispatch != Some(Dispatch::Reuseport)
            }
            Source::Parent(_) => true,
        };
        let flags = if knobs.model.blocking_sockets { SockFlag::empty() } else { SockFlag::SOCK_NONBLOCK };
        let key = service.watch().accept(match &source {
            Source::Listener(listener) => Incoming::Listener(listener.as_raw_fd()),
            Source::Parent(slot) => Incoming::Parent(*slot),
        });
        let in_a_row = if is_shared { 1 } else { MOST_IN_A_ROW };
        Acceptor { source, service, flags: flags | SockFlag::SOCK_CLOEXEC, key, in_a_row }
    }

    /// The number of connections to accept before others have their turn: one where another loop or process, which may be idle, may take the next one.
    pub fn in_a_row(&self) -> usize {
        self.in_a_row
    }

    /// Takes as many connections as are to be accepted in a row, as [`Acceptor::accept`] does.
    pub fn accept_some<S: AsRawFd>(&self, take: impl Fn(TcpStream) -> io::Result<S>) -> impl Iterator<Item = Served<S>> {
        (0..self.in_a_row).map_while(move |_| self.accept(&take).ok())
    }

    /// Takes the next connection, on the stream that `take` makes of it: the runtime's own, which must take over the descriptor.
    ///
    /// # Errors
    /// Returns `WouldBlock` if no connection is waiting. After any other error, some may be: an edge-triggered runtime, which does not hear of those again,
    /// must ask once more. The system's errors are written to stderr, with a pause if they would come again at once; one of `take` ends only this connection.
    pub fn accept<S: AsRawFd>(&self, take: impl FnOnce(TcpStream) -> io::Result<S>) -> io::Result<Served<S>> {
        loop {
            let taken = match &self.source {
                Source::Listener(listener) => self.accept_from(listener).map(|fd| (TcpStream::from(fd), None)),
                Source::Parent(slot) => {
                    slot.take(self.flags.contains(SockFlag::SOCK_NONBLOCK)).map(|(stream, arrival)| (stream, Some(arrival)))
                }
            };
            match taken {
                // Registered behind `take`: if that fails, it has closed the socket.
                Ok((stream, arrival)) => {
                    if let Some(stream) = turning_away::unless_spare(stream) {
                        return Ok(Served::new(self.service, take(stream)?, arrival));
                    }
                }
                // Try the next connection: an edge-triggered runtime must get `WouldBlock` only if no connection is left.
                Err(Errno::ECONNABORTED | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// A copy of the listening socket, for a runtime that accepts with its own listener; [`Acceptor::accepted`] takes what that returns. `None` if
    /// the parent hands out connections.
    pub fn listener(&self) -> Option<io::Result<TcpListener>> {
        match &self.source {
            Source::Listener(listener) => Some(listener.try_clone()),
            Source::Parent(_) => None,
        }
    }

    /// Takes what the runtime's own listener has accepted.
    ///
    /// # Errors
    /// The listener has accepted nothing: ask again. The error is handled as in [`Acceptor::accept`].
    pub fn accepted<S: AsRawFd>(&self, accepted: io::Result<S>) -> io::Result<Served<S>> {
        let stream = accepted.map_err(|error| match error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) {
            Errno::ECONNABORTED | Errno::EINTR => io::ErrorKind::WouldBlock.into(),
            error => self.failed(error),
        })?;
        let stream = turning_away::unless_spare(stream).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(Served::new(self.service, stream, None))
    }

    /// Closes the listener as soon as a library has closed `copy`, its copy of it. Until then it may leave connections waiting, which would be reset:
    /// threads serve them.
    pub fn close_after(self, copy: RawFd) {
        let close = move || {
            while is_same_socket(self.as_raw_fd(), copy) {
                self.serve_waiting();
                let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], LOOK_MS);
            }
        };
        // Without a thread the listener closes at once.
        let _ = thread::Builder::new().name("closing".into()).spawn(close);
    }

    /// Serves those that have come since the loop accepted for the last time.
    fn serve_waiting(&self) {
        let late = (0..BACKLOG).map_while(|_| self.accept(|stream| stream.set_nonblocking(false).map(|()| stream)).ok());
        late.for_each(serve_leftover);
    }

    fn failed(&self, error: Errno) -> io::Error {
        let nobody_waits = turning_away::after(error, || match &self.source {
            Source::Listener(listener) => self.accept_from(listener),
            Source::Parent(_) => Err(Errno::EAGAIN),
        });
        if nobody_waits { io::ErrorKind::WouldBlock.into() } else { error.into() }
    }

    fn accept_from(&self, listener: &TcpListener) -> nix::Result<OwnedFd> {
        let fd = accept4(listener.as_raw_fd(), self.flags)?;
        // SAFETY: accept4 has just opened the descriptor, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.serve_waiting();
        self.service.watch().close(self.key);
    }
}

/// The connections of a library that accepts by itself, which are not seen here. A drain waits until this is dropped.
pub struct Unseen {
    service: Service,
    key: usize,
}

impl Unseen {
    pub(crate) fn new(service: Service) -> Self {
        Unseen { service, key: service.watch().accept(Incoming::Library) }
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        self.service.watch().close(self.key);
    }
}

/// Whether a descriptor, which may have been closed and given out again, is this socket.
fn is_same_socket(socket: RawFd, other: RawFd) -> bool {
    let inode = |fd: RawFd| std::fs::metadata(format!("/proc/self/fd/{fd}")).map(|file| file.ino()).ok();
    inode(socket).is_some_and(|socket| inode(other) == Some(socket))
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Listener(listener) => listener.as_fd(),
            Source::Parent(slot) => slot.as_fd(),
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl AsRawFd for Acceptor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The listening sockets that the knobs ask for: one, or one per worker with `reuseport`, or one per thread in a per-core model.
///
/// # Errors
/// Returns one line with the address and the cause.
pub(crate) fn listeners(knobs: &Knobs) -> Result<Vec<TcpListener>, String> {
    let is_reuseport = knobs.dispatch == Some(Dispatch::Reuseport);
    let count = if is_reuseport { knobs.processes } else { knobs.loops() };
    let copies = |listener: &TcpListener| (0..count).map(|_| listener.try_clone()).collect::<io::Result<_>>();
    if let Some(inherited) = inherited()? {
        if is_reuseport {
            return Err("--dispatch reuseport cannot multiply the listener from LISTEN_FDS; use shared or round-robin".into());
        }
        // In a per-core model all threads share the inherited listener.
        return copies(&inherited).map_err(|error| format!("LISTEN_FDS: cannot duplicate the listener: {error}"));
    }
    // Without SO_REUSEPORT at first: with it, this would share a port that another server of the same user listens on.
    let first = bound(knobs.listen, false).map_err(|error| cannot_listen(knobs.listen, error))?;
    if count == 1 {
        return Ok(vec![first]);
    }
    if knobs.model.loops == Loops::SharedListener {
        return copies(&first).map_err(|error| error.to_string());
    }
    // Port 0 lets the first bind choose the port; the others reuse it.
    let address = first.local_addr().map_err(|error| error.to_string())?;
    let refused = |error| cannot_listen(address, error);
    setsockopt(&first, sockopt::ReusePort, &true).map_err(refused)?;
    std::iter::once(Ok(first)).chain((1..count).map(|_| bound(address, true).map_err(refused))).collect()
}

fn cannot_listen(address: SocketAddr, error: Errno) -> String {
    format!("cannot listen on {address}: {}; choose another address with --listen", error.desc())
}

/// The socket that the parent process passed on (`LISTEN_FDS`, as systemd does); `None` if it passed none.
fn inherited() -> Result<Option<TcpListener>, String> {
    let mut fds = sd_notify::listen_fds().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let Some(fd) = fds.next() else { return Ok(None) };
    if fds.next().is_some() {
        return Err("LISTEN_FDS passes several listeners; pass exactly one".into());
    }
    // SAFETY: LISTEN_PID names this process as the owner of the descriptor, and only this function takes it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    listener.local_addr().map_err(|error| format!("LISTEN_FDS: descriptor {fd} is not a TCP listener: {error}"))?;
    if !getsockopt(&listener, sockopt::AcceptConn).unwrap_or(false) {
        return Err(format!("LISTEN_FDS: descriptor {fd} does not listen: call listen(2) on it first"));
    }
    listener.set_nonblocking(true).map_err(|error| format!("LISTEN_FDS: cannot set O_NONBLOCK: {error}"))?;
    // Accepted sockets inherit this option, and the process that bound the listener may not have set it.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)
        .map_err(|error| format!("LISTEN_FDS: cannot set TCP_NODELAY: {}", error.desc()))?;
    Ok(Some(listener))
}

fn bound(address: SocketAddr, reuse_port: bool) -> nix::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &reuse_port)?;
    // On Linux accepted sockets inherit this option, which saves one system call per connection.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_share_a_port_refuse_one_that_is_in_use() {
        let knobs = Service::knobs_for_tests();
        let apart = Knobs { processes: 3, dispatch: Some(Dispatch::Reuseport), ..knobs };
        let first = listeners(&apart).unwrap();
        let again = Knobs { listen: first[0].local_addr().unwrap(), ..apart };
        for knobs in [again, Knobs { processes: 1, dispatch: None, ..again }] {
            let refused = listeners(&knobs).unwrap_err();
            assert!(refused.contains("in use"), "{refused}");
        }
        let clients: Vec<_> = (0..200).map(|_| TcpStream::connect(again.listen).unwrap()).collect();
        let counts: Vec<_> = first.iter().map(|listener| std::iter::from_fn(|| listener.accept().ok()).count()).collect();
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(!counts.contains(&0), "{counts:?}");
    }

    #[test]
    fn a_loop_takes_all_that_wait_unless_another_process_may_take_some() {
        let knobs = Service::knobs_for_tests();
        let forked = Knobs { processes: 2, ..knobs };
        let apart = Knobs { dispatch: Some(Dispatch::Reuseport), ..forked };
        for (knobs, wanted) in [(knobs, 5), (forked, 1), (apart, 5)] {
            let listener = bound(knobs.listen, false).unwrap();
            let address = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
            let acceptor = Acceptor::new(Source::Listener(listener), Service::for_tests(), &knobs);
            assert_eq!(acceptor.accept_some(Ok).count(), wanted, "of {}", clients.len());
        }
    }
}
