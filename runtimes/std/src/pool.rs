//! The model with a fixed pool of threads, and one more thread that waits for all idle connections.

use crate::{named, turn};
use common::{Admitted, Served, Server, Service, WhenFull};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connection that no thread works on, with its place in the pool if it has only let others go first.
type Parked = (Served<TcpStream>, Option<Admitted>);

/// A connection that a thread is to work on, and the place in the pool that it takes until its answer is written.
type Job = (Served<TcpStream>, Admitted);

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

    // Where requests are refused, those that are admitted always find room.
    let more = if server.knobs.when_full == WhenFull::Refuse { server.knobs.threads } else { 0 };
    let (queue, jobs) = bounded(server.knobs.queue + more);
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
                    if let Ok(served) = acceptor.accept(Ok) {
                        // epoll reports the connection once its first bytes have arrived.
                        parking.park((served, None), EpollFlags::EPOLLIN, true);
                    }
                }
                (ACCEPTOR, None) => {}
                (key, _) => {
                    if let Some(parked) = parking.take(key) {
                        parking.hand_on(parked, event.events(), &queue, server.service);
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

    /// Registers the connection so that epoll reports it once when it is readable or writable, or when its client has gone away.
    fn park(&self, mut parked: Parked, wanted: EpollFlags, is_new: bool) {
        let mut all = self.parked();
        let slot = all.vacant_entry();
        // That the client sends no more stays true: one that waits to write would be reported again and again for it.
        let end = if wanted == EpollFlags::EPOLLIN { EpollFlags::EPOLLRDHUP } else { EpollFlags::empty() };
        let mut event = EpollEvent::new(wanted | end | EpollFlags::EPOLLONESHOT, slot.key() as u64);
        let (stream, _) = parked.0.parts();
        let is_watched = if is_new { self.epoll.add(&*stream, event) } else { self.epoll.modify(&*stream, &mut event) };
        // A connection that cannot be watched is dropped, and so closed.
        if is_watched.is_ok() {
            slot.insert(parked);
        }
    }

    /// Sends a connection to the pool. The pool lives as long as the process, so there is always a receiver.
    fn hand_on(&self, (mut served, place): Parked, events: EpollFlags, queue: &Sender<Job>, service: Service) {
        let (stream, connection) = served.parts();
        // One that only ends needs no thread, and must not take the place of a request. It was waiting to read, so it has no request left.
        if events.contains(EpollFlags::EPOLLRDHUP) && matches!(stream.peek(&mut [0]), Ok(0)) {
            return self.serve(served, None);
        }
        match place.map_or_else(|| service.admit(), Ok) {
            Ok(place) => drop(queue.send((served, place))),
            Err(_) if connection.turn_away() => self.serve(served, None),
            // It has asked for nothing yet; when it does, it is refused.
            Err(_) => self.go_on(served, false, None),
        }
    }

    /// Serves the connection until it would block, then parks it again unless it has closed.
    fn serve(&self, served: Served<TcpStream>, place: Option<Admitted>) {
        self.go_on(served, true, place);
    }

    /// The same, without reading from it if it is only to take its answers.
    fn go_on(&self, mut served: Served<TcpStream>, reads: bool, mut place: Option<Admitted>) {
        // As soon as the client has its answer, it may ask again and expect this thread to be free.
        if let Ok(Some(wanted)) = turn::take(&mut served, false, reads, || drop(place.take())) {
            let kept = place.filter(|_| wanted == turn::AGAIN);
            self.park((served, kept), wanted, false);
        }
    }

    fn take(&self, key: u64) -> Option<Parked> {
        self.parked().try_remove(usize::try_from(key).ok()?)
    }
}

/// The body of each thread in the pool: takes the next readable connection and serves it until it would block.
fn work(jobs: &Receiver<Job>, parking: &Parking) {
    for (served, place) in jobs {
        parking.serve(served, Some(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::os::fd::AsFd;

    /// Sends requests and no more, and waits until their end has arrived at the server's socket.
    fn client_that_is_done(requests: &[u8]) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        // Little room, so that a few answers fill it.
        setsockopt(&server, sockopt::SndBuf, &4096).unwrap();
        setsockopt(&client, sockopt::RcvBuf, &4096).unwrap();
        client.write_all(requests).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        epoll.add(server.as_fd(), EpollEvent::new(EpollFlags::EPOLLRDHUP, 0)).unwrap();
        epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).unwrap();
        server.set_nonblocking(true).unwrap();
        (client, server)
    }

    #[test]
    fn a_client_that_sends_no_more_and_does_not_read_wakes_nobody_and_its_last_request_runs_in_the_pool() {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let requests = get("/").repeat(250) + &get("/sleep?ms=0");
        let (mut client, server) = client_that_is_done(requests.as_bytes());
        let service = Service::for_tests();
        let parking = Parking { parked: Mutex::default(), epoll: Epoll::new(EpollCreateFlags::empty()).unwrap() };
        let (queue, jobs) = bounded(1);
        let mut events = [EpollEvent::empty()];

        parking.park((service.served(server), None), EpollFlags::EPOLLIN, true);
        assert_eq!(parking.epoll.wait(&mut events, EpollTimeout::NONE), Ok(1));
        parking.serve(parking.take(0).unwrap().0, None);
        assert_eq!(parking.epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0), "it cannot write, and all is read");

        // As much as it takes for the server to write again.
        while parking.epoll.wait(&mut events, EpollTimeout::ZERO) == Ok(0) {
            assert!(client.read(&mut [0; 1024]).unwrap() > 0);
        }
        parking.hand_on(parking.take(0).unwrap(), events[0].events(), &queue, service);
        assert!(jobs.try_recv().is_ok(), "the thread that waits for all connections serves this one");
    }
}
