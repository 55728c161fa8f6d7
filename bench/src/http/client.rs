//! A plain client: one connection, one request after another. For checks and preparations, never for load.

use super::{Head, Reader, Step};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long each step of a check may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server that has said something and reads no further for this time has given its answer.
const READS_ON: Duration = Duration::from_secs(1);
/// The longest body that is kept.
const MAX_BODY: usize = 256 << 20;

/// A response, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// The lines of the head, the status line first.
    pub head: Vec<String>,
    /// Body.
    pub body: Vec<u8>,
    /// Whether the server says that it closes.
    pub closes: bool,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// The connection ended before any byte of an answer.
#[derive(Debug)]
pub struct Unanswered;

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection closed without an answer")
    }
}

impl std::error::Error for Unanswered {}

/// A connection.
pub struct Client {
    stream: TcpStream,
    patience: Duration,
    input: Vec<u8>,
}

impl Client {
    /// Connects; each later step, such as a whole answer, may take ten seconds.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Self::connect_with(address, PATIENCE)
    }

    /// Connects; each later step may take this long.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect_with(address: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { stream, patience, input: Vec::new() })
    }

    /// Lets each later step take this long.
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")
    }

    /// Closes the sending side.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn end(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Reads one response; `is_head` says that it has no body.
    ///
    /// # Errors
    /// No response, one that does not end in time or is very long, or one that is not HTTP.
    pub fn receive(&mut self, is_head: bool) -> Result<Response> {
        self.receive_until(is_head, Instant::now() + self.patience)
    }

    fn receive_until(&mut self, is_head: bool, end: Instant) -> Result<Response> {
        let mut reader = Reader::default();
        let (mut lines, mut body, mut ended) = (Vec::new(), Vec::new(), None);
        loop {
            let input = std::mem::take(&mut self.input);
            let take = |step: Step<'_>| match step {
                Step::Head(_, bytes) => lines = head_lines(bytes),
                Step::Body(piece) => body.extend_from_slice(piece),
                Step::End(head) => ended = Some(head),
            };
            let used = reader.read(&input, is_head, take).map_err(anyhow::Error::msg)?;
            self.input = input[used..].to_vec();
            if let Some(Head { status, closes }) = ended {
                return Ok(Response { status, head: lines, body, closes });
            }
            if body.len() > MAX_BODY {
                bail!("the answer's body is longer than {} MiB: name a path with a shorter one", MAX_BODY >> 20);
            }
            let late = if reader.is_within() { "no end of the answer" } else { "no answer" };
            let filled = match self.fill(end, late) {
                Err(error) if is_reset(&error) && !reader.is_within() => return Err(error.context(Unanswered)),
                filled => filled?,
            };
            if !filled {
                return match reader.end().map_err(anyhow::Error::msg)? {
                    Some(Head { status, closes }) => Ok(Response { status, head: lines, body, closes }),
                    None => Err(Unanswered.into()),
                };
            }
        }
    }

    /// Reads the head of an interim response (1xx), which comes before the final one, and returns its status.
    ///
    /// # Errors
    /// The connection ends before, or the head is not HTTP.
    pub fn receive_interim(&mut self) -> Result<u16> {
        let until = Instant::now() + self.patience;
        let end = loop {
            match self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.fill(until, "no answer")? => {}
                None => return Err(Unanswered.into()),
            }
        };
        let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
        self.input.drain(..end);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.with_context(|| format!("'{}' is not a status line", head.lines().next().unwrap_or_default()))
    }

    /// Sends one request and reads its response, which may come before all is sent.
    ///
    /// # Errors
    /// As of its parts.
    pub fn ask(&mut self, request: &[u8]) -> Result<Response> {
        let is_head = request.starts_with(b"HEAD ");
        let end = Instant::now() + self.patience;
        // Nobody knows what the server makes of the rest of a request that it has answered before it was sent whole.
        let early = |response| Response { closes: true, ..response };
        match self.send_until(request, is_head, end) {
            Ok(true) => self.receive_until(is_head, end),
            Ok(false) => self.receive_until(is_head, end).map(early),
            Err(error) if is_reset(&error) => self.receive_until(is_head, end).map(early).map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    /// Sends a request, and takes in what the server says meanwhile. Returns whether it is sent whole: a server may answer without reading on.
    fn send_until(&mut self, request: &[u8], is_head: bool, end: Instant) -> Result<bool> {
        let mut rest = request;
        loop {
            match send(self.stream.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) if count == rest.len() => return Ok(true),
                Ok(count) => {
                    rest = &rest[count..];
                    continue;
                }
                Err(error) if is_not_yet(&error.into()) => {}
                Err(error) => return Err(std::io::Error::from(error)).context("cannot send"),
            }
            crate::console::interrupt::check()?;
            let has_spoken = !self.input.is_empty();
            let left = end.saturating_duration_since(Instant::now());
            let left = if has_spoken { left.min(READS_ON) } else { left };
            let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
            // Rounded up, so that the last wait is not a busy one.
            let is_late = poll(&mut fds, PollTimeout::try_from(left + Duration::from_millis(1))?) == Ok(0);
            let has_more = fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
            // What has begun to answer may still want the rest.
            if is_late && is_whole(&self.input, is_head) || has_more && !self.fill(end, "no answer")? {
                return Ok(false);
            }
            if is_late && Instant::now() >= end {
                bail!("cannot send: the server does not read on within {} s", seconds(self.patience));
            }
        }
    }

    /// Waits until the server closes without sending another byte.
    ///
    /// # Errors
    /// It stays open, or sends something.
    pub fn expect_close(&mut self) -> Result<()> {
        if !self.input.is_empty() {
            bail!("sends more than was asked for: {:?}", String::from_utf8_lossy(&self.input));
        }
        match self.fill(Instant::now() + self.patience, "no end") {
            Ok(false) => Ok(()),
            Ok(true) => bail!("sends more than was asked for: {:?}", String::from_utf8_lossy(&self.input)),
            Err(error) if is_reset(&error) => Ok(()),
            Err(error) => Err(error.context("stays open")),
        }
    }

    /// Whether something has arrived that was not read yet.
    pub fn has_more(&self) -> bool {
        let is_waiting =
            self.stream.set_nonblocking(true).is_ok() && matches!(self.stream.peek(&mut [0]), Ok(count) if count > 0);
        let _ = self.stream.set_nonblocking(false);
        !self.input.is_empty() || is_waiting
    }

    /// Whether the server has closed the connection, as far as it is known now.
    pub fn has_ended(&self) -> bool {
        let is_nonblocking = self.stream.set_nonblocking(true).is_ok();
        let has_ended = match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        let _ = self.stream.set_nonblocking(false);
        is_nonblocking && has_ended
    }

    /// This side's address.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Reads what has come; `late` is what is said if nothing comes until `end`, however much came before.
    fn fill(&mut self, end: Instant, late: &str) -> Result<bool> {
        let mut piece = [0; 64 * 1024];
        let count = loop {
            // A signal is the user's, or one that stopped this process for a while.
            crate::console::interrupt::check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{late} within {} s", seconds(self.patience));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut piece) {
                Err(error) if is_not_yet(&error) => {}
                result => break result.context("cannot receive")?,
            }
        };
        self.input.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }
}

