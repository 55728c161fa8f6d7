//! One connection without I/O: a state machine that asks for the next step and records its result.
//!
//! A runtime calls [`Connection::step`] in a loop and performs each step with its own I/O; the HTTP logic is all in here. The
//! connection always has pending output written before blocking work starts, because that work may take any amount of time.

mod receiving;

use crate::Service;
use crate::dispatch::Arrival;
use crate::http::answer::{CONTINUE, Form, encode};
use crate::http::{Answer, BodyLength, Refusal, Status, parse_head};
use crate::input::{Input, give_output, take_output};
use crate::routes::{self, Outcome, Request};
use crate::share::{BODIES, Share};
use crate::watch::{Phase, Slot};
use crate::work::{Call, Work};
use receiving::{Receiving, Reply};
use std::borrow::Cow;
use std::io;
use std::os::fd::AsRawFd;
use std::task::Poll;

/// The next step that a connection needs.
#[derive(Debug)]
pub enum Step {
    /// Read into [`Connection::space`], then report the count with [`Connection::received`].
    Read,
    /// Write from [`Connection::unsent`], then report the count with [`Connection::sent`].
    Write,
    /// Let others have a turn: this client has kept the server busy for long enough. A runtime that sees to that itself just goes on.
    Yield,
    /// Run this where the model runs blocking work, then pass the result to [`Connection::answer`].
    Run(Work),
    /// Shut down the sending side of the socket.
    CloseSend,
    /// Close the socket: the connection is done.
    Close,
}

/// The state of one connection: its input, its output, and its progress in the current request.
pub struct Connection {
    service: Service,
    slot: Slot,
    input: Input,
    output: Vec<u8>,
    sent: usize,
    receiving: Option<Box<Receiving>>,
    /// The part of the memory for bodies that the current request holds until it is answered.
    share: Share,
    pending: Option<(Call, Reply)>,
    reply: Reply,
    state: State,
    peer_is_done: bool,
    /// Held until the first request runs, is sent to a pool, is answered, or turns out to be incomplete.
    arrival: Option<Arrival>,
    has_read: bool,
    /// Reads, writes and calls since the socket had nothing to read, or since the last [`Step::Yield`].
    turns: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// `output` holds the last answer.
    LastAnswer,
    /// The sending side is shut down, and further input is read and dropped. Closing a socket with unread bytes would reset the
    /// connection, and the client might lose the answer.
    Lingering,
}

/// Reads, writes and calls of one connection in a row, after which others have their turn: a client that sends without a pause must not freeze the
/// rest. One that asks and waits has that many only for a body of over 100 KiB.
const MOST_TURNS: u8 = 16;

/// The limit for unsent answers, in bytes: beyond it, they are written before the next request is handled.
const HIGH_WATER: usize = 64 * 1024;

impl Connection {
    pub(crate) fn new(service: Service, socket: &impl AsRawFd, arrival: Option<Arrival>) -> Self {
        Connection {
            service,
            slot: service.watch().open(socket, arrival.is_some()),
            input: Input::default(),
            output: Vec::new(),
            sent: 0,
            receiving: None,
            share: Share::of(&BODIES),
            pending: None,
            reply: Reply::default(),
            state: State::Open,
            peer_is_done: false,
            arrival,
            has_read: false,
            turns: 0,
        }
    }

    /// Keeps only the entry in the watch, without a time limit.
    pub(crate) fn into_slot(self) -> Slot {
        self.slot.block();
        self.slot
    }

    /// Returns the next step.
    pub fn step(&mut self) -> Step {
        let step = self.next();
        let counts = matches!(step, Step::Read | Step::Write | Step::Run(_));
        self.turns += u8::from(counts);
        // Work is not handed out twice. Behind it an answer is written.
        if self.turns <= MOST_TURNS || !matches!(step, Step::Read | Step::Write) {
            return step;
        }
        // Asked again, it says the same.
        self.turns = 0;
        Step::Yield
    }

