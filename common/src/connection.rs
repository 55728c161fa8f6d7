//! One connection without I/O: a state machine that asks for the next step and records its result.
//!
//! A runtime calls [`Connection::step`] in a loop and performs each step with its own I/O; the HTTP logic is all in here. The
//! connection always has pending output written before blocking work starts, because that work may take any amount of time.

use crate::Service;
use crate::http::answer::{CONTINUE, Form, encode};
use crate::http::{Answer, BodyLength, Decoder, Head, Refusal, parse_head};
use crate::input::{Input, give_output, take_output};
use crate::routes::{self, Outcome};
use crate::watch::{Phase, Slot};
use crate::work::Work;
use std::os::fd::AsFd;

/// The next step that a connection needs.
#[derive(Debug)]
pub enum Step {
    /// Read into [`Connection::space`], then report the count with [`Connection::received`].
    Read,
    /// Write from [`Connection::unsent`], then report the count with [`Connection::sent`].
    Write,
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
    pending: Option<(Work, Reply)>,
    reply: Reply,
    state: State,
    peer_is_done: bool,
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

/// A request whose body is still arriving.
struct Receiving {
    method: String,
    target: String,
    reply: Reply,
    decoder: Decoder,
    body: Vec<u8>,
}

/// The properties of a request that affect the form of its answer.
#[derive(Clone, Copy, Default)]
struct Reply {
    without_body: bool,
    keep_alive: bool,
    is_http10: bool,
}

/// The limit for unsent answers, in bytes: beyond it, they are written before the next request is handled.
const HIGH_WATER: usize = 64 * 1024;

impl Connection {
    pub(crate) fn new(service: Service, socket: &impl AsFd) -> Self {
        Connection {
            service,
            slot: service.watch().open(socket),
            input: Input::default(),
            output: Vec::new(),
            sent: 0,
            receiving: None,
            pending: None,
            reply: Reply::default(),
            state: State::Open,
            peer_is_done: false,
        }
    }

