//! Requests out, answers in: what happens on the driver's connections.

use super::connection::{Connection, Flight, Want, is_not_yet, own_remedy, reset_on_close, start_connect};
use super::engine::{Due, Engine, Slot};
use super::ledger::nanos;
use crate::http::Step;
use crate::load::Pace;
use anyhow::Result;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::cmp::Reverse;
use std::io::Read;
use std::time::Duration;

/// The wait before a second attempt to connect in a row; each further one waits twice as long, up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// The server gave up waiting for a request on an idle connection.
const REQUEST_TIMEOUT: u16 = 408;
/// The header that names the process that answers.
const WORKER: &str = "X-Worker:";
/// The status with which a server sheds a request.
const NO_ROOM: u16 = 503;

impl Engine<'_> {
    /// Releases a request of an open lane.
    pub(super) fn release_request(&mut self, lane: usize, number: usize, planned: u64) -> Result<()> {
        let now = self.now();
        self.ledger.due(lane, planned, now);
        let state = &mut self.lanes[lane];
        let slot = if self.load.lanes[lane].is_fresh {
            state.free.pop().unwrap_or_else(|| {
                state.slots.push(Slot::default());
                state.slots.len() - 1
            })
        } else {
            number % state.slots.len()
        };
        state.slots[slot].waiting.push_back(Want { planned, is_resent: false });
        self.pump(lane, slot)
    }

    /// Adds requests of a closed lane's slot, up to the number it has in all.
    pub(super) fn want_more(&mut self, lane: usize, slot: usize, count: usize, now: u64) -> Result<()> {
        let Pace::Closed { most, .. } = self.load.lanes[lane].pace else { return Ok(()) };
        for _ in 0..count {
            let one = &mut self.lanes[lane].slots[slot];
            if most.is_some_and(|most| one.wanted >= most) {
                break;
            }
            one.wanted += 1;
            one.waiting.push_back(Want { planned: now, is_resent: false });
            self.ledger.due(lane, now, now);
        }
        self.pump(lane, slot)
    }

    /// Sends what waits in a slot as far as its connection has room; connects if there is none.
    pub(super) fn pump(&mut self, lane: usize, slot: usize) -> Result<()> {
        let (load, now) = (self.load, self.now());
        let one = &load.lanes[lane];
        let place = &mut self.lanes[lane].slots[slot];
        if place.waiting.is_empty() || place.is_backing_off {
            return Ok(());
        }
        let Some(key) = place.connection else { return self.connect(lane, slot) };
        let connection = &mut self.connections[key];
        let room = one.depth().saturating_sub(connection.flights.len());
        let count = room.min(place.waiting.len());
        if connection.is_connecting || connection.is_deaf || count == 0 {
            return Ok(());
        }
        for want in place.waiting.drain(..count) {
            connection.flights.push_back(Flight { want, sent: now, worker: None });
        }
        match connection.send(count) {
            Ok(()) if connection.has_unsent() => self.watch(key),
            Ok(()) => Ok(()),
            Err(error) => self.lose(key, &format!("cannot send: {error}")),
        }
    }

    fn connect(&mut self, lane: usize, slot: usize) -> Result<()> {
        let target = &self.load.lanes[lane].target;
        match start_connect(target.address) {
            Ok((stream, is_connecting)) => {
                self.add(Connection::new(lane, slot, target.request.clone(), stream, is_connecting))?;
                self.pump(lane, slot)
            }
            Err(error) => self.refuse(lane, slot, &error),
        }
    }

    /// Registers a connection in its slot.
    pub(super) fn add(&mut self, connection: Connection) -> Result<()> {
        let (lane, slot) = (connection.lane, connection.slot);
        if let (Some(Ok(mut opened)), 0) = (self.load.opened.as_ref().map(|opened| opened.lock()), lane) {
            opened.push((slot, connection.stream.local_addr()?));
        }
        let writing = if connection.is_connecting { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let key = self.connections.insert(connection);
        self.epoll.add(&self.connections[key].stream, EpollEvent::new(EpollFlags::EPOLLIN | writing, key as u64))?;
        self.lanes[lane].slots[slot].connection = Some(key);
        Ok(())
    }

    fn watch(&mut self, key: usize) -> Result<()> {
        let connection = &self.connections[key];
        let writing = if connection.has_unsent() { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | writing, key as u64);
        Ok(self.epoll.modify(&connection.stream, &mut event)?)
    }

    /// The socket takes bytes again, or its connection is established or refused. Returns whether the connection is gone.
    pub(super) fn is_writable(&mut self, key: usize) -> Result<bool> {
        let connection = &mut self.connections[key];
        let (lane, slot) = (connection.lane, connection.slot);
        if connection.is_connecting {
            if let Some(error) = connection.stream.take_error()? {
                self.remove(key);
                self.refuse(lane, slot, &error)?;
                return Ok(true);
            }
            connection.is_connecting = false;
            self.watch(key)?;
            self.pump(lane, slot)?;
        } else if let Err(error) = connection.flush() {
            self.lose(key, &format!("cannot send: {error}"))?;
            return Ok(true);
        } else {
            self.watch(key)?;
        }
        Ok(!self.connections.contains(key))
    }

    pub(super) fn receive(&mut self, key: usize) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.connections[key].stream.read(&mut buffer);
        let now = self.now();
        self.ledger.read_after(self.connections[key].lane, now.saturating_sub(self.readable_since));
        let outcome = match result {
            Ok(0) => self.end_of_stream(key, now),
            Ok(count) => self.take_bytes(key, &buffer[..count], now),
            Err(error) if is_not_yet(&error) => Ok(()),
            Err(error) => self.lose(key, &format!("cannot receive: {error}")),
        };
        self.buffer = buffer;
        outcome
    }

    /// Takes the answers out of the bytes.
    fn take_bytes(&mut self, key: usize, bytes: &[u8], now: u64) -> Result<()> {
        let load = self.load;
        let mut rest = bytes;
        while !rest.is_empty() {
            let connection = &mut self.connections[key];
            let target = &load.lanes[connection.lane].target;
            if connection.flights.is_empty() {
                // Some servers send a line end behind a body, which does not count it.
                if rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                    break;
                }
                return self.take_unasked(key, rest, now);
            }
            let (reader, check, mut flight) = (&mut connection.reader, &mut connection.check, connection.flights.front_mut());
            let mut ended = None;
            let used = reader.read(rest, target.is_head, |step| match step {
                Step::Head(_, bytes) => {
                    if let (Some(_), Some(flight)) = (&load.live, flight.as_deref_mut()) {
                        flight.worker = worker(bytes);
                    }
                }
                Step::Body(piece) => check.feed(piece, target.body.as_ref()),
                Step::End(head) => ended = Some(head),
            });
            match used {
                Ok(used) => rest = &rest[used..],
                Err(what) => return self.lose_for_good(key, &what),
            }
            let Some(head) = ended else { break };
            if head.status == REQUEST_TIMEOUT && head.closes && target.status != REQUEST_TIMEOUT && connection.answered > 0 {
                // It gave up on the idle connection in the moment in which the request was sent.
                return self.lose_or_resend(key, "the server closed the connection with status 408", true);
            }
            self.complete(key, head.status, now);
            let closes = head.closes || self.lanes[self.connections[key].lane].asks_to_close;
            if closes {
                // The answer is whole, and whoever closes first keeps the port for a minute.
                reset_on_close(&self.connections[key].stream);
            }
            if closes || self.connections[key].is_answered_early() {
                return self.close(key, now);
            }
        }
        let connection = &self.connections[key];
        if load.lanes[connection.lane].is_fresh && connection.flights.is_empty() {
            return self.close(key, now);
        }
        let (lane, slot) = (connection.lane, connection.slot);
        self.refill(lane, slot, now)
    }

    /// Bytes on an idle connection: status 408, with which a server says that it closes it, or a protocol error.
    fn take_unasked(&mut self, key: usize, bytes: &[u8], now: u64) -> Result<()> {
        let is_timeout = bytes.get(..12).is_some_and(|start| start.starts_with(b"HTTP/1.") && start.ends_with(b" 408"));
        let lane = self.connections[key].lane;
        if is_timeout {
            self.ledger.recording(lane).idle_closes += 1;
        } else {
            self.ledger.recording(lane).unasked += 1;
        }
        self.close(key, now)
    }

    fn end_of_stream(&mut self, key: usize, now: u64) -> Result<()> {
        let connection = &mut self.connections[key];
        match connection.reader.end() {
            Ok(Some(head)) => {
                self.complete(key, head.status, now);
                self.close(key, now)
            }
            Ok(None) if connection.flights.is_empty() && !connection.is_connecting => {
                let lane = connection.lane;
                let slot = connection.slot;
                self.ledger.recording(lane).idle_closes += 1;
                self.remove(key);
                // What could not be sent on it any more waits.
                self.pump(lane, slot)
            }
            Ok(None) => self.lose(key, "the server closed the connection without an answer"),
            Err(what) => self.lose_for_good(key, &what),
        }
    }

    /// Records the oldest request in flight as answered.
    fn complete(&mut self, key: usize, status: u16, now: u64) {
        let load = self.load;
        let connection = &mut self.connections[key];
        let Some(flight) = connection.flights.pop_front() else { return };
        connection.answered += 1;
        let (lane, slot) = (connection.lane, connection.slot);
        let wrong = connection.check.finish(status, &load.lanes[lane].target);
        let place = &mut self.lanes[lane].slots[slot];
        place.failures = 0;
        place.settled += 1;
        if let Some(pause) = load.lanes[lane].sheds.filter(|_| status == NO_ROOM) {
            place.pause = Some(pause);
            return self.ledger.shed(lane, flight, now);
        }
        if wrong.is_some() {
            place.pause = load.lanes[lane].rests;
        }
        self.ledger.answer(lane, slot, flight, status, wrong.as_deref(), now);
    }

    /// Sends what settled requests made room for. Whatever ends a connection ends here, or the slot of a closed lane would fall silent.
    fn refill(&mut self, lane: usize, slot: usize, now: u64) -> Result<()> {
        let place = &mut self.lanes[lane].slots[slot];
        let (pause, settled) = (place.pause.take(), std::mem::take(&mut place.settled));
        match self.load.lanes[lane].pace {
            Pace::Closed { think, .. } if think.is_zero() && pause.is_none() && now < self.ledger.window.end => {
                self.want_more(lane, slot, settled, now)
            }
            Pace::Closed { think, .. } if settled > 0 => {
                let think = pause.unwrap_or(think);
                self.due.push(Reverse((now + nanos(think), Due::Start { lane, slot, count: settled })));
                self.pump(lane, slot)
            }
            _ => self.pump(lane, slot),
        }
    }

    /// Ends a connection in good order after its last answer; what was sent behind that goes out again.
    fn close(&mut self, key: usize, now: u64) -> Result<()> {
        let connection = self.remove(key);
        let (lane, slot) = (connection.lane, connection.slot);
        if self.load.lanes[lane].is_fresh && self.load.lanes[lane].is_open() {
            self.lanes[lane].free.push(slot);
            return Ok(());
        }
        self.resend(&connection);
        self.refill(lane, slot, now)
    }

    /// Puts the requests in flight of a connection that is gone back in front of those that wait.
    fn resend(&mut self, connection: &Connection) {
        let (lane, slot) = (connection.lane, connection.slot);
        self.ledger.recording(lane).resent += connection.flights.len() as u64;
        for flight in connection.flights.iter().rev() {
            self.lanes[lane].slots[slot].waiting.push_front(Want { is_resent: true, ..flight.want });
        }
    }

    /// A connection broke, and nothing says whether the server has acted on what was in flight.
    fn lose(&mut self, key: usize, what: &str) -> Result<()> {
        self.lose_or_resend(key, what, false)
    }

    /// A connection broke: what was in flight on it fails, unless the lane retries, the connection had worked before, no byte of the answer has
    /// come, and to ask twice does no harm (RFC 9110, 9.2.2).
    fn lose_or_resend(&mut self, key: usize, what: &str, is_unread: bool) -> Result<()> {
        let connection = &self.connections[key];
        let one = &self.load.lanes[connection.lane];
        let may_resend = one.retries
            && connection.answered > 0
            && !connection.flights.is_empty()
            && !connection.reader.is_within()
            && connection.flights.iter().all(|flight| !flight.want.is_resent);
        if !may_resend {
            return self.lose_for_good(key, what);
        }
        if !is_unread && !one.target.is_idempotent() {
            let method = one.target.method();
            return self.lose_for_good(key, &format!("{what}; a {method} that the server may have acted on is not sent again"));
        }
        let connection = self.remove(key);
        self.resend(&connection);
        self.refill(connection.lane, connection.slot, self.now())
    }

    /// A connection broke: what was in flight on it fails.
    fn lose_for_good(&mut self, key: usize, what: &str) -> Result<()> {
        let connection = self.remove(key);
        let (lane, slot, now) = (connection.lane, connection.slot, self.now());
        let place = &mut self.lanes[lane].slots[slot];
        place.settled += connection.flights.len();
        place.pause = self.load.lanes[lane].rests.filter(|_| !connection.flights.is_empty()).or(place.pause);
        for flight in connection.flights {
            self.ledger.fail(lane, slot, flight.want, now, what);
        }
        if self.load.lanes[lane].is_fresh && self.load.lanes[lane].is_open() {
            self.lanes[lane].free.push(slot);
            return Ok(());
        }
        let one = &self.load.lanes[lane];
        if connection.answered == 0 && (one.retries || !one.is_open()) {
            self.back_off(lane, slot, now);
        }
        self.refill(lane, slot, now)
    }

    /// A connection was refused, or this machine has none left. A lane that retries waits and tries again; otherwise the requests that wait for it fail.
    fn refuse(&mut self, lane: usize, slot: usize, error: &std::io::Error) -> Result<()> {
        let one = &self.load.lanes[lane];
        let now = self.now();
        let what = format!("cannot connect: {error}");
        let recording = self.ledger.recording(lane);
        match own_remedy(error) {
            Some(remedy) => recording.lack(&format!("cannot open a connection: {error}: {remedy}")),
            None => recording.refuse(&what),
        }
        let is_single = one.is_fresh && one.is_open();
        if one.retries || !one.is_open() {
            self.back_off(lane, slot, now);
        }
        if !one.retries {
            let waiting = std::mem::take(&mut self.lanes[lane].slots[slot].waiting);
            self.lanes[lane].slots[slot].settled += waiting.len();
            waiting.into_iter().for_each(|want| self.ledger.fail(lane, slot, want, now, &what));
            if is_single {
                self.lanes[lane].free.push(slot);
            } else if !one.is_open() {
                return self.refill(lane, slot, now);
            }
        }
        Ok(())
    }

    /// Plans the next attempt to connect, each failure in a row later than the one before.
    fn back_off(&mut self, lane: usize, slot: usize, now: u64) {
        let place = &mut self.lanes[lane].slots[slot];
        let wait = BACK_OFF.0 * 2_u32.saturating_pow(place.failures.min(16));
        place.failures += 1;
        place.is_backing_off = true;
        self.due.push(Reverse((now + nanos(wait.min(BACK_OFF.1)), Due::Retry { lane, slot })));
    }

    fn remove(&mut self, key: usize) -> Connection {
        let connection = self.connections.remove(key);
        self.lanes[connection.lane].slots[connection.slot].connection = None;
        let _ = self.epoll.delete(&connection.stream);
        // Fresh connections would otherwise use up all ports. Others are few, and end as clients end them.
        if self.load.lanes[connection.lane].is_fresh || !connection.flights.is_empty() {
            reset_on_close(&connection.stream);
        }
        connection
    }
}

/// The process that answers, as the server's header names it.
fn worker(head: &[u8]) -> Option<u32> {
    let head = std::str::from_utf8(head).ok()?;
    let is_named = |line: &&str| line.get(..WORKER.len()).is_some_and(|name| name.eq_ignore_ascii_case(WORKER));
    head.lines().find(is_named)?[WORKER.len()..].trim().parse().ok()
}
