//! The common handler behind ntex, a web framework that grew out of actix: W threads (`--threads`), each with its own event loop
//! on tokio.
//!
//! One more thread accepts connections and hands them to the workers in turn, even to busy ones. A connection stays with its
//! worker, so a handler that blocks stops all connections of that worker.
//!
//! Buffers and limits are ntex's own. In the results, compare it with `actix-web-workers`.

use common::http::{Answer, MAX_BODY, is_json};
use common::routes::Request;
use common::work::Work;
use common::{Forks, Knobs, Model, Pool, Runtime, Server, Service, Stop, Threads};
use ntex::http::StatusCode;
use ntex::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use ntex::rt::{DefaultRuntime, System, spawn_blocking};
use ntex::time::Seconds;
use ntex::util::Bytes;
use ntex::web::types::{PayloadConfig, State};
use ntex::web::{self, App, HttpRequest, HttpResponse, HttpServer, Route};
use std::borrow::Cow;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use tokio::io::unix::AsyncFd;

static NTEX: Runtime = Runtime { name: "ntex", package: Some("ntex"), models: &MODELS, settings };

/// The number of threads for blocking work of all workers: ntex's own default.
const BLOCKING_THREADS: usize = 256;

/// W workers, each with a runtime.
const WORKERS: Model = Model {
    name: "workers",
    about: "W threads, each with its own runtime, and one thread that hands out connections",
    has_threads: true,
    forks: Forks::Never,
    handlers: Threads::Knob,
    pollers: Threads::KnobAnd(1),
    ..Model::one_thread(|server| serve(server, || web::to(answer)))
};

const MODELS: [Model; 2] = [
    WORKERS,
    Model {
        name: "block",
        about: "W threads, each with its own runtime; blocking calls go to one pool of ntex (`rt::spawn_blocking`)",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        serve: |server| serve(server, || web::to(answer_from_pool)),
        ..WORKERS
    },
];

fn main() -> ExitCode {
    common::main(&NTEX)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server, handler: fn() -> Route) -> io::Result<()> {
    let pool = server.knobs.blocking_threads.max(1);
    System::build().name("ntex").thread_pool_limit(pool).build(DefaultRuntime).block_on(serve_all(server, handler))
}

async fn serve_all(server: Server, handler: fn() -> Route) -> io::Result<()> {
    let Server { knobs, acceptor, stop, service, .. } = server;
    let listener = TcpListener::from(acceptor.as_fd().try_clone_to_owned()?);
    let copy = listener.as_raw_fd();
    let unseen = service.unseen();
    let app = async move || App::new().state(service).state(PayloadConfig::new(MAX_BODY)).default_service(handler());
    let running = HttpServer::new(app)
        .workers(knobs.threads)
        .shutdown_timeout(Seconds(knobs.limits.drain_seconds().try_into().unwrap_or(u16::MAX)))
        .disable_signals()
        .listen(listener)?
        .run();
    service.ready();
    let stopping = running.clone();
    ntex::rt::spawn(async move {
        stopped(stop).await;
        acceptor.close_after(copy);
        stopping.stop(true).await;
    });
    let result = running.await;
    drop(unseen);
    result
}

async fn stopped(stop: Stop) {
    // SAFETY: the event owns its descriptor, never changes it, and keeps it open until it and its registration are dropped.
    if let Ok(stop) = unsafe { AsyncFd::register(stop) } {
        // Waiting fails only if the runtime ends.
        let _ = stop.readable().await;
    }
}

/// Makes the blocking call on the worker.
async fn answer(service: State<Service>, head: HttpRequest, body: Bytes) -> HttpResponse {
    to_response(service.answer(request(&head, &body)), service.worker())
}

/// Makes the blocking call on a thread of ntex's pool.
async fn answer_from_pool(service: State<Service>, head: HttpRequest, body: Bytes) -> HttpResponse {
    let pool =
        |work: Work| async { spawn_blocking(|| work.run()).await.map_err(|_| io::Error::other("the pool dropped the work")) };
    to_response(service.answer_with(request(&head, &body), pool).await, service.worker())
}

fn request<'a>(head: &'a HttpRequest, body: &[u8]) -> Request<'a> {
    let target = head.uri().path_and_query().map_or("/", |target| target.as_str());
    let is_json = head.headers().get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes()));
    Request { method: head.method().as_str(), target, is_json, body: body.to_vec() }
}

fn to_response(answer: Answer, worker: &'static str) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::from_u16(answer.status.code()).unwrap_or_default());
    response.set_header(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    response.set_header(HeaderName::from_static("x-worker"), HeaderValue::from_static(worker));
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&*value)) {
            response.set_header(name, value);
        }
    }
    match answer.body {
        Cow::Borrowed(bytes) => response.body(Bytes::from_static(bytes)),
        Cow::Owned(bytes) => response.body(bytes),
    }
}
