//! Connections that arrive while an accept loop ends: its runtime does not take them any more, and closing the listener would reset them.

use crate::{Connection, Step};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// Serves a connection on a thread of its own.
pub(crate) fn serve(stream: TcpStream, connection: Connection) {
    // Without a thread the connection is closed, as it would have been anyway.
    let _ = thread::Builder::new().name("leftover".into()).stack_size(128 * 1024).spawn(move || {
        let _ = serve_here(stream, connection);
    });
}

fn serve_here(mut stream: TcpStream, mut connection: Connection) -> io::Result<()> {
    stream.set_nonblocking(false)?;
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
            Step::Close => return Ok(()),
        }
    }
}
