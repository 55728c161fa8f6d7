//! The channel that Node opens to its parent process: lines of JSON over a socket, some with a descriptor. Our preload speaks it, and so does
//! `process.send('ready')`.

use super::Source;
use super::pace::Pace;
use crate::channel::Key;
use crate::poll::Poller;
use crate::spec::LONGEST_ADDRESS;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Name of our messages. Node does not show those with this prefix to the program.
const NAME: &str = "NODE_SUPERVISOR";
/// Longest message in bytes; a program may send its parent anything.
const LONGEST: usize = 1 << 20;
/// Bytes that are read at once, and how often before others get their turn.
const CHUNK: usize = 16 * 1024;
const MOST_CHUNKS: usize = 16;
/// Most wishes of a process that wait for an answer.
const MOST_WISHES: usize = 1024;

/// The supervisor's end of a channel.
pub struct Ipc {
    socket: OwnedFd,
    pace: Pace,
    input: Vec<u8>,
    /// What the process wants to listen on and has no answer for yet.
    wishes: BTreeMap<u64, String>,
    /// It got a listener, and has not said since that it listens.
    is_given: bool,
}

/// What a process says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// It is ready.
    Ready,
    /// Its event loop turns.
    Lives,
    /// How it is doing.
    Says(String),
    /// It wants to listen on an address; the number identifies its wish.
    Wants(u64, String),
    /// It has closed the listener of an address.
    Leaves(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Word(String),
    Wants { cmd: String, id: u64, wants: String },
    Leaves { cmd: String, leaves: String },
    Is { cmd: String, is: String },
    Says { cmd: String, says: String },
}

impl AsFd for Ipc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Ipc {
    /// Creates both ends of a channel.
    ///
    /// # Errors
    /// Fails if no descriptors are left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Ipc::new(own)?, other))
    }

    /// Takes over the supervisor's end.
    ///
    /// # Errors
    /// Fails if the descriptor is not a socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Ipc { socket, pace: Pace::default(), input: Vec::new(), wishes: BTreeMap::new(), is_given: false })
    }

    /// Watches for messages.
    pub fn watch(&mut self, key: Key, poller: &mut Poller<Source>) -> io::Result<()> {
        self.pace.watch(&self.socket, Source::Ipc(key), poller)
    }

    /// Stops watching; the descriptor stays open, so that another keeper gets it.
    pub fn unwatch(&mut self, poller: &mut Poller<Source>) {
        self.pace.stop(&self.socket, poller);
    }

    /// When a pause ends.
    pub fn due(&self) -> Option<Instant> {
        self.pace.due()
    }

    /// Continues to read after a pause.
    pub fn resume(&mut self, key: Key, poller: &mut Poller<Source>) -> io::Result<()> {
        self.pace.resume(&self.socket, Source::Ipc(key), poller)
    }

    /// Reads what has come. A process that says more than can be read at once is left alone for a moment.
    pub fn read(&mut self, poller: &mut Poller<Source>) -> Vec<Said> {
        if (0..MOST_CHUNKS).all(|_| self.read_chunk(poller)) {
            self.pace.pause(&self.socket, poller);
        }
        let end = self.input.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.input.drain(..end).collect();
        if self.input.len() > LONGEST {
            self.input = Vec::new();
        }
        let mut all: Vec<Said> = lines.split(|byte| *byte == b'\n').filter_map(said).collect();
        all.retain(|said| match said {
            Said::Wants(wish, address) => self.wants(*wish, address),
            _ => true,
        });
        all
    }

    /// Reads once; returns whether there may be more.
    fn read_chunk(&mut self, poller: &mut Poller<Source>) -> bool {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.socket, &mut buffer) {
            // It has closed its end: `process.disconnect()`.
            Ok(0) => {
                self.unwatch(poller);
                false
            }
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                count == CHUNK
            }
            Err(_) => false,
        }
    }

    /// Notes a wish; returns whether it is to be passed on. One that cannot be is refused.
    fn wants(&mut self, wish: u64, address: &str) -> bool {
        if address.len() > LONGEST_ADDRESS {
            self.refuse(wish, Errno::INVAL.raw_os_error(), "not an address");
            return false;
        }
        if self.wishes.len() >= MOST_WISHES {
            self.refuse(wish, Errno::MFILE.raw_os_error(), "too many listeners are wanted at once");
            return false;
        }
        self.wishes.insert(wish, address.to_owned()).is_none()
    }

    /// Returns whether it got a listener since this was last asked.
    pub fn take_given(&mut self) -> bool {
        std::mem::take(&mut self.is_given)
    }

    /// What the process wants to listen on and has no answer for yet.
    pub fn wishes(&self) -> &BTreeMap<u64, String> {
        &self.wishes
    }

    /// Gives a process the listener that it wants. One that does not read it is not ready in time.
    pub fn give(&mut self, wish: u64, listener: BorrowedFd<'_>) {
        let message = json!({ "cmd": "NODE_HANDLE", "type": "net.Native", "msg": { "cmd": NAME, "id": wish } });
        let descriptors = [listener];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        self.is_given = true;
        self.answer(wish, &message, &mut control);
    }

    /// Tells a process that it does not get the listener that it wants.
    pub fn refuse(&mut self, wish: u64, errno: i32, why: &str) {
        // The preload of an earlier version, which processes that run have loaded, reads the name.
        let code = format!("{:?}", nix::errno::Errno::from_raw(errno));
        let message = json!({ "cmd": NAME, "id": wish, "errno": errno, "code": code, "why": why });
        self.answer(wish, &message, &mut SendAncillaryBuffer::default());
    }

    fn answer(&mut self, wish: u64, message: &serde_json::Value, control: &mut SendAncillaryBuffer<'_, '_, '_>) {
        self.wishes.remove(&wish);
        let line = format!("{message}\n");
        let _ = sendmsg(&self.socket, &[IoSlice::new(line.as_bytes())], control, SendFlags::NOSIGNAL);
    }
}

fn said(line: &[u8]) -> Option<Said> {
    match serde_json::from_slice(line).ok()? {
        Message::Word(word) if word == "ready" => Some(Said::Ready),
        Message::Is { cmd, is } if cmd == NAME && is == "listening" => Some(Said::Ready),
        Message::Is { cmd, is } if cmd == NAME && is == "alive" => Some(Said::Lives),
        Message::Says { cmd, says } if cmd == NAME => Some(Said::Says(says)),
        Message::Wants { cmd, id, wants } if cmd == NAME => Some(Said::Wants(id, wants)),
        Message::Leaves { cmd, leaves } if cmd == NAME => Some(Said::Leaves(leaves)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_preload_are_understood_and_others_ignored() {
        assert_eq!(said(br#""ready""#), Some(Said::Ready));
        assert_eq!(said(br#"{"cmd":"NODE_SUPERVISOR","is":"listening"}"#), Some(Said::Ready));
        assert_eq!(said(br#"{"cmd":"NODE_SUPERVISOR","is":"alive"}"#), Some(Said::Lives));
        let wants = said(br#"{"cmd":"NODE_SUPERVISOR","wants":"[::]:3000","id":1}"#);
        assert_eq!(wants, Some(Said::Wants(1, "[::]:3000".into())));
        assert_eq!(said(br#"{"cmd":"NODE_SUPERVISOR","leaves":"[::]:3000"}"#), Some(Said::Leaves("[::]:3000".into())));
        for other in [&br#"{"cmd":"NODE_HANDLE_ACK"}"#[..], br#"{"type":"axm:monitor"}"#, b"", b"{", b"\"shutdown\""] {
            assert_eq!(said(other), None);
        }
    }
}
