//! The model with a fixed pool of threads, and one more thread that waits for all idle connections.

use crate::named;
use common::{Connection, Server, Step, WhenFull};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connection that no thread works on, and its socket. The connection comes first because it must be dropped before its socket.
type Parked = (Connection, TcpStream);

/// The parked connections, by the key in their epoll event, and the epoll instance that waits for them.
struct Parking {
    parked: Mutex<Slab<Parked>>,
    epoll: Epoll,
}

const STOP: u64 = u64::MAX;
const ACCEPTOR: u64 = u64::MAX - 1;

pub fn serve(server: Server) -> io::Result<()> {
    let parking = Arc::new(Parking { parked: Mutex::default(), epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? });
    parking.epoll.add(&server.stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
    parking.epoll.add(&server.acceptor, EpollEvent::new(EpollFlags::EPOLLIN, ACCEPTOR))?;

    let (queue, jobs) = sync_channel(server.knobs.queue);
    let jobs = Arc::new(Mutex::new(jobs));
    for number in 0..server.knobs.threads {
        let (jobs, parking) = (jobs.clone(), parking.clone());
        named(&format!("pool-{number}")).spawn(move || work(&jobs, &parking))?;
    }
    server.service.ready();

    let mut acceptor = Some(server.acceptor);
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = parking.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
        for event in &events[..count] {
            match (event.data(), &acceptor) {
                (STOP, _) => {
                    parking.epoll.delete(&server.stop)?;
                    // Closing would not remove it from epoll while another process shares the socket.
                    acceptor.as_ref().map_or(Ok(()), |acceptor| parking.epoll.delete(acceptor))?;
                    acceptor = None;
                }
                (ACCEPTOR, Some(acceptor)) => {
                    if let Ok((stream, connection)) = acceptor.accept() {
                        // epoll reports the connection once its first bytes have arrived.
                        parking.park((connection, stream), true);
                    }
                }
                (ACCEPTOR, None) => {}
                (key, _) => {
                    if let Some(parked) = parking.take(key) {
                        parking.hand_on(parked, &queue, server.knobs.when_full);
                    }
                }
            }
        }
    }
}

impl Parking {
    fn parked(&self) -> MutexGuard<'_, Slab<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the connection so that epoll reports it once when it is readable.
    fn park(&self, parked: Parked, is_new: bool) {
        let mut all = self.parked();
        let slot = all.vacant_entry();
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, slot.key() as u64);
        let stream = &parked.1;
        let is_watched = if is_new { self.epoll.add(stream, event) } else { self.epoll.modify(stream, &mut event) };
        // A connection that cannot be watched is dropped, and so closed.
        if is_watched.is_ok() {
            slot.insert(parked);
        }
    }

    /// Sends a readable connection to the pool. The pool lives as long as the process, so there is always a receiver.
    fn hand_on(&self, parked: Parked, queue: &SyncSender<Parked>, when_full: WhenFull) {
        if when_full == WhenFull::Wait {
            let _ = queue.send(parked);
        } else if let Err(TrySendError::Full((mut connection, stream))) = queue.try_send(parked) {
            connection.turn_away();
            self.serve(connection, stream);
        }
    }

    /// Serves the connection until it would block, then parks it again unless it has closed.
    fn serve(&self, connection: Connection, stream: TcpStream) {
        if let Ok(Some(parked)) = serve_connection(stream, connection) {
            self.park(parked, false);
        }
    }

    fn take(&self, key: u64) -> Option<Parked> {
        self.parked().try_remove(usize::try_from(key).ok()?)
    }
}

/// The body of each thread in the pool: takes the next readable connection and serves it until it would block.
fn work(jobs: &Mutex<Receiver<Parked>>, parking: &Parking) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((connection, stream)) = job else { return };
        parking.serve(connection, stream);
    }
}

/// Serves the connection until it has nothing to read. Returns it, or `None` if it has closed.
fn serve_connection(mut stream: TcpStream, mut connection: Connection) -> io::Result<Option<Parked>> {
    loop {
        match connection.step() {
            Step::Read => match stream.read(connection.space()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.rest();
                    return Ok(Some((connection, stream)));
                }
                result => connection.received(result?),
            },
            Step::Write => match stream.write(connection.unsent()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_until_writable(&stream)?,
                result => connection.sent(result?),
            },
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => stream.shutdown(Shutdown::Write)?,
            Step::Close => return Ok(None),
        }
    }
}

/// Waits until the client reads. A client that does not read keeps its thread busy, another weakness of the pool.
fn wait_until_writable(stream: &TcpStream) -> io::Result<()> {
    poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
    Ok(())
}
