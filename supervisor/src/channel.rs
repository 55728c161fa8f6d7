//! The channel between daemon and keeper. It carries messages with descriptors, each message whole, in order.
//!
//! Each side asks the other for a sign of life after it has sent something. So one that hangs is noticed, and none wakes up while nothing happens.

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
use std::time::{Duration, Instant};

/// Frames beside messages, which are JSON: the question for a sign of life, and the answer.
const ASK: &[u8] = b"?";
const ALIVE: &[u8] = b"!";
/// Time limit for a sign of life. It is asked for twice, in case that the whole machine was suspended meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most descriptors in one message: the ends of two log pipes, a notify socket and a channel of Node's.
const MOST_DESCRIPTORS: usize = 4;

/// Identifies one process of an instance; the generation rises with each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Id of the instance in the table.
    pub instance: u32,
    /// Number of processes of the instance that were started before this one.
    pub generation: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.instance, self.generation)
    }
}

/// Settings of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Path of the log file.
    pub path: PathBuf,
    /// Size in bytes at which the log is rotated.
    pub max_size: u64,
    /// Number of rotated files to keep.
    pub keep: u32,
    /// Date format (strftime) of the prefix of each line.
    pub date_format: Option<String>,
    /// Permissions of its files.
    pub mode: u32,
}

/// The data that the keeper needs to start and keep a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Identifies the worker.
    pub key: Key,
    /// Name of its app.
    pub app: String,
    /// Path of the app's specification, which says what to run.
    pub spec: PathBuf,
    /// Number of the instance within its app.
    pub number: u32,
    /// Addresses of the listeners that the worker inherits.
    pub listeners: Vec<String>,
    /// Logs of its standard output and error.
    pub logs: [LogPlan; 2],
    /// It is a Node program that runs with our preload.
    pub is_node: bool,
}

/// The state of a worker that a new keeper takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The worker has reported that it is ready.
    pub is_ready: bool,
    /// The worker was asked to end. A second request would mean "end at once".
    pub is_told_to_end: bool,
}

/// The end of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How it ended, such as `exited with 1`.
    pub how: String,
    /// Its exit code, if it exited and somebody saw it.
    pub code: Option<i32>,
    /// The last line of its standard error that says something.
    pub last_line: Option<String>,
    /// The name of a process that it had started when it was asked to end, if there was one.
    pub child: Option<String>,
}

impl End {
    /// An end about which nothing else is known.
    pub fn plain(how: String) -> Self {
        End { how, code: None, last_line: None, child: None }
    }
}

/// An order from the daemon to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Listen on an address.
    Bind(String),
    /// Stop listening on an address.
    Unbind(String),
    /// Start a worker.
    Spawn(Job),
    /// The daemon knows the worker, which may now become its program.
    Confirm(Key),
    /// Give a worker the listener of an address, which it wants under this number.
    Give(Key, u64, String),
    /// Tell a worker that it does not get the listener that it wants, with an error code and the reason.
    Refuse(Key, u64, String, String),
    /// Send a signal to a worker's process group.
    Signal(Key, i32),
    /// Send any signal to a worker's leader, which goes on unless the signal ends it.
    Raise(Key, i32),
    /// Empty the logs at these paths, and remove their rotated files: at most the given number for each log.
    Flush(Vec<(PathBuf, u32)>),
    /// Open all logs anew: another program has moved them.
    Reopen,
    /// Drop a worker that has ended; the daemon knows of its end.
    Forget(Key),
    /// Hold a listener of the previous keeper; comes with its descriptor.
    AdoptListener(String),
    /// Hold a worker of the previous keeper; comes with its descriptors.
    AdoptWorker(Job, Identity, Standing),
    /// Hold the control socket and the lock of the previous keeper; comes with their descriptors.
    AdoptControl,
    /// End whatever earlier keepers have started and nobody knows any more: these processes, and those that carry the mark of a worker.
    Sweep(Vec<Identity>),
    /// This daemon ends on purpose, and another is to take its place.
    Leave,
    /// Exit: all workers have ended.
    Quit,
}

/// A report from the keeper to the daemon. A new daemon first gets reports of everything that the keeper holds.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The control socket; comes with its descriptor and that of the lock.
    Control,
    /// The keeper listens on this address, and the actual one; comes with the listener's descriptor.
    Bound(String, String),
    /// The keeper cannot listen on this address, and the reason.
    CannotBind(String, String),
    /// A worker has started; comes with the descriptors of its pipes and its notify socket.
    Spawned(Job, Identity),
    /// A worker could not be started, and the reason.
    CannotSpawn(Key, String),
    /// A worker reports that it is ready.
    Ready(Key),
    /// A worker wants to listen on an address; the number identifies its wish.
    Wants(Key, u64, String),
    /// A worker's status text, from `STATUS=`.
    Status(Key, String),
    /// A worker was sent the signal to end.
    Signalled(Key),
    /// A worker ended.
    Exited(Key, End),
    /// A worker could not be taken over from the previous keeper, since it had ended.
    Vanished(Key),
    /// Something that the user should know.
    Remark(String),
    /// A log cannot be written, with the reason; or can be written again (`None`).
    LogTrouble(PathBuf, Option<String>),
    /// The supervisor has received a signal to end.
    Terminate,
    /// The keeper has now reported everything that it holds.
    Told,
}

