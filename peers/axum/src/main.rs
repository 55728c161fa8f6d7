//! The common handler behind axum, tokio's web framework, in its usual setup: the multi-thread runtime and inline handlers.
//!
//! A connection is a task. axum routes; hyper reads, parses and writes. A handler that blocks also blocks its worker, and with it
//! the worker's other duties, as on `tokio-multi-thread`.
//!
//! The knob is `--threads` (W, the number of workers); buffers and limits are hyper's own. In the results, compare it with
//! `tokio-multi-thread`.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Response, StatusCode, Uri};
use axum::routing::any;
use axum::serve::Listener;
use common::http::{Answer, MAX_BODY, is_json};
use common::routes::{PATHS, Request};
use common::{Knobs, Model, Runtime, Server, Service, Stop, Threads};
use on_tokio::{Connections, Counted};
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

static AXUM: Runtime = Runtime { name: "axum", package: Some("axum"), models: &MODELS, settings };

const MODELS: [Model; 1] = [Model {
    name: "multi-thread",
    about: "W workers share the tasks",
    has_threads: true,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::one_thread(serve)
}];

fn main() -> ExitCode {
    common::main(&AXUM)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server) -> io::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(server.knobs.threads).enable_io().build()?;
    runtime.block_on(async { tokio::spawn(serve_all(server)).await })?
}

async fn serve_all(server: Server) -> io::Result<()> {
    let service = server.service;
    let routed = PATHS.into_iter().fold(Router::new(), |router, path| router.route(path, any(answer)));
    let router = routed.fallback(answer).layer(axum::extract::DefaultBodyLimit::max(MAX_BODY)).with_state(service);
    let connections = Connections::new(server.acceptor)?;
    // SAFETY: it owns its descriptor, never changes it, and keeps it open until it and its registration are dropped.
    let stop = unsafe { AsyncFd::register(server.stop)? };
    service.ready();
    axum::serve(Accepting { connections, address: service.address() }, router).with_graceful_shutdown(stopped(stop)).await
}

async fn stopped(stop: AsyncFd<Stop>) {
    // Waiting fails only if the runtime ends.
    let _ = stop.readable().await;
}

async fn answer(State(service): State<Service>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes()));
    let request = Request { method: method.as_str(), target, is_json, body: body.into() };
    to_response(service.answer(request), service.worker())
}

fn to_response(answer: Answer, worker: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::from_u16(answer.status.code()).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(HeaderName::from_static("x-worker"), HeaderValue::from_static(worker));
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&*value)) {
            headers.insert(name, value);
        }
    }
    *response.body_mut() = match answer.body {
        Cow::Borrowed(bytes) => Body::from(Bytes::from_static(bytes)),
        Cow::Owned(bytes) => Body::from(Bytes::from(bytes)),
    };
    response
}

struct Accepting {
    connections: Connections,
    address: SocketAddr,
}

impl Listener for Accepting {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        loop {
            if let Ok(served) = self.connections.next().await {
                return (Counted(served.into_registered()), self.address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
