//! The socket of the channel.
//!
//! Each side asks the other for a sign of life after it has sent something. So one that hangs is noticed, and none wakes up while nothing happens.

use super::Order;
use rustix::io::Errno;
use rustix::net::sockopt::socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Frames beside messages, which are JSON: the question for a sign of life, and the answer.
const ASK: &[u8] = b"?";
const ALIVE: &[u8] = b"!";
/// Time limit for a sign of life. It is asked for twice, in case that the whole machine was suspended meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most descriptors in one message: the ends of two log pipes, a notify socket and a channel of Node's.
const MOST_DESCRIPTORS: usize = 4;

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

    /// Drops the messages that are not sent yet: the other side is gone.
    pub fn discard(&mut self) {
        self.unsent.clear();
    }

    /// Sends a message with copies of descriptors, or queues both until the other side reads. It never blocks.
    ///
    /// # Errors
    /// Fails if no descriptors are left, or the message has too many. It does not fail if the other side has closed: [`Self::receive`] reports that.
    pub fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_bytes(serde_json::to_vec(message)?, descriptors)?;
        self.ask()
    }

    /// Sends an order without descriptors, unless it is too long; returns whether it was sent. It may take half of the room that a message has: what
    /// the keeper reports about it, and what a new keeper is told, repeats it and adds to it.
    ///
    /// # Errors
    /// Fails if no descriptors are left.
    pub fn order(&mut self, order: &Order) -> io::Result<bool> {
        let bytes = serde_json::to_vec(order)?;
        if bytes.len() > socket_send_buffer_size(&self.socket)? / 2 {
            return Ok(false);
        }
        self.send_bytes(bytes, &[])?;
        self.ask().map(|()| true)
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

    /// Gives a sign of life that nobody has asked for yet.
    ///
    /// # Errors
    /// Fails if no descriptors are left.
    pub fn live(&mut self) -> io::Result<()> {
        self.send_bytes(ALIVE.to_vec(), &[])
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
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(Errno::INVAL.into());
        }
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
                message => {
                    // It does not hang: it is still busy with what came before the question, such as the start of a thousand processes.
                    self.asked = self.asked.map(|_| (Instant::now(), 1));
                    return Ok(Some((serde_json::from_slice(message)?, descriptors)));
                }
            }
        }
        Ok(None)
    }

    fn receive_bytes(&mut self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let peek = || recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::TRUNC);
        let length = match peek() {
            // The other side has closed without reading all that it was sent. The kernel says so once, before what that side has sent last.
            Err(Errno::CONNRESET) => peek()?.1,
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
        // There is room for as many as a message may have.
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Report};
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
    fn a_message_with_too_many_descriptors_is_an_error() {
        let (one, _other) = pair().unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        assert!(Channel::new(one).send(&Order::Quit, &[file.as_fd(); MOST_DESCRIPTORS + 1]).is_err());
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
    fn an_order_that_is_too_long_is_not_sent_and_what_an_order_leads_to_is() {
        let (one, other) = pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        let longest = socket_send_buffer_size(&one.socket).unwrap() / 2 - r#"{"Bind":""}"#.len();
        assert!(!one.order(&Order::Bind("x".repeat(longest + 1))).unwrap());
        assert!(one.order(&Order::Bind("x".repeat(longest))).unwrap());
        let (order, _) = other.receive::<Order>().unwrap().unwrap();
        assert!(matches!(order, Order::Bind(address) if address.len() == longest));
        other.send(&Report::CannotBind("x".repeat(longest), 98, "the reason".repeat(100)), &[]).unwrap();
        assert!(matches!(one.receive::<Report>().unwrap(), Some((Report::CannotBind(..), _))));
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
    fn a_side_that_says_something_else_meanwhile_is_busy_and_not_silent() {
        let (one, other) = pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        one.send(&Order::Quit, &[]).unwrap();
        one.asked = one.asked.map(|(asked, _)| (asked - 2 * PATIENCE, 2));
        other.send(&Report::Told, &[]).unwrap();
        assert!(matches!(one.receive::<Report>(), Ok(Some((Report::Told, _)))));
        assert!(!one.is_silent());
        assert!(one.due().is_some(), "it still owes the answer");
    }

    #[test]
    fn what_a_side_has_sent_last_is_read_although_it_has_not_read_all_itself() {
        let (one, other) = pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        other.send(&Report::Terminate, &[]).unwrap();
        one.send(&Order::Quit, &[]).unwrap();
        drop(one);
        assert!(matches!(other.receive::<Order>().unwrap(), Some((Order::Quit, _))));
        assert!(other.receive::<Order>().is_err());
    }

    #[test]
    fn a_closed_other_side_is_an_error() {
        let (one, other) = pair().unwrap();
        drop(other);
        assert!(Channel::new(one).receive::<Order>().is_err());
    }
}
