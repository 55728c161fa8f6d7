//! The model with one thread per connection.

use crate::{is_stopped, named};
use common::{Server, serve_blocking};
use std::io;
use std::thread;

pub fn serve(server: Server) -> io::Result<()> {
    server.service.ready();
    while !is_stopped(&server.stop, &server.acceptor) {
        if let Ok(served) = server.acceptor.accept(Ok)
            && let Err(error) = named("connection").spawn(move || serve_blocking(served))
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
