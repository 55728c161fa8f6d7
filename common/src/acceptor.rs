//! Where connections come from: a listening socket, or the parent that deals them out.
//!
//! Both are a descriptor that becomes readable, and then [`Acceptor::accept`] takes one connection without blocking. The flag
//! `O_NONBLOCK` belongs to the open file and so to every process that shares it; it is set from the start and stays.

use crate::args::{Dispatch, Knobs};
use crate::dispatch::Seat;
use crate::{Connection, Loops, Service};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept4, bind, listen, setsockopt, socket, sockopt,
};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4096;

/// Hands out connections. Wait until it is readable, then [`accept`](Acceptor::accept) once.
pub struct Acceptor {
    source: Source,
    service: Service,
    flags: SockFlag,
    /// Kept for the moment when no descriptor is left: given up, it lets one connection be accepted and closed, so that its
    /// client learns at once and the accept loop does not spin.
    spare: Mutex<Option<File>>,
}

pub(crate) enum Source {
    Listener(TcpListener),
    Parent(Seat),
}

impl Acceptor {
    pub(crate) fn new(source: Source, service: Service, is_blocking: bool) -> Self {
        service.watch().accept();
        let flags = if is_blocking { SockFlag::empty() } else { SockFlag::SOCK_NONBLOCK };
        Acceptor { source, service, flags: flags | SockFlag::SOCK_CLOEXEC, spare: Mutex::new(spare()) }
    }

    /// Takes the next connection and what will run on it.
    ///
    /// # Errors
    /// `WouldBlock` while there is none. Whatever else goes wrong concerns one connection only, is said on stderr, and comes
    /// back as `WouldBlock` too.
    pub fn accept(&self) -> io::Result<(TcpStream, Connection)> {
        loop {
            let stream = match &self.source {
                Source::Listener(listener) => self.accept_from(listener.as_raw_fd()),
                Source::Parent(seat) => seat.take(self.flags.contains(SockFlag::SOCK_NONBLOCK)),
            };
            match stream {
                Ok(stream) => {
                    let connection = Connection::new(self.service, &stream);
                    return Ok((stream, connection));
                }
                // On to the next: a runtime that is told once that there is something must hear only of a true end.
                Err(Errno::ECONNABORTED | Errno::EINTR) => {}
                Err(error @ (Errno::EMFILE | Errno::ENFILE)) if self.turn_away() => eprintln!("accept: {}", error.desc()),
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => {
                    eprintln!("accept: {}", error.desc());
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
        }
    }

    fn accept_from(&self, listener: RawFd) -> nix::Result<TcpStream> {
        let fd = accept4(listener, self.flags)?;
        // SAFETY: accept4 has just opened the descriptor, and nobody else has it.
        Ok(unsafe { TcpStream::from_raw_fd(fd) })
    }

    /// Without a descriptor left, accepts one connection by means of the spare one and closes it; false if none was there.
    fn turn_away(&self) -> bool {
        let Source::Listener(listener) = &self.source else { return false };
        let mut spare_file = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let had_spare = spare_file.take().is_some();
        let accepted = accept4(listener.as_raw_fd(), self.flags);
        if let Ok(fd) = accepted {
            // SAFETY: as above.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        *spare_file = spare();
        had_spare && accepted.is_ok()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.service.watch().close();
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Listener(listener) => listener.as_fd(),
            Source::Parent(seat) => seat.as_fd(),
        }
    }
}

impl AsRawFd for Acceptor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// The listening sockets that the knobs ask for: one, or with `reuseport` one for each worker, or for each thread of a model per core.
///
/// # Errors
/// One line with the address and the cause.
pub(crate) fn listeners(knobs: &Knobs) -> Result<Vec<TcpListener>, String> {
    let is_reuseport = knobs.dispatch == Some(Dispatch::Reuseport);
    let count = if is_reuseport { knobs.processes } else { knobs.loops() };
    let copies = |listener: &TcpListener| (0..count).map(|_| listener.try_clone()).collect::<io::Result<_>>();
    if let Some(inherited) = inherited()? {
        if is_reuseport {
            return Err("--dispatch reuseport: an inherited listener cannot be multiplied; use shared or round-robin".into());
        }
        // The threads of a model per core share it then.
        return copies(&inherited).map_err(|error| format!("LISTEN_FDS: {error}"));
    }
    let is_shared = knobs.model.loops == Loops::SharedListener;
    let bind = |address| bound(address, count > 1 && !is_shared).map_err(|error| cannot_listen(address, error));
    let first = bind(knobs.listen)?;
    if is_shared {
        return copies(&first).map_err(|error| error.to_string());
    }
    let address = first.local_addr().map_err(|error| error.to_string())?;
    // The first bind may have chosen the port.
    std::iter::once(Ok(first)).chain((1..count).map(|_| bind(address))).collect()
}

fn cannot_listen(address: SocketAddr, error: Errno) -> String {
    format!("cannot listen on {address}: {}; choose another address with --listen", error.desc())
}

/// The socket passed down by whoever started this process (`LISTEN_FDS`, as systemd does).
fn inherited() -> Result<Option<TcpListener>, String> {
    let mut fds = sd_notify::listen_fds().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let Some(fd) = fds.next() else { return Ok(None) };
    if fds.next().is_some() {
        return Err("LISTEN_FDS: one listener is taken, not several".into());
    }
    // SAFETY: the protocol hands the descriptor to this process, which is the one LISTEN_PID names, and it is taken only here.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    listener.local_addr().map_err(|error| format!("LISTEN_FDS: descriptor {fd} is no TCP listener: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| format!("LISTEN_FDS: {error}"))?;
    // Whoever bound it may not have: accepted sockets inherit it.
    setsockopt(&listener, sockopt::TcpNoDelay, &true).map_err(|error| format!("LISTEN_FDS: {}", error.desc()))?;
    Ok(Some(listener))
}

fn bound(address: SocketAddr, reuse_port: bool) -> nix::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &reuse_port)?;
    // Accepted sockets inherit it on Linux, which saves a system call for each.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}
