//! Opening the kept connections before a run.

use super::connection::{Connection, own_remedy, start_connect};
use super::engine::Engine;
use crate::console::interrupt;
use crate::http::{Reader, Step};
use crate::load::{Target, asks_to_close};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// All connections may take this long to be established and to ask once. What is not done by then waits as part of the run: a server that
/// takes one connection at a time is measured, not timed out.
const OPENING: Duration = Duration::from_secs(2);
/// A first request that takes longer is not waited for, nor is any other: the server is busy with another connection.
const FIRST_ANSWER: Duration = Duration::from_millis(250);

/// The end of a first request.
enum Primed {
    /// The connection is ready for more.
    Ready,
    /// The server closes after each answer.
    Closed,
    /// No answer in time.
    Slow,
}

impl Engine<'_> {
    /// Opens the kept connections in a random order: which worker a connection falls to must not depend on its role.
    pub(super) fn open_connections(&mut self) -> Result<()> {
        let load = self.load;
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (lane, one) in load.lanes.iter().enumerate() {
            let count = if one.is_fresh { 0 } else { one.connections };
            order.extend((0..count).map(|slot| (lane, slot)));
        }
        self.random.shuffle(&mut order);
        let end = Instant::now() + OPENING;
        let mut primes = true;
        let mut on_demand = vec![false; load.lanes.len()];
        let (mut is_any_open, mut refused) = (false, None);
        for (lane, slot) in order {
            interrupt::check()?;
            // A server that closes after each answer would only be kept waiting by idle connections: they are opened when they are needed.
            if on_demand[lane] {
                continue;
            }
            let (one, left) = (&load.lanes[lane], FIRST_ANSWER.min(end.saturating_duration_since(Instant::now())));
            let primer = one.primer.as_ref().filter(|_| primes && !left.is_zero());
            // Where it cannot ask, a client of somebody's service connects when it has a request.
            if one.retries && one.primer.is_some() && primer.is_none() {
                continue;
            }
            match open(one.target.address, primer, left) {
                Ok(Opened::Ready(stream, is_connecting)) => {
                    self.add(Connection::new(lane, slot, one.target.request.clone(), stream, is_connecting))?;
                    is_any_open = true;
                }
                // Another one would be as silent.
                Ok(Opened::Slow(..)) if one.retries => (is_any_open, primes) = (true, false),
                Ok(Opened::Slow(stream, is_connecting)) => {
                    self.add(Connection::new(lane, slot, one.target.request.clone(), stream, is_connecting))?;
                    (is_any_open, primes) = (true, false);
                }
                Ok(Opened::Closed) => (is_any_open, on_demand[lane]) = (true, true),
                // Who watches sees what fails from the first request on, so connections are opened when they are needed.
                Err(error) if load.live.is_some() && own_remedy_of(&error).is_none() => on_demand[lane] = true,
                // A server may take some connections and refuse others: these are tried again when they are needed.
                Err(error) if one.retries && own_remedy_of(&error).is_none() => {
                    self.ledger.recording(lane).refuse(&format!("{error:#}"));
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(error) if !is_any_open => Err(error),
            _ => Ok(()),
        }
    }
}

/// A kept connection before the run: ready, though it may still be on its way; ready, but the server is slow; or not to be kept, since the server closes
/// after each answer.
enum Opened {
    Ready(TcpStream, bool),
    Slow(TcpStream, bool),
    Closed,
}

/// Opens a connection, and asks once on it if it is to be primed.
fn open(address: SocketAddr, primer: Option<&Target>, patience: Duration) -> Result<Opened> {
    let words = |error: anyhow::Error| {
        let remedy = own_remedy_of(&error).map_or(String::new(), |remedy| format!(": {remedy}"));
        error.context(format!("cannot connect to {address}{remedy}"))
    };
    let (stream, is_connecting) = connect(address, patience).map_err(words)?;
    let Some(primer) = primer.filter(|_| !is_connecting) else { return Ok(Opened::Ready(stream, is_connecting)) };
    Ok(match prime(&stream, primer, patience)? {
        Primed::Ready => Opened::Ready(stream, false),
        Primed::Closed => Opened::Closed,
        Primed::Slow => {
            let (stream, is_connecting) = connect(address, patience).map_err(words)?;
            Opened::Slow(stream, is_connecting)
        }
    })
}

/// What to do about an error that is this machine's own.
fn own_remedy_of(error: &anyhow::Error) -> Option<&'static str> {
    error.downcast_ref::<std::io::Error>().and_then(own_remedy)
}

/// Connects, and waits a while for the connection to be established. Returns whether it still is on its way.
fn connect(address: SocketAddr, patience: Duration) -> Result<(TcpStream, bool)> {
    let (stream, is_connecting) = start_connect(address)?;
    if !is_connecting || patience.is_zero() {
        return Ok((stream, is_connecting));
    }
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    let is_ready = poll(&mut fds, PollTimeout::try_from(patience)?).unwrap_or(0) > 0;
    match stream.take_error()? {
        Some(error) => Err(error.into()),
        None => Ok((stream, !is_ready)),
    }
}

/// Asks once and waits for the right answer.
fn prime(mut stream: &TcpStream, target: &Target, patience: Duration) -> Result<Primed> {
    if patience.is_zero() {
        return Ok(Primed::Slow);
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    match stream.write_all(&target.request) {
        // It may have answered before it has read all.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Primed::Slow),
        sent => sent?,
    }
    let (mut reader, mut buffer, mut ended) = (Reader::default(), vec![0; 64 * 1024], None);
    while ended.is_none() {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Primed::Slow),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                interrupt::check()?;
                continue;
            }
            other => other.context("a new connection got no answer")?,
        };
        let mut take = |step: Step<'_>| {
            if let Step::End(head) = step {
                ended = Some(head);
            }
        };
        if count == 0 {
            ended = reader.end().map_err(anyhow::Error::msg)?;
            if ended.is_none() {
                bail!("the server closed a new connection without an answer");
            }
        } else {
            reader.read(&buffer[..count], target.is_head, &mut take).map_err(anyhow::Error::msg)?;
        }
    }
    stream.set_nonblocking(true)?;
    let closes = ended.is_some_and(|head| head.closes) || asks_to_close(&target.request);
    Ok(if closes { Primed::Closed } else { Primed::Ready })
}
