//! The model with one thread and nothing between it and epoll.

use crate::turn;
use common::{Acceptor, Served, Server};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;
use std::io;
use std::net::TcpStream;

const STOP: u64 = u64::MAX;
const ACCEPTOR: u64 = u64::MAX - 1;

/// A connection, and what epoll is to report of it.
struct Watched {
    served: Served<TcpStream>,
    wanted: EpollFlags,
}

pub fn serve(server: Server) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&server.stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
    epoll.add(&server.acceptor, EpollEvent::new(EpollFlags::EPOLLIN, ACCEPTOR))?;
    server.service.ready();

    let mut acceptor = Some(server.acceptor);
    let mut all: Slab<Watched> = Slab::new();
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
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
                    // An event may be left of one that this round has closed.
                    let key = usize::try_from(key).unwrap_or(usize::MAX);
                    if all.get_mut(key).is_some_and(|watched| !goes_on(watched, &epoll, event.data())) {
                        all.remove(key);
                    }
                }
            }
        }
    }
}

/// Takes one connection; epoll reports the next one only when this has had its turn.
fn accept(acceptor: &Acceptor, epoll: &Epoll, all: &mut Slab<Watched>) {
    let Ok(mut served) = acceptor.accept(Ok) else { return };
    let slot = all.vacant_entry();
    let wanted = EpollFlags::EPOLLIN;
    // A connection that cannot be watched is dropped, and so closed.
    if epoll.add(&*served.parts().0, EpollEvent::new(wanted, slot.key() as u64)).is_ok() {
        slot.insert(Watched { served, wanted });
    }
}

/// Gives a connection its turn; false if it has closed.
fn goes_on(watched: &mut Watched, epoll: &Epoll, key: u64) -> bool {
    let Ok(Some(wanted)) = turn::take(&mut watched.served, || ()) else { return false };
    let is_same = std::mem::replace(&mut watched.wanted, wanted) == wanted;
    is_same || epoll.modify(&*watched.served.parts().0, &mut EpollEvent::new(wanted, key)).is_ok()
}
