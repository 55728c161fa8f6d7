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
use axum::routing::{MethodRouter, any};
use axum::serve::Listener;
use common::http::{Answer, MAX_BODY, is_json};
use common::routes::{PATHS, Request};
use common::work::Work;
use common::{Knobs, Model, Pool, Runtime, Server, Service, Stop, Threads};
use on_tokio::{Connections, Counted};
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;

static AXUM: Runtime = Runtime { name: "axum", package: Some("axum"), models: &MODELS, settings };

/// The number of threads in the pool for blocking work; tokio's default.
const BLOCKING_THREADS: usize = 512;

/// W workers that share the tasks.
const WORKERS: Model = Model {
    name: "multi-thread",
    about: "W workers share the tasks",
    has_threads: true,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::one_thread(|server| serve(server, any(answer)))
};

const MODELS: [Model; 2] = [
    WORKERS,
    Model {
        name: "spawn-blocking",
        about: "W workers share the tasks; blocking calls go to a pool",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        serve: |server| serve(server, any(answer_from_pool)),
        ..WORKERS
    },
];

fn main() -> ExitCode {
    common::main(&AXUM)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server, handler: MethodRouter<Service>) -> io::Result<()> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(server.knobs.threads).max_blocking_threads(server.knobs.blocking_threads.max(1));
    builder.enable_io().build()?.block_on(async { tokio::spawn(serve_all(server, handler)).await })?
}

async fn serve_all(server: Server, handler: MethodRouter<Service>) -> io::Result<()> {
    let service = server.service;
    let routed = PATHS.into_iter().fold(Router::new(), |router, path| router.route(path, handler.clone()));
    let router = routed
        .fallback_service(handler.with_state(service))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(service);
    let connections = Connections::new(server.acceptor)?;
    // SAFETY: it owns its descriptor, never changes it, and keeps it open until it and its registration are dropped.
    let stop = Arc::new(unsafe { AsyncFd::register(server.stop)? });
    service.ready();
    let accepting = Accepting { connections, stop: stop.clone(), address: service.address() };
    axum::serve(accepting, router).with_graceful_shutdown(stopped(stop)).await
}

async fn stopped(stop: Arc<AsyncFd<Stop>>) {
    // Waiting fails only if the runtime ends.
    let _ = stop.readable().await;
}

/// Makes the blocking call on the worker.
async fn answer(State(service): State<Service>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    to_response(service.answer(request(&method, &uri, &headers, body)), service.worker())
}

/// Makes the blocking call on a thread of tokio's pool.
async fn answer_from_pool(
    State(service): State<Service>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let pool = |work: Work| async { Ok(spawn_blocking(|| work.run()).await?) };
    to_response(service.answer_with(request(&method, &uri, &headers, body), pool).await, service.worker())
}

fn request<'a>(method: &'a Method, uri: &'a Uri, headers: &HeaderMap, body: Bytes) -> Request<'a> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes()));
    Request { method: method.as_str(), target, is_json, body: body.into() }
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
    stop: Arc<AsyncFd<Stop>>,
    address: SocketAddr,
}

impl Listener for Accepting {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        loop {
            let served = tokio::select! {
                biased;
                // axum would take what waits now, and close it unread.
                _ = self.stop.readable() => std::future::pending().await,
                served = self.connections.next() => served,
            };
            if let Ok(served) = served {
                return (Counted(served.into_registered()), self.address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
