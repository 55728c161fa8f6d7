//! Clients of the daemon: commands at the other end of the control socket. A client that hangs does not affect the others.

use super::Source;
use crate::control::{Answer, Request};
use crate::poll::{Poller, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Time limit for a client to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request in bytes; environments and command lines make requests long, and the kernel takes up to a quarter of the stack's limit of them.
pub const LONGEST: usize = 16 * 1024 * 1024;
/// Most clients at once; the daemon turns further ones away.
const MOST: usize = 64;

/// All connected clients.
#[derive(Default)]
pub struct Clients {
    all: BTreeMap<u64, Client>,
    next: u64,
}

struct Client {
    stream: UnixStream,
    token: Token,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Deadline to send the request or to read the answer; `None` while the daemon works on the request.
    due: Option<Instant>,
    /// Its request has been read.
    has_asked: bool,
    /// It sends nothing more, and still waits for the answer.
    is_half_closed: bool,
    is_answered: bool,
}

/// What a client sends.
pub enum Word {
    /// Nothing yet, or not all of it.
    None,
    Request(Request),
    /// Something that is not a request, and why.
    Wrong(String),
    /// It has gone.
    Gone,
}

impl Clients {
    /// Accepts a client if it belongs to the same user or to root.
    ///
    /// # Errors
    /// Fails if no descriptors are left.
    pub fn accept(&mut self, mut stream: UnixStream, poller: &mut Poller<Source>) -> io::Result<()> {
        let is_ours = socket_peercred(&stream).is_ok_and(|peer| peer.uid == geteuid() || peer.uid.is_root());
        if !is_ours {
            return Ok(());
        }
        stream.set_nonblocking(true)?;
        if self.all.len() >= MOST {
            let answer = Answer::Error(format!("{MOST} other commands wait for the supervisor: retry when one of them is done"));
            // Whoever does not read it has gone.
            let _ = stream.write_all(&line(&answer));
            return Ok(());
        }
        self.next += 1;
        let token = poller.add(&stream, Source::Client(self.next))?;
        let client = Client {
            stream,
            token,
            input: Vec::new(),
            output: Vec::new(),
            due: Some(Instant::now() + PATIENCE),
            has_asked: false,
            is_half_closed: false,
            is_answered: false,
        };
        self.all.insert(self.next, client);
        Ok(())
    }

    /// Reads what a client sends.
    pub fn read(&mut self, id: u64, poller: &Poller<Source>) -> Word {
        let Some(client) = self.all.get_mut(&id) else { return Word::None };
        let mut buffer = [0; 16 * 1024];
        let mut is_end = false;
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => {
                    is_end = true;
                    break;
                }
                // Nothing is expected after the request.
                Ok(_) if client.has_asked => {}
                Ok(count) => client.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Word::Gone,
            }
            if client.input.len() > LONGEST {
                client.has_asked = true;
                client.input = Vec::new();
                return Word::Wrong(format!(
                    "the request is longer than {LONGEST} bytes: start the app with a smaller environment"
                ));
            }
        }
        if is_end {
            if has_hung_up(&client.stream) || !client.has_asked && client.input.is_empty() {
                return Word::Gone;
            }
            client.is_half_closed = true;
            let _ = poller.set_interest(client.token, &client.stream, false, false);
        }
        let end = client.input.iter().position(|byte| *byte == b'\n').or(is_end.then_some(client.input.len()));
        let Some(end) = end.filter(|_| !client.has_asked) else { return Word::None };
        let request = serde_json::from_slice(&client.input[..end]);
        client.input = Vec::new();
        client.has_asked = true;
        client.due = None;
        match request {
            Ok(request) => Word::Request(request),
            Err(error) => {
                Word::Wrong(format!("cannot read the request ({error}), perhaps of another version: run `supervisor update`"))
            }
        }
    }

    /// Drops a client.
    pub fn drop(&mut self, id: u64, poller: &mut Poller<Source>) {
        if let Some(client) = self.all.remove(&id) {
            poller.remove(client.token, &client.stream);
        }
    }

    /// Queues the answer, after which the client is dropped.
    pub fn answer(&mut self, id: u64, answer: &Answer) {
        let Some(client) = self.all.get_mut(&id) else { return };
        client.output.extend(line(answer));
        client.due = Some(Instant::now() + PATIENCE);
        client.is_answered = true;
    }

    /// Sends queued answers, and drops the clients that have received theirs.
    pub fn flush(&mut self, poller: &mut Poller<Source>) {
        let mut gone = Vec::new();
        for (id, client) in &mut self.all {
            while !client.output.is_empty() {
                match client.stream.write(&client.output) {
                    Ok(count) => drop(client.output.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => client.output.clear(),
                }
            }
            let is_full = !client.output.is_empty();
            let is_read = !client.is_half_closed;
            if client.is_answered && !is_full || poller.set_interest(client.token, &client.stream, is_read, is_full).is_err() {
                gone.push(*id);
            }
        }
        gone.into_iter().for_each(|id| self.drop(id, poller));
    }

    /// Returns the earliest deadline of all clients.
    pub fn due(&self) -> Option<Instant> {
        self.all.values().filter_map(|client| client.due).min()
    }

    /// Drops the clients that have missed their deadline.
    pub fn end_hanging(&mut self, poller: &mut Poller<Source>) {
        let now = Instant::now();
        let gone: Vec<u64> =
            self.all.iter().filter(|(_, client)| client.due.is_some_and(|due| due <= now)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.drop(id, poller));
    }
}

/// An answer, as it is sent.
fn line(answer: &Answer) -> Vec<u8> {
    // Serializing plain data cannot fail.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Returns whether a client has closed both directions: it does not wait for an answer.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
