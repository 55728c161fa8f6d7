//! Communication between the parent and its forked workers: a table in shared memory, and a channel for each worker.
//!
//! In the table each worker counts its running handlers, so the parent can see which workers are blocked without asking. With
//! `round-robin` the parent offers a connection: it writes a number into the worker's cell and sends the socket over the
//! channel. The process that takes the number out of the cell owns the connection. If a worker blocks or dies before it takes
//! its offer, the parent takes the offer back.

use crate::holding;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, send, sendmsg};
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// Stands for an offer that the worker has taken and does not yet show in the number of running handlers.
const TAKEN: u64 = u64::MAX;

/// A worker's entry in the shared table, on its own cache line.
#[repr(C, align(64))]
pub(crate) struct Cell {
    /// The number of running handlers.
    running: AtomicU32,
    /// The number of running handlers at which a new connection would have to wait.
    capacity: AtomicU32,
    /// The number of the offered connection; 0 without one, [`TAKEN`] from its taking until its first request runs or is sent to a pool.
    offer: AtomicU64,
}

impl Cell {
    /// True if an offered connection would not have to wait for a running handler.
    pub fn is_idle(&self) -> bool {
        self.running.load(SeqCst) < self.capacity.load(SeqCst)
    }

    /// Clears the state left behind by a dead worker.
    pub fn reset(&self) {
        self.running.store(0, SeqCst);
        self.capacity.store(0, SeqCst);
        self.offer.store(0, SeqCst);
    }

    pub fn put(&self, number: u64) {
        self.offer.store(number, SeqCst);
    }

    /// Takes the offer back; true if this call got it.
    pub fn take_back(&self, number: u64) -> bool {
        self.offer.compare_exchange(number, 0, SeqCst, SeqCst).is_ok()
    }

    /// Takes the offer for the worker; true if this call got it.
    fn take(&self, number: u64) -> bool {
        self.offer.compare_exchange(number, TAKEN, SeqCst, SeqCst).is_ok()
    }

    /// True if nobody has taken the offer yet.
    pub fn has_offer(&self) -> bool {
        !matches!(self.offer.load(SeqCst), 0 | TAKEN)
    }

    /// True if a connection may be offered.
    pub fn is_free(&self) -> bool {
        self.offer.load(SeqCst) == 0 && self.is_idle()
    }
}

/// The shared table.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub cells: &'static [Cell],
    /// 1 while the parent holds connections because no worker is idle; otherwise 0.
    pub waiting: &'static AtomicU32,
    /// The parent's [`ParentState`].
    parent: &'static AtomicU32,
}

/// What the parent makes of the connections that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParentState {
    /// It accepts and offers connections.
    Serving = 0,
    /// It offers those that it still holds.
    Draining = 1,
    /// It holds none that it could offer.
    Done = 2,
}

impl Table {
    /// A table for `workers` workers, shared with every process that is forked from now on.
    pub fn new(workers: usize) -> nix::Result<Self> {
        let words = shared_zeroed(2)?;
        Ok(Table { cells: shared_zeroed(workers)?, waiting: &words[0], parent: &words[1] })
    }

    /// Tells the workers what the parent does.
    pub fn set_parent(&self, state: ParentState) {
        self.parent.store(state as u32, SeqCst);
    }
}

/// A type that may lie in zeroed memory which several processes change at once.
///
/// # Safety
/// All zero bytes are a valid value, and every part of it is atomic.
pub(crate) unsafe trait SharedZeroed {}
// SAFETY: an atomic, for which zero is valid.
unsafe impl SharedZeroed for AtomicU32 {}
// SAFETY: all fields are atomics, for which zero is valid.
unsafe impl SharedZeroed for Cell {}

pub(crate) fn shared_zeroed<T: SharedZeroed>(count: usize) -> nix::Result<&'static [T]> {
    let length = NonZeroUsize::new(size_of::<T>() * count).ok_or(Errno::EINVAL)?;
    // SAFETY: the mapping is fresh, zeroed, aligned to a page and never unmapped; the trait promises the rest.
    unsafe {
        let start = mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)?;
        Ok(std::slice::from_raw_parts(start.as_ptr().cast(), count))
    }
}

/// A message from a worker over its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The worker is ready to serve.
    Ready = b'r' as isize,
    /// The worker's cell has changed.
    Look = b'l' as isize,
}

/// A worker's end of the channel, and its cell in the table.
#[derive(Clone, Copy)]
pub(crate) struct WorkerSlot {
    channel: &'static OwnedFd,
    cell: &'static Cell,
    table: Table,
}

/// The slot of this process, set in a forked worker only.
static WORKER_SLOT: OnceLock<WorkerSlot> = OnceLock::new();

impl WorkerSlot {
    /// Makes this process worker number `index`. The channel stays open until the process ends.
    pub fn occupy(index: usize, channel: OwnedFd, table: Table) -> Self {
        let slot = WorkerSlot { channel: Box::leak(Box::new(channel)), cell: &table.cells[index], table };
        *WORKER_SLOT.get_or_init(|| slot)
    }

