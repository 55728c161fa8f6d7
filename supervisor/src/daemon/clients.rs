//! Clients of the daemon: commands at the other end of the control socket. A client that hangs does not affect the others.

use super::Source;
use crate::control::{Answer, Request};
use crate::poll::{Poller, Token};
use anyhow::{Context, Result, bail};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Time limit for a client to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request in bytes; environments and command lines make requests long.
const LONGEST: usize = 4 * 1024 * 1024;
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
    /// Number of tasks that the client waits for, and the results of those that have ended.
    waits: usize,
    done: Vec<String>,
    troubles: Vec<String>,
    is_answered: bool,
}

impl Clients {
    /// Accepts a client if it belongs to the same user or to root.
    ///
    /// # Errors
    /// Fails if no descriptors are left.
    pub fn accept(&mut self, stream: UnixStream, poller: &mut Poller<Source>) -> Result<()> {
        let is_ours = socket_peercred(&stream).is_ok_and(|peer| peer.uid == geteuid() || peer.uid.is_root());
        if !is_ours || self.all.len() >= MOST {
            return Ok(());
        }
        stream.set_nonblocking(true)?;
        self.next += 1;
        let token = poller.add(&stream, Source::Client(self.next))?;
        let client = Client {
            stream,
            token,
            input: Vec::new(),
            output: Vec::new(),
            due: Some(Instant::now() + PATIENCE),
            waits: 0,
            done: Vec::new(),
            troubles: Vec::new(),
            is_answered: false,
        };
        self.all.insert(self.next, client);
        Ok(())
    }

    /// Reads a client's request; returns `None` until it is complete.
    ///
    /// # Errors
    /// Fails if the client has disconnected, or sent an invalid request.
    pub fn read(&mut self, id: u64) -> Result<Option<Request>> {
        let Some(client) = self.all.get_mut(&id) else { return Ok(None) };
        let mut buffer = [0; 16 * 1024];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => bail!("gone"),
                Ok(count) => client.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            if client.input.len() > LONGEST {
                bail!("the request is longer than {LONGEST} bytes");
            }
        }
        let Some(end) = client.input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = client.input.drain(..=end).collect();
        client.input = Vec::new();
        client.due = None;
        serde_json::from_slice(&line)
            .map(Some)
            .context("cannot read the request, perhaps of another version: run `supervisor kill`, then start again")
    }

    /// Drops a client.
    pub fn drop(&mut self, id: u64, poller: &mut Poller<Source>) {
        if let Some(client) = self.all.remove(&id) {
            poller.remove(client.token, &client.stream);
        }
    }

    /// Adds a task to those that a client waits for.
    pub fn waits(&mut self, id: u64) {
        if let Some(client) = self.all.get_mut(&id) {
            client.waits += 1;
        }
    }

    /// Notes that a task of a client has ended, and answers the client after its last task.
    pub fn finish(&mut self, id: u64, done: String, trouble: Option<String>) {
        let Some(client) = self.all.get_mut(&id) else { return };
        client.waits = client.waits.saturating_sub(1);
        match trouble {
            Some(trouble) => client.troubles.push(trouble),
            None => client.done.push(done),
        }
        if client.waits == 0 {
            let answer = if client.troubles.is_empty() {
                Answer::Done(client.done.join("; "))
            } else {
                Answer::Error(client.troubles.join("; "))
            };
            self.answer(id, &answer);
        }
    }

    /// Queues the answer, after which the client is dropped.
    pub fn answer(&mut self, id: u64, answer: &Answer) {
        let Some(client) = self.all.get_mut(&id) else { return };
        // Serializing plain data cannot fail.
        client.output.extend(serde_json::to_vec(answer).unwrap_or_default());
        client.output.push(b'\n');
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
            if client.is_answered && !is_full || poller.set_writable(client.token, &client.stream, is_full).is_err() {
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