    fn next(&mut self) -> Step {
        loop {
            let must_write_first = self.pending.is_some() || self.state != State::Open || self.output.len() >= HIGH_WATER;
            if self.has_unsent() && must_write_first {
                return Step::Write;
            }
            match self.state {
                State::Open => {}
                State::LastAnswer => {
                    self.state = State::Lingering;
                    self.slot.set(Phase::Lingering);
                    return Step::CloseSend;
                }
                State::Lingering if self.peer_is_done => return Step::Close,
                State::Lingering => return Step::Read,
            }
            if let Some((call, reply)) = self.pending.take() {
                self.reply = reply;
                self.slot.block();
                // Where a pool does it, the loop stays free for the next connection, also while this waits in the pool.
                let arrival = self.arrival.take().filter(|_| !self.service.offloads());
                return Step::Run(Work::new(call, arrival));
            }
            if !self.advance() {
                if self.has_read {
                    self.arrival = None;
                }
                return self.wait();
            }
        }
    }

    /// Space for bytes from the socket; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        self.input.space()
    }

    /// Records that `count` bytes were read into [`Connection::space`]. 0 means that the client sends no more.
    pub fn received(&mut self, count: usize) {
        self.has_read = true;
        self.peer_is_done |= count == 0;
        self.input.add(count);
        if self.state == State::Lingering {
            self.input.clear();
            if count > 0 {
                self.slot.set(Phase::Lingering);
            }
        }
    }

    /// Like [`Connection::received`], for a runtime that reads into its own buffer. Empty means that the client sends no more.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            self.received(0);
        }
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.received(count);
        }
    }

    /// Answers 503 and closes, because the server has no room for this connection. The request may not have been read, and so be a HEAD: the
    /// answer has no body. One that only waits to take its answers has asked for nothing else: then this does nothing, and returns `false`.
    pub fn turn_away(&mut self) -> bool {
        let is_asking = self.receiving.is_some() || self.pending.is_some() || !self.input.bytes().is_empty();
        let is_answered = self.state == State::Open && self.has_unsent() && !is_asking;
        if self.state == State::Open && !is_answered {
            self.receiving = None;
            self.pending = None;
            self.respond(&Answer { body: Cow::Borrowed(b""), ..Answer::busy() }, Reply::default());
        }
        !is_answered
    }

    /// Returns empty buffers to the pool; call it when the socket has nothing to read.
    pub fn rest(&mut self) {
        self.turns = 0;
        self.input.give_back();
        if !self.has_unsent() {
            give_output(std::mem::take(&mut self.output));
        }
    }

    /// One attempt to read, for a runtime that polls: `read` reads into the space that it gets. No buffer is held while nothing has come.
    pub fn poll_read(&mut self, read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>) -> Poll<io::Result<()>> {
        let result = read(self.space());
        if result.is_pending() {
            self.rest();
        }
        result.map_ok(|count| self.received(count))
    }

    /// The bytes to write.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// The buffer that the bytes to write are in, and where they begin, for a runtime whose kernel owns a buffer while it writes it. Hand it back
    /// with [`Connection::hand_back`].
    #[must_use]
    pub fn lend_output(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.output), self.sent)
    }

    /// Takes the buffer of [`Connection::lend_output`] back, of which `count` more bytes were written.
    pub fn hand_back(&mut self, output: Vec<u8>, count: usize) {
        self.output = output;
        self.sent(count);
    }

    /// Records that `count` bytes of [`Connection::unsent`] were written.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if !self.has_unsent() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Takes the answer to the work from [`Step::Run`].
    pub fn answer(&mut self, answer: &Answer) {
        self.respond(answer, self.reply);
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.output.len()
    }

    /// The next step if no further request is complete.
    fn wait(&self) -> Step {
        if self.has_unsent() {
            Step::Write
        } else if self.peer_is_done {
            Step::Close
        } else {
            Step::Read
        }
    }

    /// Handles the next request in the input if it is complete or invalid; false if more input is needed.
    fn advance(&mut self) -> bool {
        let is_complete = if self.receiving.is_some() { self.advance_body() } else { self.advance_head() };
        is_complete.unwrap_or_else(|refusal| {
            self.refuse(refusal);
            true
        })
    }

    fn advance_head(&mut self) -> Result<bool, Refusal> {
        self.skip_empty_lines();
        // By reference: a copy of it would wait for the fields that were written a moment ago.
        let parsed = parse_head(self.input.bytes());
        let head = match &parsed {
            Ok(Some(head)) => head,
            Ok(None) => {
                // The first half of an empty line is no start of a request either.
                if matches!(self.input.bytes(), b"" | b"\r") {
                    self.slot.settle();
                } else {
                    self.slot.begin();
                }
                return Ok(false);
            }
            Err(refusal) => return Err(*refusal),
        };
        let (length, reply) = (head.length, Reply::to(head));
        if head.body == BodyLength::Known(0) {
            let request = Request { method: head.method, target: head.target, is_json: head.is_json, body: Vec::new() };
            let outcome = routes::handle(self.service.context(), request);
            self.input.take(length);
            self.slot.settle();
            self.follow(outcome, reply);
            return Ok(true);
        }
        let expects_continue = head.expects_continue;
        if expects_continue && let Some(answer) = routes::refusal(head) {
            // The client waits for a word before it sends the body, and this one spares it that.
            self.slot.count();
            self.respond(&answer, Reply { keep_alive: false, ..reply });
            return Ok(true);
        }
        self.receiving = Some(Box::new(Receiving::new(head, reply)));
        self.input.take(length);
        if expects_continue && self.input.bytes().is_empty() {
            self.output.extend_from_slice(CONTINUE);
        }
        // The time limit starts here, even if no byte of the body ever arrives, and no byte of it extends the limit.
        self.slot.set(Phase::Body);
        self.advance_body()
    }

    /// A client may send an empty line behind a body (RFC 9112, section 2.2): it is not the start of a request.
    fn skip_empty_lines(&mut self) {
        while self.input.bytes().starts_with(b"\r\n") {
            self.input.take(2);
        }
    }

    /// Whether the head of a further request has arrived, which will be answered, if only to refuse it.
    fn has_next(&mut self) -> bool {
        self.skip_empty_lines();
        !matches!(parse_head(self.input.bytes()), Ok(None))
    }

    fn advance_body(&mut self) -> Result<bool, Refusal> {
        let Some(receiving) = &mut self.receiving else { return Ok(false) };
        let used = receiving.decoder.decode(self.input.bytes(), |bytes| receiving.body.extend_from_slice(bytes))?;
        self.share.grow(receiving.body.len())?;
        self.input.take(used);
        if !receiving.decoder.is_done() {
            return Ok(false);
        }
        if let Some(request) = self.receiving.take() {
            self.slot.settle();
            let Receiving { method, target, is_json, body, reply, .. } = *request;
            let outcome = routes::handle(self.service.context(), Request { method: &method, target: &target, is_json, body });
            self.follow(outcome, reply);
        }
        Ok(true)
    }

    fn follow(&mut self, outcome: Outcome, reply: Reply) {
        self.slot.count();
        match outcome {
            Outcome::Instant(answer) => self.respond(&answer, reply),
            // At work only once the answers before it are written: until then a client that does not take them has its time limit.
            Outcome::Blocking(call) => self.pending = Some((call, reply)),
        }
    }

    fn respond(&mut self, answer: &Answer, reply: Reply) {
        self.arrival = None;
        self.slot.settle();
        self.share = Share::of(&BODIES);
        let close = !reply.keep_alive || self.service.is_draining() && !self.has_next();
        let connection = match (close, reply.is_http10) {
            (true, _) => Some("close"),
            (false, true) => Some("keep-alive"),
            (false, false) => None,
        };
        if self.output.capacity() == 0 {
            self.output = take_output();
        }
        encode(&mut self.output, answer, Form { without_body: reply.without_body, connection });
        if close {
            self.state = State::LastAnswer;
            self.input.clear();
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let without_body = match self.receiving.take() {
            Some(request) => request.reply.without_body,
            None => self.input.bytes().starts_with(b"HEAD "),
        };
        let mut answer = Answer::error(refusal.status, format!("{}\n", refusal.reason));
        answer.retry_after = (refusal.status == Status::ServiceUnavailable).then_some(1);
        self.respond(&answer, Reply { without_body, ..Reply::default() });
    }
}

#[cfg(test)]
mod tests;
