//! A connection's turn on a thread: it is served until it would block.

use common::{Served, Step};
use nix::sys::epoll::EpollFlags;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

/// What a connection waits for that has had its turn and need not wait: an edge-triggered epoll does not report it again.
pub const AGAIN: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT);

/// Serves a connection until it would block, or has had its turn: a thread never waits for a client. Returns what it waits for; `None` if it has closed.
/// `has_end` says that the client sends no more, so the end is still to be read behind the last bytes; `reads`, that it is read from at all. `writes` is
/// called before each write.
///
/// # Errors
/// Returns the error that ends the connection.
pub fn take(
    served: &mut Served<TcpStream>,
    has_end: bool,
    reads: bool,
    mut writes: impl FnMut(),
) -> io::Result<Option<EpollFlags>> {
    let (stream, connection) = served.parts();
    // A read that did not fill its space has taken all there was; asking again would only be told so.
    let mut is_drained = !reads;
    loop {
        match connection.step() {
            Step::Read if is_drained => {
                connection.rest();
                return Ok(Some(EpollFlags::EPOLLIN));
            }
            Step::Read => {
                let space = connection.space();
                let most = space.len();
                match stream.read(space) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => is_drained = true,
                    result => {
                        let count = result?;
                        is_drained = count < most && !has_end;
                        connection.received(count);
                    }
                }
            }
            Step::Write => {
                writes();
                match stream.write(connection.unsent()) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(EpollFlags::EPOLLOUT)),
                    result => connection.sent(result?),
                }
            }
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => stream.shutdown(Shutdown::Write)?,
            Step::Yield => return Ok(Some(AGAIN)),
            Step::Close => return Ok(None),
        }
    }
}
