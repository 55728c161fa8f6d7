//! The model with one thread and nothing between it and epoll.

use crate::turn;
use common::{Acceptor, Served, Server};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;
use std::io;
use std::net::TcpStream;

const STOP: u64 = u64::MAX;
const ACCEPTOR: u64 = u64::MAX - 1;

/// What epoll reports of a connection, each once: edge-triggered, it need not be told again.
const ALL: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);
/// The client sends no more. It is said together with its last bytes, and then never again.
const END: EpollFlags = EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);

pub fn serve(server: Server) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&server.stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
    epoll.add(&server.acceptor, EpollEvent::new(EpollFlags::EPOLLIN, ACCEPTOR))?;
    server.service.ready();

    let mut acceptor = Some(server.acceptor);
    let mut all: Slab<Served<TcpStream>> = Slab::new();
    let mut events = [EpollEvent::empty(); 256];
    // Connections that have had their turn, and go on after all others.
    let (mut again, mut now) = (Vec::new(), Vec::new());
    loop {
        let timeout = if again.is_empty() { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = epoll.wait(&mut events, timeout).unwrap_or(0);
        // What epoll reports of one that goes on anyway gives it no second turn in the next round.
        again.sort_unstable();
        again.dedup();
        std::mem::swap(&mut again, &mut now);
        for event in &events[..count] {
            match (event.data(), &acceptor) {
                (STOP, _) => {
                    epoll.delete(&server.stop)?;
                    // Closing would not remove it from epoll while another process shares the socket.
                    acceptor.as_ref().map_or(Ok(()), |acceptor| epoll.delete(acceptor))?;
                    acceptor = None;
                }
                (ACCEPTOR, Some(acceptor)) => accept(acceptor, &epoll, &mut all),
                (ACCEPTOR, None) => {}
                (key, _) => {
                    // An event may be left of one that this turn of the loop has closed.
                    let key = usize::try_from(key).unwrap_or(usize::MAX);
                    serve_one(&mut all, key, event.events().intersects(END), &mut again);
                }
            }
        }
        // Whether the end of one was reported with its last bytes is forgotten by now.
        now.drain(..).for_each(|key| serve_one(&mut all, key, true, &mut again));
    }
}

/// Lets a connection have its turn, if it is still there.
fn serve_one(all: &mut Slab<Served<TcpStream>>, key: usize, has_end: bool, again: &mut Vec<usize>) {
    let Some(served) = all.get_mut(key) else { return };
    match turn::take(served, has_end, true, || ()) {
        Ok(Some(wanted)) if wanted == turn::AGAIN => again.push(key),
        Ok(Some(_)) => {}
        Ok(None) | Err(_) => drop(all.remove(key)),
    }
}

/// Takes some connections; epoll reports the next one only when these have had their turn.
fn accept(acceptor: &Acceptor, epoll: &Epoll, all: &mut Slab<Served<TcpStream>>) {
    for mut served in acceptor.accept_some(Ok) {
        let slot = all.vacant_entry();
        // A connection that cannot be watched is dropped, and so closed.
        if epoll.add(&*served.parts().0, EpollEvent::new(ALL, slot.key() as u64)).is_ok() {
            slot.insert(served);
        }
    }
}
