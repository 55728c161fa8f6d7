//! A connection on a thread of its own, with blocking I/O.

use crate::{Served, Step};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// The stack size of a thread that serves what an accept loop left behind, in bytes.
const STACK_SIZE: usize = 128 * 1024;

/// Serves a connection on the calling thread until it closes; its socket must be in blocking mode.
///
/// # Errors
/// The client is gone.
pub fn serve_blocking(mut served: Served<TcpStream>) -> io::Result<()> {
    let (stream, connection) = served.parts();
    loop {
        match connection.step() {
            Step::Read => {
                let count = stream.read(connection.space())?;
                connection.received(count);
            }
            Step::Write => {
                let count = stream.write(connection.unsent())?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => stream.shutdown(Shutdown::Write)?,
            // The kernel does that.
            Step::Yield => {}
            Step::Close => return Ok(()),
        }
    }
}

/// Serves a connection that arrived while its accept loop ended: the runtime takes no more, and closing the listener would reset it.
pub(crate) fn serve_leftover(served: Served<TcpStream>) {
    // Without a thread the connection is closed, as it would have been anyway.
    let _ = thread::Builder::new().name("leftover".into()).stack_size(STACK_SIZE).spawn(move || serve_blocking(served));
}
