//! The common handler on `may_minihttp`, the HTTP server that goes with may: what the library itself makes of the same routes.
//!
//! As on may a connection is a coroutine and the blocking call blocks its worker. Everything between the socket and the handler
//! is the library's, and where that cannot keep a line of the contract, `servers.toml` says so: it binds for itself with
//! `SO_REUSEPORT`, returns no address, takes no descriptor, allows 16 headers, never says `Connection: close`, answers a
//! pipeline only when all of it is done, and cannot drain.
//!
//! The knobs are those of may. In the numbers, compare it with `may-green-threads`: the difference is the HTTP library.

use common::http::Answer;
use common::routes::{self, Outcome};
use common::{Knobs, Model, Runtime, Server, Threads};
use may_minihttp::{HttpServer, HttpService, Request, Response};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

/// Stack of each coroutine, in bytes.
const STACK_SIZE: usize = 256 * 1024;

static MAY_MINIHTTP: Runtime = Runtime { name: "may", package: Some("may_minihttp"), models: &MODELS, settings };

const MODELS: [Model; 1] = [Model {
    name: "minihttp",
    about: "W workers run coroutines, and the library binds for itself",
    has_threads: true,
    can_fork: false,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::ONE_THREAD
}];

fn main() -> ExitCode {
    common::main(&MAY_MINIHTTP, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string()), ("pin-workers", "off".into())]
}

fn serve(server: Server) -> io::Result<()> {
    // may counts stacks in machine words.
    may::config().set_workers(server.knobs.threads).set_stack_size(STACK_SIZE / size_of::<usize>()).set_worker_pin(false);
    // The library listens for itself, so ours gives way to it; the port stays reserved by a socket that does not listen.
    let address = server.service.address();
    drop(server.acceptor);
    let _reserved = reserve(address)?;
    let accept = HttpServer(Service(server.service)).start(address)?;
    server.service.ready();
    accept.join().map_err(|_| io::Error::other("the accept loop ended"))
}

/// Holds the port against others without taking connections.
fn reserve(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let reserved = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&reserved, sockopt::ReuseAddr, &true)?;
    setsockopt(&reserved, sockopt::ReusePort, &true)?;
    bind(reserved.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(reserved)
}

#[derive(Clone)]
struct Service(common::Service);

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        let (method, target) = (request.method().to_owned(), request.path().to_owned());
        let mut body = Vec::new();
        request.body().take(common::http::MAX_BODY as u64).read_to_end(&mut body)?;
        let answer = match routes::handle(self.0.context(), &method, &target, body) {
            Outcome::Instant(answer) => answer,
            Outcome::Blocking(work) => work.run(),
        };
        write(response, &answer);
        Ok(())
    }
}

fn write(response: &mut Response, answer: &Answer) {
    response.status_code(answer.status.code().into(), answer.status.reason());
    response.header(match answer.content_type {
        "application/json" => "Content-Type: application/json",
        _ => "Content-Type: text/plain; charset=utf-8",
    });
    response.body_mut().extend_from_slice(&answer.body);
}
