//! One connection of the driver: the requests in flight on it, and the answer that is being read.

use crate::http::Reader;
use crate::load::Target;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Bytes that are sent in a row on one connection, before others are looked at.
const AT_ONCE: usize = 256 * 1024;
/// Requests that one write sends at most.
const SLICES: usize = 64;

/// A request that waits for a connection; times are nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub planned: u64,
    /// It was sent before, on a connection that closed.
    pub is_resent: bool,
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub want: Want,
    pub sent: u64,
    /// The process that answers it, if somebody watches and the server says so.
    pub worker: Option<u32>,
}

/// A connection.
pub(super) struct Connection {
    pub lane: usize,
    /// The slot of the lane that it fills.
    pub slot: usize,
    pub stream: TcpStream,
    /// It is not established yet.
    pub is_connecting: bool,
    /// Requests in flight, oldest first.
    pub flights: VecDeque<Flight>,
    /// Answers so far.
    pub answered: u64,
    pub reader: Reader,
    pub check: BodyCheck,
    /// The server takes no more bytes. What it has said before can still be read, and the end of the stream behind that ends the connection.
    pub is_deaf: bool,
    request: Arc<[u8]>,
    /// Requests of which some bytes are still to be sent, and how many of the first one's are not.
    owed: usize,
    sent: usize,
}

impl Connection {
    pub fn new(lane: usize, slot: usize, request: Arc<[u8]>, stream: TcpStream, is_connecting: bool) -> Self {
        Connection {
            lane,
            slot,
            stream,
            is_connecting,
            flights: VecDeque::new(),
            answered: 0,
            reader: Reader::default(),
            check: BodyCheck::default(),
            is_deaf: false,
            request,
            owed: 0,
            sent: 0,
        }
    }

    /// Sends the request `count` times; what the socket does not take waits.
    pub fn send(&mut self, count: usize) -> std::io::Result<()> {
        self.owed += count;
        self.flush()
    }

    /// Sends what waits, up to a bound: others wait for their turn meanwhile.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let mut left = AT_ONCE;
        while self.owed > 0 && left > 0 {
            let length = self.request.len().max(1);
            let whole = self.owed.min(SLICES).min(left.div_ceil(length));
            let written = if whole == 1 {
                let rest = &self.request[self.sent..];
                self.stream.write(&rest[..rest.len().min(left)])
            } else {
                let mut slices = [IoSlice::new(&self.request); SLICES];
                slices[0] = IoSlice::new(&self.request[self.sent..]);
                self.stream.write_vectored(&slices[..whole])
            };
            match written {
                Ok(written) => {
                    let sent = self.sent + written;
                    (self.owed, self.sent) = (self.owed - sent / length, sent % length);
                    left = left.saturating_sub(written);
                }
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return self.fail_to_send(error),
            }
        }
        Ok(())
    }

    /// A server may answer before it has read all, and close: its answer must not be lost to the error of a send.
    fn fail_to_send(&mut self, error: std::io::Error) -> std::io::Result<()> {
        if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
            return Err(error);
        }
        self.is_deaf = true;
        (self.owed, self.sent) = (0, 0);
        Ok(())
    }

    /// Whether the last answer came before its request was sent whole. Nobody knows what the server makes of the rest.
    pub fn is_answered_early(&self) -> bool {
        self.is_deaf || self.owed > self.flights.len()
    }

    /// Whether the socket owes sending.
    pub fn has_unsent(&self) -> bool {
        self.owed > 0
    }
}

/// Compares a body with the right one as it comes.
#[derive(Debug, Default)]
pub(super) struct BodyCheck {
    at: usize,
    is_wrong: bool,
}

impl BodyCheck {
    pub fn feed(&mut self, piece: &[u8], expected: Option<&Arc<[u8]>>) {
        let end = self.at + piece.len();
        self.is_wrong |= expected.is_some_and(|expected| expected.get(self.at..end) != Some(piece));
        self.at = end;
    }

    /// What is wrong with the answer that has just ended; the next one starts afresh.
    pub fn finish(&mut self, status: u16, target: &Target) -> Option<String> {
        let check = std::mem::take(self);
        if status != target.status {
            return Some(format!("status {status} instead of {}", target.status));
        }
        let is_short = target.body.as_ref().is_some_and(|expected| expected.len() != check.at);
        (check.is_wrong || is_short).then(|| format!("a body of {} bytes that is not the expected one", check.at))
    }
}

/// Starts to connect. Returns whether the connection still is on its way.
pub(super) fn start_connect(address: SocketAddr) -> std::io::Result<(TcpStream, bool)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    let is_connecting = match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => false,
        Err(Errno::EINPROGRESS) => true,
        Err(error) => return Err(error.into()),
    };
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    Ok((stream, is_connecting))
}

/// What to do about an attempt to connect that failed since this machine had nothing left for it; `None` where the server, or the way to it, refused.
pub(super) fn own_remedy(error: &std::io::Error) -> Option<&'static str> {
    match Errno::from_raw(error.raw_os_error()?) {
        Errno::EMFILE => Some("raise ulimit -n, or use fewer connections"),
        Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => Some("use fewer connections"),
        Errno::EADDRNOTAVAIL => Some("no local port is left: use fewer connections, or open them more slowly"),
        _ => None,
    }
}

/// Closing then resets: a server need not finish what nobody waits for, and no port stays occupied for a minute.
pub(super) fn reset_on_close(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
}

pub(super) fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
