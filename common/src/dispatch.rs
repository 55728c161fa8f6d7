//! What a forked worker and its parent tell each other: a table in shared memory and a channel for each worker.
//!
//! In the table every worker shows how many of its handlers are running, so that the parent can see who is blocked without
//! asking. With `round-robin` the parent offers a connection by writing a number into the worker's cell and sending the socket
//! over the channel; whoever takes that number out of the cell owns the connection. A worker that blocks before it took its
//! offer loses it to the parent, and so does one that dies.

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, send, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// A worker's line in the shared table, alone on its cache line.
#[repr(C, align(64))]
pub(crate) struct Cell {
    /// Handlers that are running.
    running: AtomicU32,
    /// Handlers that may run before a fresh connection would have to wait.
    capacity: AtomicU32,
    /// The number of the connection that is on offer; 0 without.
    offer: AtomicU64,
}

impl Cell {
    pub fn is_idle(&self) -> bool {
        self.running.load(SeqCst) < self.capacity.load(SeqCst)
    }

    /// Forgets what a worker that died has left behind.
    pub fn reset(&self) {
        self.running.store(0, SeqCst);
        self.capacity.store(0, SeqCst);
        self.offer.store(0, SeqCst);
    }

    pub fn put(&self, number: u64) {
        self.offer.store(number, SeqCst);
    }

    /// Takes the offer out; true for the one who got it.
    pub fn claim(&self, number: u64) -> bool {
        self.offer.compare_exchange(number, 0, SeqCst, SeqCst).is_ok()
    }

    pub fn has_offer(&self) -> bool {
        self.offer.load(SeqCst) != 0
    }
}

/// The shared table.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub cells: &'static [Cell],
    /// Connections that the parent holds because nobody is idle.
    pub waiting: &'static AtomicU32,
}

impl Table {
    /// A table for so many workers, shared with every process that is forked from here on.
    pub fn new(workers: usize) -> nix::Result<Self> {
        Ok(Table { cells: shared_zeroed(workers)?, waiting: &shared_zeroed::<AtomicU32>(1)?[0] })
    }
}

/// A type whose value may be all zero bytes, and which several processes may change at once.
trait SharedZeroed {}
impl SharedZeroed for AtomicU32 {}
impl SharedZeroed for Cell {}

fn shared_zeroed<T: SharedZeroed>(count: usize) -> nix::Result<&'static [T]> {
    let length = NonZeroUsize::new(size_of::<T>() * count).ok_or(Errno::EINVAL)?;
    // SAFETY: the mapping is fresh, zeroed, aligned to a page and never unmapped; T is made of atomics, for which zero is a value.
    unsafe {
        let start = mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)?;
        Ok(std::slice::from_raw_parts(start.as_ptr().cast(), count))
    }
}

/// What a worker says over its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It serves.
    Ready = b'r' as isize,
    /// Its cell has changed.
    Look = b'l' as isize,
}

/// A worker's end of the channel, and its cell.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    channel: &'static OwnedFd,
    cell: &'static Cell,
    table: Table,
}

/// The seat of this process, where it is a forked worker.
static SEAT: OnceLock<Seat> = OnceLock::new();

impl Seat {
    /// Makes this process worker number `index`. The channel stays open as long as the process lives.
    pub fn occupy(index: usize, channel: OwnedFd, table: Table) -> Self {
        let seat = Seat { channel: Box::leak(Box::new(channel)), cell: &table.cells[index], table };
        *SEAT.get_or_init(|| seat)
    }

    /// The seat of this process, if it is a forked worker.
    pub fn here() -> Option<&'static Seat> {
        SEAT.get()
    }

    /// Tells the parent that this worker serves, and how many handlers it can run before a connection has to wait.
    pub fn ready(&self, capacity: u32) {
        self.cell.capacity.store(capacity, SeqCst);
        self.say(Word::Ready);
    }

    fn say(&self, word: Word) {
        // A channel that is full has enough words in it to make the parent look.
        let _ = send(self.channel.as_raw_fd(), &[word as u8], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }

    /// Takes the connection on offer; `EAGAIN` without one.
    pub fn take(&self, nonblocking: bool) -> nix::Result<TcpStream> {
        loop {
            let (number, stream) = receive(self.channel.as_raw_fd())?;
            // An offer that the parent took back is somebody else's by now: this copy is closed and the next one looked at.
            if !self.cell.claim(number) {
                continue;
            }
            self.say(Word::Look);
            if !nonblocking {
                stream.set_nonblocking(false).map_err(|_| Errno::EIO)?;
            }
            return Ok(stream);
        }
    }
}

impl AsFd for Seat {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// A handler that is running, as the parent and whoever keeps the server see it.
pub(crate) struct Running {
    seat: Option<&'static Seat>,
    since: Instant,
}

impl Running {
    pub fn start() -> Self {
        let seat = Seat::here();
        if let Some(seat) = seat {
            seat.cell.running.fetch_add(1, SeqCst);
            // The parent stores the offer and then looks whether the worker blocks; here it is the other way round. So at
            // least one of the two sees it, and no connection stays with a worker that blocks.
            if !seat.cell.is_idle() && seat.cell.has_offer() {
                seat.say(Word::Look);
            }
        }
        Running { seat, since: Instant::now() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        crate::tell::held(self.since.elapsed());
        if let Some(seat) = self.seat {
            seat.cell.running.fetch_sub(1, SeqCst);
            if seat.table.waiting.load(SeqCst) > 0 {
                seat.say(Word::Look);
            }
        }
    }
}

/// Sends a socket with its number.
pub(crate) fn offer(channel: &impl AsFd, number: u64, stream: &TcpStream) -> nix::Result<()> {
    let (bytes, fds) = (number.to_ne_bytes(), [stream.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(channel.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], &rights, flags, None).map(drop)
}

fn receive(channel: RawFd) -> nix::Result<(u64, TcpStream)> {
    let mut number = [0; 8];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut number)];
    let message = recvmsg::<()>(channel, &mut parts, Some(&mut space), flags)?;
    let fd = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // Nothing at all is the end: the parent is gone, and this process is about to follow.
    let fd = fd.ok_or(Errno::EAGAIN)?;
    // SAFETY: the kernel has just opened the descriptor for this message, and nobody else has it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    Ok((u64::from_ne_bytes(number), stream))
}
