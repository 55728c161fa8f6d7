//! The model with one thread per connection.

use crate::{is_stopped, named};
use common::{Connection, Server, Step};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

pub fn serve(server: Server) -> io::Result<()> {
    server.service.ready();
    while !is_stopped(&server.stop, &server.acceptor) {
        if let Ok((stream, connection)) = server.acceptor.accept()
            && let Err(error) = named("connection").spawn(move || serve_connection(stream, connection))
        {
            // The system refused a thread. Dropping the closure has closed the connection.
            common::say_once_a_second!("closed a connection because its thread did not start: {error}");
        }
    }
    drop(server.acceptor);
    loop {
        thread::park();
    }
}

fn serve_connection(mut stream: TcpStream, mut connection: Connection) -> io::Result<()> {
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