/// A time in seconds, as precise as it is of interest.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}

/// Whether bytes hold a whole answer.
fn is_whole(bytes: &[u8], is_head: bool) -> bool {
    let mut is_whole = false;
    let read = Reader::default().read(bytes, is_head, |step| is_whole |= matches!(step, Step::End(_)));
    // What is no HTTP is not waited for.
    is_whole || read.is_err()
}

fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether the other side has ended the connection by a reset.
pub fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// The lines of a head without the empty one.
fn head_lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// What a client says of a server that sends these pieces, one after another without an end.
    fn of_endless(head: &'static [u8], piece: &'static [u8], patience: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(head);
            if piece.is_empty() {
                // Silent until the client goes.
                return drop(stream.read(&mut [0; 512]));
            }
            while stream.write_all(piece).is_ok() {
                // As an event stream does; a client that only notices silence would wait for ever.
                if piece.len() < 100 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Client::connect_with(address, patience).unwrap().receive(false).unwrap_err().to_string()
    }

    #[test]
    fn an_answer_without_an_end_is_not_waited_for() {
        let patience = Duration::from_millis(200);
        let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        assert_eq!(of_endless(events, b"data: x\n\n", patience), "no end of the answer within 0.2 s");
        assert_eq!(of_endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", patience), "no end of the answer within 0.2 s");
        assert_eq!(of_endless(b"", b"", patience), "no answer within 0.2 s");
    }

    #[test]
    fn an_answer_before_the_request_is_sent_whole_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        });
        let large = vec![b'x'; 32 << 20];
        assert_eq!(Client::connect(address).unwrap().ask(&large).unwrap().status, 413);
    }

    #[test]
    fn an_answer_of_a_server_that_neither_reads_on_nor_closes_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (client_is_done, is_done) = std::sync::mpsc::channel::<()>();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
            // Open until the client has its answer.
            let _ = is_done.recv();
        });
        let large = vec![b'x'; 32 << 20];
        let response = Client::connect(address).unwrap().ask(&large).unwrap();
        drop(client_is_done);
        assert_eq!((response.status, response.closes), (401, true));
    }

    #[test]
    fn a_server_that_reads_while_it_answers_gets_the_whole_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let large = vec![b'x'; 32 << 20];
        let length = large.len();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
            // The server under test pauses: for longer than the client goes on sending to one that has answered in full.
            thread::sleep(READS_ON + READS_ON / 5);
            let (mut piece, mut left) = (vec![0; 1 << 16], length);
            while left > 0 {
                let count = stream.read(&mut piece).unwrap();
                stream.write_all(&piece[..count]).unwrap();
                left -= count;
            }
        });
        let response = Client::connect(address).unwrap().ask(&large).unwrap();
        assert_eq!((response.status, response.body.len(), response.closes), (200, length, false));
    }

    #[test]
    fn an_answer_that_would_fill_the_memory_is_refused() {
        let long: &[u8] = Box::leak(vec![b'x'; 1 << 20].into_boxed_slice());
        let refused = of_endless(b"HTTP/1.1 200 OK\r\n\r\n", long, Duration::from_secs(60));
        assert!(refused.contains("longer than 256 MiB: name a path"), "{refused}");
    }
}