    /// Returns the next step.
    pub fn step(&mut self) -> Step {
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
            if let Some((work, reply)) = self.pending.take() {
                self.reply = reply;
                return Step::Run(work);
            }
            if !self.advance() {
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
        self.peer_is_done |= count == 0;
        self.input.add(count);
        if self.state == State::Lingering {
            self.input.clear();
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

    /// Answers 503 and closes, because the server has no room for this connection.
    pub fn turn_away(&mut self) {
        if self.state == State::Open {
            self.receiving = None;
            self.pending = None;
            self.respond(&Answer::busy(), Reply::default());
        }
    }

    /// Returns empty buffers to the pool; call it when the socket has nothing to read.
    pub fn rest(&mut self) {
        self.input.give_back();
        if !self.has_unsent() {
            give_output(std::mem::take(&mut self.output));
        }
    }

    /// The bytes to write.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.output[self.sent..]
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
        let Some(head) = parse_head(self.input.bytes())? else {
            if !self.input.bytes().is_empty() {
                self.slot.begin();
            }
            return Ok(false);
        };
        let (length, reply) = (head.length, Reply::to(&head));
        if head.body == BodyLength::Known(0) {
            let outcome = routes::handle(self.service.context(), head.method, head.target, Vec::new());
            self.input.take(length);
            self.slot.settle();
            self.follow(outcome, reply);
            return Ok(true);
        }
        let expects_continue = head.expects_continue;
        self.receiving = Some(Box::new(Receiving::new(&head, reply)));
        self.input.take(length);
        if expects_continue && self.input.bytes().is_empty() {
            self.output.extend_from_slice(CONTINUE);
        }
        // The time limit starts here, even if no byte of the body ever arrives.
        self.slot.set(Phase::Receiving);
        self.advance_body()
    }

    fn advance_body(&mut self) -> Result<bool, Refusal> {
        let Some(receiving) = &mut self.receiving else { return Ok(false) };
        let used = receiving.decoder.decode(self.input.bytes(), |bytes| receiving.body.extend_from_slice(bytes))?;
        self.input.take(used);
        if !receiving.decoder.is_done() {
            if used > 0 {
                self.slot.set(Phase::Receiving);
            }
            return Ok(false);
        }
        if let Some(request) = self.receiving.take() {
            self.slot.settle();
            let outcome = routes::handle(self.service.context(), &request.method, &request.target, request.body);
            self.follow(outcome, request.reply);
        }
        Ok(true)
    }

    fn follow(&mut self, outcome: Outcome, reply: Reply) {
        self.slot.count();
        match outcome {
            Outcome::Instant(answer) => self.respond(&answer, reply),
            Outcome::Blocking(work) => self.pending = Some((work, reply)),
        }
    }

    fn respond(&mut self, answer: &Answer, reply: Reply) {
        let close = !reply.keep_alive || self.service.is_draining();
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
        self.receiving = None;
        let answer = Answer::error(refusal.status, format!("{}\n", refusal.reason));
        self.respond(&answer, Reply::default());
    }
}

impl Reply {
    fn to(head: &Head<'_>) -> Self {
        Reply { without_body: head.method == "HEAD", keep_alive: head.keep_alive, is_http10: head.is_http10 }
    }
}

impl Receiving {
    fn new(head: &Head<'_>, reply: Reply) -> Self {
        Receiving {
            method: head.method.into(),
            target: head.target.into(),
            reply,
            decoder: Decoder::new(head.body),
            body: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A connection and the bytes that it has written; it runs blocking work inline.
    struct Client {
        connection: Connection,
        written: Vec<u8>,
        ran: Vec<(Work, usize)>,
        _socket: UnixStream,
    }

    impl Client {
        fn new() -> Self {
            let (socket, _) = UnixStream::pair().unwrap();
            let connection = Connection::new(Service::for_tests(), &socket);
            Client { connection, written: Vec::new(), ran: Vec::new(), _socket: socket }
        }

        /// Sends `bytes`, then steps until the connection waits for input or closes; true if it closes.
        fn send(&mut self, bytes: &[u8]) -> bool {
            let mut left = bytes;
            loop {
                match self.connection.step() {
                    Step::Read if left.is_empty() => return false,
                    Step::Read => {
                        let space = self.connection.space();
                        let count = space.len().min(left.len());
                        space[..count].copy_from_slice(&left[..count]);
                        left = &left[count..];
                        self.connection.received(count);
                    }
                    Step::Write => {
                        // Write only half of the bytes: a short write must not lose any.
                        let count = self.connection.unsent().len().div_ceil(2);
                        self.written.extend_from_slice(&self.connection.unsent()[..count]);
                        self.connection.sent(count);
                    }
                    Step::Run(work) => {
                        self.ran.push((work.clone(), self.written.len()));
                        self.connection.answer(&work.run());
                    }
                    Step::CloseSend => {
                        self.connection.received(0);
                    }
                    Step::Close => return true,
                }
            }
        }

        fn text(&self) -> String {
            String::from_utf8_lossy(&self.written).into_owned()
        }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn answers_pipelined_requests_in_order_and_stays_open() {
        let mut client = Client::new();
        assert!(!client.send(&GET.repeat(3)));
        assert_eq!(client.text().matches("HTTP/1.1 200 OK").count(), 3);
        assert!(!client.text().contains("Connection:"));
    }

    #[test]
    fn writes_pending_answers_before_it_hands_out_blocking_work() {
        let mut client = Client::new();
        client.send(&[GET, b"GET /sleep?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()].concat());
        let (_, written_before) = client.ran[0];
        assert!(written_before > 100, "only {written_before} bytes were written before the work started");
        assert_eq!(client.text().matches("HTTP/1.1 200 OK").count(), 2);
    }

    #[test]
    fn reads_a_body_that_arrives_byte_by_byte_by_length_and_by_chunk() {
        let by_length = "POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n[1, 2]";
        let by_chunk =
            "POST /json/parse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n3\r\n 2]\r\n0\r\n\r\n";
        for request in [by_length, by_chunk] {
            let mut client = Client::new();
            for byte in request.as_bytes() {
                assert!(!client.send(&[*byte]));
            }
            assert_eq!(client.ran[0].0, Work::Parse(b"[1, 2]".to_vec()));
            assert!(client.text().starts_with("HTTP/1.1 200 OK"), "{}", client.text());
        }
    }

    #[test]
    fn sends_100_continue_to_a_client_that_expects_it() {
        let mut client = Client::new();
        client.send(b"POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.text(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(b"[]");
        assert!(client.text().contains("HTTP/1.1 200 OK"));
    }

    #[test]
    fn head_gets_no_body_and_http10_is_closed() {
        let mut client = Client::new();
        assert!(!client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(client.text().ends_with("\r\n\r\n"));
        assert!(client.send(b"GET / HTTP/1.0\r\n\r\n"));
        assert!(client.text().contains("Connection: close"));
    }

    #[test]
    fn refuses_and_closes_and_never_reads_later_bytes_as_a_request() {
        let mut client = Client::new();
        assert!(client.send(&[b"GET / HTTP/1.1\r\n\r\n".as_slice(), GET].concat()));
        assert_eq!(client.text().matches("HTTP/1.1").count(), 1);
        assert!(client.text().starts_with("HTTP/1.1 400 Bad Request"));
    }

    #[test]
    fn a_warm_connection_serves_without_allocating() {
        let mut client = Client::new();
        client.written.reserve(64 * 1024);
        let mut serve = || {
            client.send(GET);
            client.connection.rest();
        };
        serve();
        let before = crate::counting::allocations();
        (0..10).for_each(|_| serve());
        assert_eq!(crate::counting::allocations() - before, 0);
    }

    #[test]
    fn an_idle_connection_holds_no_buffers_and_little_state() {
        let mut client = Client::new();
        client.send(GET);
        client.connection.rest();
        assert_eq!((client.connection.input.capacity(), client.connection.output.capacity()), (0, 0));
        assert!(size_of::<Connection>() + crate::watch::STATE_PER_CONNECTION <= 1024);
    }
}