    /// The slot of this process; `None` unless it is a forked worker.
    pub fn here() -> Option<&'static WorkerSlot> {
        WORKER_SLOT.get()
    }

    /// Tells the parent that this worker is ready, and how many handlers it can run before a connection has to wait.
    pub fn ready(&self, capacity: u32) {
        self.cell.capacity.store(capacity, SeqCst);
        self.say(Word::Ready);
    }

    /// Tells the parent that this worker takes no connection any more.
    pub fn leave(&self) {
        self.cell.capacity.store(0, SeqCst);
        self.say(Word::Look);
    }

    /// What the parent has said that it does, as long as it lives.
    pub fn parent(&self) -> ParentState {
        match self.table.parent.load(SeqCst) {
            0 => ParentState::Serving,
            1 => ParentState::Draining,
            _ => ParentState::Done,
        }
    }

    fn say(&self, word: Word) {
        // If the channel is full, the messages already in it make the parent look.
        let _ = send(self.channel.as_raw_fd(), &[word as u8], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }

    /// Takes the offered connection. The worker gets no other one while the arrival lives.
    ///
    /// # Errors
    /// `EAGAIN` if there is no offer.
    pub fn take(&self, nonblocking: bool) -> nix::Result<(TcpStream, Arrival)> {
        loop {
            let (number, stream) = receive(self.channel.as_raw_fd())?;
            // The parent took this offer back and may have given it to another worker: close this copy, try the next one.
            if !self.cell.take(number) {
                // If this worker was stopped, it is offered connections again.
                self.say(Word::Look);
                continue;
            }
            let arrival = Arrival(*self);
            // No descriptor was left for it. It counts as taken, so the parent closes it, and its client hears of that.
            let stream = stream.ok_or(Errno::EMFILE)?;
            if !nonblocking {
                stream.set_nonblocking(false).map_err(|_| Errno::EIO)?;
            }
            return Ok((stream, arrival));
        }
    }
}

impl AsFd for WorkerSlot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// A connection that was taken from the parent and whose first request neither runs, nor is in a pool, nor is answered. Were it not counted, the parent could offer
/// the next connection to a worker that is about to block.
pub(crate) struct Arrival(WorkerSlot);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.cell.offer.store(0, SeqCst);
        self.0.say(Word::Look);
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Arrival")
    }
}

/// Handlers that run in this process.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// The number of handlers that run in this process.
pub(crate) fn running() -> u32 {
    RUNNING.load(SeqCst)
}

/// A running handler, counted for the parent and the time limits, and timed for the supervisor.
pub(crate) struct Running {
    slot: Option<&'static WorkerSlot>,
    since: Instant,
}

impl Running {
    pub fn start() -> Self {
        let since = Instant::now();
        RUNNING.fetch_add(1, SeqCst);
        holding::begin(since);
        let slot = WorkerSlot::here();
        if let Some(slot) = slot {
            slot.cell.running.fetch_add(1, SeqCst);
            // The parent stores the offer and then checks whether the worker is blocked; the worker does the reverse. At
            // least one of them sees the conflict, so no offer stays with a blocked worker. A connection that it has just taken
            // may: a runtime that found a request on another one in the same look at its sockets may run that first.
            if !slot.cell.is_idle() && slot.cell.has_offer() {
                slot.say(Word::Look);
            }
        }
        Running { slot, since }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, SeqCst);
        holding::end();
        crate::tell::held(self.since.elapsed());
        if let Some(slot) = self.slot {
            slot.cell.running.fetch_sub(1, SeqCst);
            if slot.table.waiting.load(SeqCst) > 0 {
                slot.say(Word::Look);
            }
        }
    }
}

/// Sends a socket and its number over the channel.
pub(crate) fn offer(channel: &impl AsFd, number: u64, stream: &TcpStream) -> nix::Result<()> {
    let (bytes, fds) = (number.to_ne_bytes(), [stream.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(channel.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], &rights, flags, None).map(drop)
}

/// Receives an offer, without its connection if there is no descriptor for it.
fn receive(channel: RawFd) -> nix::Result<(u64, Option<TcpStream>)> {
    let mut number = [0; 8];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut number)];
    let message = recvmsg::<()>(channel, &mut parts, Some(&mut space), flags)?;
    let is_cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
    let fd = match message.cmsgs() {
        Err(Errno::ENOBUFS) if is_cut => None,
        parts => parts?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        }),
    };
    if fd.is_none() && !is_cut {
        // An empty message means that the parent is gone; the kernel is about to kill this process.
        return Err(Errno::EAGAIN);
    }
    // SAFETY: the kernel has just opened the descriptor for this message, and nothing else owns it.
    let stream = fd.map(|fd| unsafe { TcpStream::from_raw_fd(fd) });
    Ok((u64::from_ne_bytes(number), stream))
}

/// A worker to which a test offers connections.
#[cfg(test)]
pub(crate) struct OfferedWorker {
    pub table: Table,
    pub channel: OwnedFd,
    slot: WorkerSlot,
}

#[cfg(test)]
impl OfferedWorker {
    pub fn new() -> Self {
        let (channel, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        let table = Table::new(1).unwrap();
        let slot = WorkerSlot { channel: Box::leak(Box::new(ours.into())), cell: &table.cells[0], table };
        slot.ready(1);
        OfferedWorker { table, channel: channel.into(), slot }
    }

    /// Offers a connection, which the worker takes.
    pub fn take(&self) -> Arrival {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        self.slot.cell.put(1);
        offer(&self.channel, 1, &stream).unwrap();
        self.take_offer().unwrap()
    }

    /// Takes what is offered.
    pub fn take_offer(&self) -> nix::Result<Arrival> {
        self.slot.take(true).map(|(_, arrival)| arrival)
    }

    pub fn is_free(&self) -> bool {
        self.slot.cell.is_free()
    }
}
