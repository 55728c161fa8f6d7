//! The common handler behind actix-web: W threads (`--threads`), each with its own single-threaded tokio runtime.
//!
//! One more thread accepts connections and hands them to the workers in turn, even to busy ones. A connection stays with its
//! worker, so a handler that blocks stops all connections of that worker.
//!
//! Buffers and limits are actix's own. In the results, compare it with `tokio-per-core`, where the kernel distributes
//! connections.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Route};
use common::http::{Answer, MAX_BODY, is_json};
use common::routes::Request;
use common::work::Work;
use common::{Forks, Knobs, Model, Pool, Runtime, Server, Service, Stop, Threads};
use std::borrow::Cow;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use tokio::io::unix::AsyncFd;

static ACTIX_WEB: Runtime = Runtime { name: "actix-web", package: Some("actix-web"), models: &MODELS, settings };

/// The number of threads for blocking work, divided among the workers; actix's default.
const BLOCKING_THREADS: usize = 512;

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
        about: "W threads, each with its own runtime; blocking calls go to a pool of each (`web::block`)",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        serve: |server| serve(server, || web::to(answer_from_pool)),
        ..WORKERS
    },
];

fn main() -> ExitCode {
    common::main(&ACTIX_WEB)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server, handler: fn() -> Route) -> io::Result<()> {
    actix_web::rt::System::new().block_on(serve_all(server, handler))
}

async fn serve_all(server: Server, handler: fn() -> Route) -> io::Result<()> {
    let Server { knobs, acceptor, stop, service, .. } = server;
    let listener = TcpListener::from(acceptor.as_fd().try_clone_to_owned()?);
    let copy = listener.as_raw_fd();
    let unseen = service.unseen();
    let app = move || {
        let limit = web::PayloadConfig::new(MAX_BODY);
        App::new().app_data(Data::new(service)).app_data(limit).default_service(handler())
    };
    let running = HttpServer::new(app)
        .workers(knobs.threads)
        .worker_max_blocking_threads(knobs.blocking_threads.div_ceil(knobs.threads).max(1))
        .shutdown_timeout(knobs.limits.drain_seconds())
        .shutdown_signal(async move {
            stopped(stop).await;
            acceptor.close_after(copy);
        })
        .listen(listener)?
        .run();
    service.ready();
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
async fn answer(service: Data<Service>, head: HttpRequest, body: Bytes) -> HttpResponse {
    to_response(service.answer(request(&head, body)), service.worker())
}

/// Makes the blocking call on a thread of the worker's pool.
async fn answer_from_pool(service: Data<Service>, head: HttpRequest, body: Bytes) -> HttpResponse {
    let pool = |work: Work| async { web::block(|| work.run()).await.map_err(io::Error::other) };
    to_response(service.answer_with(request(&head, body), pool).await, service.worker())
}

fn request(head: &HttpRequest, body: Bytes) -> Request<'_> {
    let target = head.uri().path_and_query().map_or("/", |target| target.as_str());
    let is_json = head.headers().get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes()));
    Request { method: head.method().as_str(), target, is_json, body: body.into() }
}

fn to_response(answer: Answer, worker: &'static str) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::from_u16(answer.status.code()).unwrap_or_default());
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static(answer.content_type)));
    response.insert_header((HeaderName::from_static("x-worker"), HeaderValue::from_static(worker)));
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&*value)) {
            response.insert_header((name, value));
        }
    }
    match answer.body {
        Cow::Borrowed(bytes) => response.body(Bytes::from_static(bytes)),
        Cow::Owned(bytes) => response.body(bytes),
    }
}
