//! The common handler on `may_minihttp`, may's HTTP library: the same routes without the common codec.
//!
//! As on may, a connection is a coroutine, and the blocking call blocks its worker. The library handles everything between the
//! socket and the handler. `servers.toml` lists the checks of the contract that it cannot pass. The library binds its own socket
//! with `SO_REUSEPORT`, returns no address and takes no descriptor. It allows 16 headers and never sends `Connection: close`. It
//! answers pipelined requests only when all of them are done, and it cannot drain.
//!
//! The knob is `--threads` (W). In the results, compare it with `may-green-threads`: only the HTTP library differs.

use common::http::{Answer, Status};
use common::routes;
use common::{Forks, Knobs, Model, Runtime, Server, Threads};
use may_minihttp::{HttpServer, HttpService, Request, Response};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

/// The stack size of each coroutine, in bytes.
const STACK_SIZE: usize = 256 * 1024;

static MAY_MINIHTTP: Runtime = Runtime { name: "may", package: Some("may_minihttp"), models: &MODELS, settings };

const MODELS: [Model; 1] = [Model {
    name: "minihttp",
    about: "W workers run coroutines; the library binds its own socket",
    has_threads: true,
    forks: Forks::Never,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::one_thread(serve)
}];

fn main() -> ExitCode {
    common::main(&MAY_MINIHTTP)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string()), ("pin-workers", "off".into())]
}

fn serve(server: Server) -> io::Result<()> {
    // may takes the stack size in machine words.
    may::config().set_workers(server.knobs.threads).set_stack_size(STACK_SIZE / size_of::<usize>()).set_worker_pin(false);
    // The library opens its own listener, so close ours. A socket that does not listen keeps the port reserved.
    let address = server.service.address();
    drop(server.acceptor);
    let _reserved = reserve(address)?;
    let accept = HttpServer(Service(server.service)).start(address)?;
    server.service.ready();
    accept.join().map_err(|_| io::Error::other("the accept loop of may_minihttp has panicked"))
}

/// Reserves the port without accepting connections.
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
        let is_json = request
            .headers()
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case("content-type") && common::http::is_json(header.value));
        let mut body = Vec::new();
        request.body().take(common::http::MAX_BODY as u64 + 1).read_to_end(&mut body)?;
        if body.len() > common::http::MAX_BODY {
            write(response, &Answer::error(Status::ContentTooLarge, "the body is too long\n"));
            return Ok(());
        }
        write(response, &self.0.answer(routes::Request { method: &method, target: &target, is_json, body }));
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
