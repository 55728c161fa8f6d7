//! Between daemon and keeper: messages with descriptors, each whole, in order.

use crate::proc::Identity;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Descriptors of one message: the ends of two log pipes and a notify socket.
const MOST_DESCRIPTORS: usize = 3;

/// One process of an instance: each start has the next generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Number of the instance in the table.
    pub instance: u32,
    /// How many were started before it.
    pub generation: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.instance, self.generation)
    }
}

/// How a log is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Where.
    pub path: PathBuf,
    /// Bytes before it is rotated.
    pub max_size: u64,
    /// Rotated files that are kept.
    pub keep: u32,
    /// Before each line, as strftime has it.
    pub date_format: Option<String>,
}

/// What the keeper has to know of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Which.
    pub key: Key,
    /// File that says what to run.
    pub spec: PathBuf,
    /// Number among the instances of its app.
    pub number: u32,
    /// Addresses whose listeners it gets.
    pub listeners: Vec<String>,
    /// Logs of its standard output and error.
    pub logs: [LogPlan; 2],
}

/// What a keeper knows of a worker, besides that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// It has said that it is ready.
    pub is_ready: bool,
    /// It was asked to end; to ask again would mean "at once".
    pub is_told_to_end: bool,
}

/// What the daemon asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Listen on an address.
    Bind(String),
    /// Listen there no longer.
    Unbind(String),
    /// Start a worker.
    Spawn(Job),
    /// Send a signal to the group of a worker.
    Signal(Key, i32),
    /// Empty the logs at these paths, and remove what was rotated away from them, so many files at most.
    Flush(Vec<(PathBuf, u32)>),
    /// That it ended is known.
    Forget(Key),
    /// Hold what the keeper before held: a listener, with its descriptor.
    AdoptListener(String),
    /// The same of a worker, with its descriptors.
    AdoptWorker(Job, Identity, Standing),
    /// The same of the control socket.
    AdoptControl,
    /// Everything has ended: end too.
    Quit,
}

/// What the keeper reports. To a daemon that is new it first tells everything there is.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The control socket, with its descriptor.
    Control,
    /// It listens there; comes with the descriptor.
    Bound(String),
    /// It cannot listen there.
    CannotBind(String, String),
    /// A worker runs; comes with the descriptors of its pipes and its notify socket.
    Spawned(Job, Identity),
    /// None was started, and why.
    CannotSpawn(Key, String),
    /// It says that it is ready.
    Ready(Key),
    /// It says something about itself.
    Status(Key, String),
    /// It ended, and how.
    Exited(Key, String),
    /// A log could not be written to; or can be again.
    LogTrouble(PathBuf, Option<String>),
    /// The supervisor is asked to end by a signal.
    Terminate,
    /// All there is has been told.
    Told,
}

/// One end.
pub struct Channel {
    socket: OwnedFd,
    unsent: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// Both ends.
///
/// # Errors
/// No descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// Takes one end.
    pub fn new(socket: OwnedFd) -> Self {
        Channel { socket, unsent: VecDeque::new() }
    }

    /// Whether messages wait until the other side reads.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends a message with copies of descriptors, or keeps both until the other side reads; never waits.
    ///
    /// # Errors
    /// No descriptors left. That the other side is gone shows when it is read from.
    pub fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let sent = if self.has_unsent() { Err(Errno::AGAIN) } else { transmit(&self.socket, &bytes, descriptors) };
        match sent {
            // The message, or what it says of itself, is wrong.
            Err(error @ (Errno::MSGSIZE | Errno::INVAL | Errno::BADF)) => return Err(error.into()),
            Err(error) if is_short(error) => {}
            _ => return Ok(()),
        }
        let copies = descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
        self.unsent.push_back((bytes, copies));
        Ok(())
    }

    /// Sends what was kept, as far as there is room.
    pub fn flush(&mut self) {
        while let Some((bytes, descriptors)) = self.unsent.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            if transmit(&self.socket, bytes, &descriptors).is_err_and(is_short) {
                return;
            }
            self.unsent.pop_front();
        }
    }

    /// Takes a message, if there is one.
    ///
    /// # Errors
    /// The other side is gone, or speaks otherwise.
    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let length = match recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            result => result?.1,
        };
        // Most messages are short, and what is touched once stays resident.
        let mut bytes = vec![0; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let result = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = match result {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(message) if message.bytes == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(message) => message.bytes,
        };
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        Ok(Some((serde_json::from_slice(&bytes[..count])?, descriptors)))
    }
}

/// What passes.
fn is_short(error: Errno) -> bool {
    [Errno::AGAIN, Errno::NOBUFS, Errno::NOMEM, Errno::TOOMANYREFS, Errno::INTR].contains(&error)
}

fn transmit(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (one, other) = pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        let file = File::open("/proc/self/comm").unwrap();
        one.send(&Order::Bind("127.0.0.1:1".into()), &[file.as_fd()]).unwrap();
        let (order, mut descriptors) = other.receive::<Order>().unwrap().unwrap();
        assert!(matches!(order, Order::Bind(address) if address == "127.0.0.1:1"));
        let mut text = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        assert!(other.receive::<Order>().unwrap().is_none());
    }

    #[test]
    fn what_the_other_side_does_not_read_is_kept_and_loses_no_order() {
        let (one, other) = pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        for number in 0..5000 {
            one.send(&Order::Forget(Key { instance: number, generation: 0 }), &[]).unwrap();
        }
        assert!(one.has_unsent());
        for number in 0..5000 {
            one.flush();
            let (order, _) = other.receive::<Order>().unwrap().unwrap();
            assert!(matches!(order, Order::Forget(key) if key.instance == number), "{order:?}");
        }
    }

    #[test]
    fn the_end_of_the_other_side_is_an_error() {
        let (one, other) = pair().unwrap();
        drop(other);
        assert!(Channel::new(one).receive::<Order>().is_err());
    }
}
