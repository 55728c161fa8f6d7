//! A plain client: one connection, one request after the other. For checks and preparations, never for load.

use anyhow::{Context, Result, bail};
use common::http::{BodyLength, Decoder, parse_response_head};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// The head's lines, the status line first.
    pub head: Vec<String>,
    /// Body.
    pub body: Vec<u8>,
    /// The server says that it closes.
    pub closes: bool,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    /// Connects; every later step takes ten seconds at most.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client { stream, input: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")
    }

    /// Says that nothing more will be sent.
    pub fn end(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Reads one answer; `is_head` says that it has no body.
    ///
    /// # Errors
    /// No answer, or none that is HTTP.
    pub fn receive(&mut self, is_head: bool) -> Result<Answer> {
        let head = loop {
            match parse_response_head(&self.input) {
                Ok(Some(head)) => break head,
                Ok(None) if self.fill()? => {}
                Ok(None) => bail!("closed without an answer"),
                Err(what) => bail!("not HTTP: {what}"),
            }
        };
        let text = String::from_utf8_lossy(&self.input[..head.length]).into_owned();
        self.input.drain(..head.length);
        let length = if is_head { BodyLength::Known(0) } else { head.body };
        let (mut decoder, mut body) = (Decoder::with_limit(length, usize::MAX), Vec::new());
        loop {
            let used = decoder.decode(&self.input, |bytes| body.extend_from_slice(bytes));
            let used = used.map_err(|refusal| anyhow::anyhow!("body: {}", refusal.reason))?;
            self.input.drain(..used);
            if decoder.is_done() {
                break;
            }
            if !self.fill()? {
                if decoder.ends_with_the_connection() {
                    break;
                }
                bail!("closed within an answer");
            }
        }
        let lines = text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
        Ok(Answer { status: head.status, head: lines, body, closes: head.close })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// As of its parts.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request)?;
        self.receive(request.starts_with(b"HEAD "))
    }

    /// True if the server closes without another byte.
    ///
    /// # Errors
    /// It stays open, or sends something.
    pub fn expect_close(&mut self) -> Result<()> {
        if !self.input.is_empty() {
            bail!("sends more than was asked for: {:?}", String::from_utf8_lossy(&self.input));
        }
        match self.fill() {
            Ok(false) => Ok(()),
            Ok(true) => bail!("sends more than was asked for: {:?}", String::from_utf8_lossy(&self.input)),
            // A reset ends the connection as well.
            Err(error) if error.to_string().contains("reset") => Ok(()),
            Err(error) => Err(error.context("stays open")),
        }
    }

    /// Something that was not read yet has arrived.
    pub fn has_more(&self) -> bool {
        let is_waiting =
            self.stream.set_nonblocking(true).is_ok() && matches!(self.stream.peek(&mut [0]), Ok(count) if count > 0);
        let _ = self.stream.set_nonblocking(false);
        !self.input.is_empty() || is_waiting
    }

    /// This side's address.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    fn fill(&mut self) -> Result<bool> {
        let mut piece = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut piece) {
                // By a signal: the person's, or one that stopped this process for a while.
                Err(error) if error.kind() == ErrorKind::Interrupted => crate::console::interrupt::check()?,
                result => break result.map_err(|error| anyhow::anyhow!("cannot receive: {error}"))?,
            }
        };
        self.input.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }
}

/// The bytes of a POST with this body.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: stallbench\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The bytes of a plain GET.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: stallbench\r\n\r\n").into_bytes()
}
