//! The common handler behind hyper, the HTTP library that axum, tonic and reqwest use, on tokio's current-thread runtime.
//!
//! A connection is a task. hyper reads, parses and writes, and its service makes the blocking call inline. It sends the same
//! status, headers and body as the common codec, so that the cost of a request can be compared.
//!
//! Buffers and limits are hyper's own. In the results, compare it with `tokio-current-thread`: only the HTTP library differs.

use bytes::Bytes;
use common::http::{Answer, Status};
use common::{Knobs, Model, Runtime, Server, Service};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use on_tokio::{Connections, Counted};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::watch;

static HYPER: Runtime = Runtime { name: "hyper", package: Some("hyper"), models: &[Model::one_thread(serve)], settings };

fn main() -> ExitCode {
    common::main(&HYPER)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async { tokio::spawn(accept(server)).await })?
}

async fn accept(server: Server) -> io::Result<()> {
    let in_a_row = server.acceptor.in_a_row();
    let connections = Connections::new(server.acceptor)?;
    // SAFETY: it owns its descriptor, never changes it, and keeps it open until it and its registration are dropped.
    let stop = unsafe { AsyncFd::register(server.stop)? };
    let mut stopped = pin!(stop.readable());
    let (drain, draining) = watch::channel(());
    server.service.ready();
    let mut accepted = 0;
    loop {
        let served = tokio::select! {
            biased;
            _ = &mut stopped => break,
            served = connections.next() => served?,
        };
        tokio::spawn(serve_connection(Counted(served.into_registered()), server.service, draining.clone()));
        accepted += 1;
        // As in `tokio-current-thread`.
        if accepted % in_a_row == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop((connections, drain));
    std::future::pending().await
}

async fn serve_connection(stream: Counted, service: Service, mut draining: watch::Receiver<()>) -> hyper::Result<()> {
    let handler = service_fn(move |request| answer(service, request));
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), handler));
    let mut is_draining = pin!(async { draining.changed().await.is_err() });
    tokio::select! {
        result = &mut connection => return result,
        _ = &mut is_draining => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(service: Service, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let answer = match Limited::new(body, common::http::MAX_BODY).collect().await {
        Ok(body) => {
            let is_json = head.headers.get(CONTENT_TYPE).is_some_and(|value| common::http::is_json(value.as_bytes()));
            let body = body.to_bytes().into();
            service.answer(common::routes::Request { method: head.method.as_str(), target, is_json, body })
        }
        Err(error) => Answer::error(status_of(&*error), format!("{error}\n")),
    };
    Ok(to_response(answer, service.worker()))
}

/// The status for a body that could not be read: it is too long, or it is malformed.
fn status_of(error: &(dyn Error + Send + Sync + 'static)) -> Status {
    if error.is::<LengthLimitError>() { Status::ContentTooLarge } else { Status::BadRequest }
}

fn to_response(answer: Answer, worker: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status.code()).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(HeaderName::from_static("x-worker"), HeaderValue::from_static(worker));
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&*value)) {
            headers.insert(name, value);
        }
    }
    *response.body_mut() = match answer.body {
        std::borrow::Cow::Borrowed(bytes) => Full::new(Bytes::from_static(bytes)),
        std::borrow::Cow::Owned(bytes) => Full::new(Bytes::from(bytes)),
    };
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_body_over_the_limit_is_answered_413() {
        let long = Limited::new(Full::new(Bytes::from_static(b"[1]")), 2);
        let runtime = Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(long.collect()).unwrap_err();
        assert_eq!(status_of(&*error), Status::ContentTooLarge);
        assert_eq!(status_of(&io::Error::other("a chunk's size is malformed")), Status::BadRequest);
    }
}