/// One end of the channel.
pub struct Channel {
    socket: OwnedFd,
    unsent: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// When a sign of life was asked for, if it has not come yet, and how often.
    asked: Option<(Instant, u32)>,
}

/// Creates both ends of a channel.
///
/// # Errors
/// Fails if no descriptors are left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// Creates a channel from one of its ends.
    pub fn new(socket: OwnedFd) -> Self {
        Channel { socket, unsent: VecDeque::new(), asked: None }
    }

    /// Returns whether messages are queued until the other side reads.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends a message with copies of descriptors, or queues both until the other side reads. It never blocks.
    ///
    /// # Errors
    /// Fails if no descriptors are left. It does not fail if the other side has closed: [`Self::receive`] reports that.
    pub fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_bytes(serde_json::to_vec(message)?, descriptors)?;
        self.ask()
    }

    /// Asks the other side for a sign of life, unless it still owes one.
    ///
    /// # Errors
    /// Fails if no descriptors are left.
    pub fn ask(&mut self) -> io::Result<()> {
        if self.asked.is_none() {
            self.asked = Some((Instant::now(), 1));
            self.send_bytes(ASK.to_vec(), &[])?;
        }
        Ok(())
    }

    /// When [`Self::is_silent`] can next change.
    pub fn due(&self) -> Option<Instant> {
        self.asked.map(|(asked, _)| asked + PATIENCE)
    }

    /// Returns whether the other side hangs: it has not given a sign of life in time.
    pub fn is_silent(&mut self) -> bool {
        match &mut self.asked {
            Some((asked, count)) if asked.elapsed() >= PATIENCE => {
                *asked = Instant::now();
                *count += 1;
                *count > 2
            }
            _ => false,
        }
    }

    fn send_bytes(&mut self, bytes: Vec<u8>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = if self.has_unsent() { Err(Errno::AGAIN) } else { transmit(&self.socket, &bytes, descriptors) };
        match sent {
            // The message or its descriptors are invalid.
            Err(error @ (Errno::MSGSIZE | Errno::INVAL | Errno::BADF)) => return Err(error.into()),
            Err(error) if is_temporary(error) => {}
            _ => return Ok(()),
        }
        let copies = descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
        self.unsent.push_back((bytes, copies));
        Ok(())
    }

    /// Sends as many queued messages as there is room for.
    pub fn flush(&mut self) {
        while let Some((bytes, descriptors)) = self.unsent.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            if transmit(&self.socket, bytes, &descriptors).is_err_and(is_temporary) {
                return;
            }
            self.unsent.pop_front();
        }
    }

    /// Receives a message, if there is one.
    ///
    /// # Errors
    /// Fails if the other side has closed, or sent an invalid message.
    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        while let Some((bytes, descriptors)) = self.receive_bytes()? {
            match bytes.as_slice() {
                ASK => self.send_bytes(ALIVE.to_vec(), &[])?,
                ALIVE => self.asked = None,
                message => return Ok(Some((serde_json::from_slice(message)?, descriptors))),
            }
        }
        Ok(None)
    }

    fn receive_bytes(&mut self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let length = match recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            result => result?.1,
        };
        // A buffer of the message's own size: most messages are short, and memory touched once stays resident.
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
        bytes.truncate(count);
        Ok(Some((bytes, descriptors)))
    }
}

/// Returns whether an error is temporary.
fn is_temporary(error: Errno) -> bool {
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
    fn unread_messages_are_queued_in_order() {
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
    fn a_side_that_answers_is_not_silent_and_one_that_does_not_is() {
        let (one, other) = pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        one.send(&Order::Quit, &[]).unwrap();
        assert!(one.due().is_some());
        assert!(matches!(other.receive::<Order>().unwrap(), Some((Order::Quit, _))));
        assert!(other.receive::<Order>().unwrap().is_none());
        assert!(one.receive::<Report>().unwrap().is_none());
        assert_eq!((one.due(), one.is_silent()), (None, false));
        one.ask().unwrap();
        one.asked = one.asked.map(|(asked, count)| (asked - 2 * PATIENCE, count));
        assert!(!one.is_silent(), "it is asked twice");
        one.asked = one.asked.map(|(asked, count)| (asked - 2 * PATIENCE, count));
        assert!(one.is_silent());
    }

    #[test]
    fn a_closed_other_side_is_an_error() {
        let (one, other) = pair().unwrap();
        drop(other);
        assert!(Channel::new(one).receive::<Order>().is_err());
    }
}
