//! A thread that waits for two descriptors that glommio cannot wait for: the listener, and the event that ends the accept loop.
//!
//! The thread writes a byte to a stream that the loop reads, and waits for a byte back before it polls again.

use common::{Acceptor, Stop};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::UnixStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Blocking;
use std::thread;

const CONNECTION: u8 = 1;
const STOP: u8 = 0;

/// The loop's end of the stream.
pub struct Doorbell {
    stream: UnixStream,
    is_answered: bool,
}

impl Doorbell {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the system cannot provide a descriptor or a thread.
    pub fn start(acceptor: &Acceptor, stop: &Stop) -> io::Result<Self> {
        let (outside, inside) = Blocking::pair()?;
        let (acceptor, stop) = (acceptor.as_fd().try_clone_to_owned()?, stop.clone());
        thread::Builder::new().name("doorbell".into()).spawn(move || watch(outside, &acceptor, &stop))?;
        // SAFETY: the descriptor is open, and the new stream becomes its only owner.
        let stream = unsafe { UnixStream::from_raw_fd(inside.into_raw_fd()) };
        Ok(Doorbell { stream, is_answered: true })
    }

    /// Waits until a client connects; false if the loop must end.
    ///
    /// # Errors
    /// Fails if the thread has ended.
    pub async fn ring(&mut self) -> io::Result<bool> {
        if !self.is_answered {
            self.stream.write_all(&[CONNECTION]).await?;
        }
        let mut byte = [0];
        self.stream.read_exact(&mut byte).await?;
        self.is_answered = false;
        Ok(byte[0] == CONNECTION)
    }
}

/// The body of the thread, which runs until the stop event arrives or the loop ends.
fn watch(mut bell: Blocking, acceptor: &OwnedFd, stop: &Stop) {
    loop {
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(acceptor.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let word = if fds[0].any() == Some(true) { STOP } else { CONNECTION };
        if bell.write_all(&[word]).is_err() || word == STOP || bell.read_exact(&mut [0]).is_err() {
            return;
        }
    }
}
