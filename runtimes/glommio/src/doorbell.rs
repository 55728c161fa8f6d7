//! A thread that waits for what glommio cannot wait for: a listener, and the event that ends the accept loop.
//!
//! It writes a byte to a stream that the loop reads, and waits for one back before it looks again.

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

/// The loop's end.
pub struct Doorbell {
    stream: UnixStream,
    is_answered: bool,
}

impl Doorbell {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptors or threads are left.
    pub fn start(acceptor: &Acceptor, stop: &Stop) -> io::Result<Self> {
        let (outside, inside) = Blocking::pair()?;
        let (acceptor, stop) = (acceptor.as_fd().try_clone_to_owned()?, stop.clone());
        thread::Builder::new().name("doorbell".into()).spawn(move || watch(outside, &acceptor, &stop))?;
        // SAFETY: the descriptor is open and handed over to the one that takes it here.
        let stream = unsafe { UnixStream::from_raw_fd(inside.into_raw_fd()) };
        Ok(Doorbell { stream, is_answered: true })
    }

    /// Waits until somebody connects; false when the loop must end.
    ///
    /// # Errors
    /// The thread is gone.
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

/// What the thread does until the event comes, or the loop is gone.
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
