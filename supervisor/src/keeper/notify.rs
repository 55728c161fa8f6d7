//! The notify socket of a worker, as systemd defines it: messages such as `READY=1` and `STATUS=...`.

use super::Source;
use super::pace::{PAUSE, Pace};
use crate::channel::Key;
use crate::poll::Poller;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, UCred, recvmsg};
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

/// Messages of a worker that are read at once.
pub const MOST_WORDS: usize = 64;
/// Longest status that is kept, in characters.
const LONGEST_STATUS: usize = 256;
/// Longest message, in bytes.
const LONGEST_WORD: usize = 4096;

/// A notify socket, and the newest status that came over it.
pub struct Notify {
    socket: UnixDatagram,
    pace: Pace,
    status: Option<String>,
    /// The status has changed since it was last reported, and when that was.
    is_new: bool,
    reported: Option<Instant>,
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Notify {
    pub fn new(socket: UnixDatagram) -> Self {
        Notify { socket, pace: Pace::default(), status: None, is_new: false, reported: None }
    }

    /// Watches for messages.
    pub fn watch(&mut self, key: Key, poller: &mut Poller<Source>) -> io::Result<()> {
        self.pace.watch(&self.socket, Source::Notify(key), poller)
    }

    /// Reads the next message and its sender, and leaves it in the socket.
    pub fn read(&self) -> Option<(String, UCred)> {
        take_word(&self.socket, RecvFlags::PEEK)
    }

    /// Takes the message from the socket that was read.
    pub fn drop_word(&self) {
        let _ = take_word(&self.socket, RecvFlags::empty());
    }

    pub fn status(&self) -> Option<String> {
        self.status.clone()
    }

    pub fn set_status(&mut self, status: &str) {
        self.status = Some(harmless(status));
        self.is_new = true;
    }

    /// Returns the status if it has changed, unless another was reported a moment ago.
    pub fn new_status(&mut self) -> Option<String> {
        let is_early = self.reported.is_some_and(|reported| reported.elapsed() < PAUSE);
        if !self.is_new || is_early {
            return None;
        }
        self.is_new = false;
        self.reported = Some(Instant::now());
        self.status.clone()
    }

    /// Stops reading for a moment.
    pub fn pause(&mut self, poller: &mut Poller<Source>) {
        self.pace.pause(&self.socket, poller);
    }

    /// When there is something to do: reading goes on, or a status is to be reported.
    pub fn due(&self) -> Option<Instant> {
        let status = self.reported.filter(|_| self.is_new).map(|reported| reported + PAUSE);
        self.pace.due().into_iter().chain(status).min()
    }

    /// Goes on reading after a pause.
    pub fn resume(&mut self, key: Key, poller: &mut Poller<Source>) -> io::Result<()> {
        self.pace.resume(&self.socket, Source::Notify(key), poller)
    }

    /// Stops reading for good, and removes the socket's name. The descriptor stays open, so that another keeper gets it.
    pub fn close(&mut self, poller: &mut Poller<Source>) {
        self.pace.stop(&self.socket, poller);
        if let Ok(address) = self.socket.local_addr()
            && let Some(path) = address.as_pathname()
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Reads a message and its sender.
fn take_word(socket: &UnixDatagram, flags: RecvFlags) -> Option<(String, UCred)> {
    let mut bytes = [0; LONGEST_WORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other.ok()?,
        }
    };
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender),
        _ => None,
    })?;
    Some((String::from_utf8_lossy(&bytes[..message.bytes]).into_owned(), sender))
}

/// A status for tables: one line, bounded, and without characters that a terminal would obey.
fn harmless(status: &str) -> String {
    status.chars().take(LONGEST_STATUS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
