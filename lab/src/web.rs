//! The page's server. It answers no other page: every request must name this address as its host, come from no other origin, and hold the token.

use crate::bounds::Ask;
use crate::stage::{Asked, Message};
use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use bench::stage::{Placement, say, set_of};
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;
use serde::Deserialize;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tokio::sync::{broadcast, oneshot};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};

/// The page, as `npm run build` in `report/` makes it.
const PAGE: &str = include_str!("../../report/dist/lab.html");
/// The page may load nothing, and be shown in no other.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; frame-ancestors 'none'";
/// The longest request that is read.
const MOST_BYTES: usize = 16 * 1024;

/// The state of the page's server.
#[derive(Clone)]
pub struct Web {
    /// Its address.
    pub address: SocketAddr,
    /// The token in the page's address.
    pub token: String,
    /// The channel to the stage.
    pub asks: Sender<Asked>,
    /// The source of frames.
    pub frames: broadcast::Sender<Message>,
}

#[derive(Deserialize)]
struct Held {
    #[serde(default)]
    token: String,
}

impl Web {
    /// Serves until the program ends.
    pub fn serve(self, listener: TcpListener) {
        // The driver is not to wait for it.
        let first: Vec<usize> = Placement::default_here().server_cores().into_iter().take(1).collect();
        let _ = sched_setaffinity(Pid::from_raw(0), &set_of(&first));
        if let Err(error) = self.run(listener) {
            say(&format!("stallbench lab: {error:#}"));
            std::process::exit(1);
        }
    }

    fn run(self, listener: TcpListener) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        listener.set_nonblocking(true)?;
        let web = Arc::new(self);
        let routes = Router::new()
            .route("/", get(page))
            .route("/events", get(events))
            .route("/act", post(act))
            .layer(from_fn_with_state(web.clone(), guard))
            .with_state(web);
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, routes).await.context("the page's server ended")
        })
    }
}

/// Refuses requests that do not come from the page itself.
async fn guard(State(web): State<Arc<Web>>, Query(held): Query<Held>, request: Request, next: Next) -> Response {
    let refused = |status: StatusCode, why: &str| (status, format!("{why}\n")).into_response();
    let headers = request.headers();
    if let Err(why) = from_here(headers, web.address) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    let token = text(headers, "x-token").unwrap_or(&held.token);
    if !is_same(token, &web.token) {
        return refused(StatusCode::FORBIDDEN, "the token is missing or wrong: open the address that stallbench lab has printed");
    }
    next.run(request).await
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Another page's name for this address is another host, and what another page sends names its origin.
fn from_here(headers: &HeaderMap, address: SocketAddr) -> Result<(), &'static str> {
    let own = [format!("127.0.0.1:{}", address.port()), format!("localhost:{}", address.port())];
    let host = text(headers, "host").unwrap_or_default();
    if !own.iter().any(|own| own == host) {
        return Err("this host is not the lab's");
    }
    match headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default()) {
        Some(origin) if !own.iter().any(|own| origin == format!("http://{own}")) => Err("another page may not ask the lab"),
        _ => Ok(()),
    }
}

/// Compares in a time that does not say how much is right.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE)).into_response()
}

/// Streams frames to a page.
async fn events(State(web): State<Arc<Web>>) -> impl IntoResponse {
    let stream = messages(web.frames.subscribe());
    let stream = stream.map(|message| Ok::<_, Infallible>(Event::default().event(message.name).data(message.text)));
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// The messages to a page. One that is too slow misses some of them, and is told so: what it takes for open may have ended meanwhile.
fn messages(receiver: broadcast::Receiver<Message>) -> impl Stream<Item = Message> {
    // An event without data is none to a browser.
    let missed = |_| Message { name: "missed", text: "{}".into() };
    BroadcastStream::new(receiver).map(move |message| message.unwrap_or_else(missed))
}

async fn act(State(web): State<Arc<Web>>, body: Body) -> Response {
    let wrong = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    let Ok(bytes) = axum::body::to_bytes(body, MOST_BYTES).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MOST_BYTES} bytes\n")).into_response();
    };
    let ask = match serde_json::from_slice::<Ask>(&bytes) {
        Ok(ask) => ask,
        Err(error) => return wrong(error.to_string()),
    };
    let (answer, answered) = oneshot::channel();
    if web.asks.send(Asked { ask, answer }).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the lab is ending\n").into_response();
    }
    match answered.await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(why)) => wrong(why),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the lab is ending\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_itself_may_ask() {
        let address = SocketAddr::from(([127, 0, 0, 1], 7700));
        let check = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            origin.map(|origin| headers.insert("origin", origin.parse().unwrap()));
            from_here(&headers, address).is_ok()
        };
        assert!(check("127.0.0.1:7700", None) && check("localhost:7700", Some("http://localhost:7700")));
        for (host, origin) in [
            ("evil.example", None),
            ("evil.example:7700", None),
            ("127.0.0.1", None),
            ("127.0.0.1:7701", None),
            ("127.0.0.1:7700", Some("http://evil.example")),
            ("127.0.0.1:7700", Some("null")),
            ("127.0.0.1:7700", Some("https://127.0.0.1:7700")),
        ] {
            assert!(!check(host, origin), "{host} {origin:?}");
        }
    }

    #[test]
    fn a_page_that_is_too_slow_is_told_that_it_has_missed_frames() {
        let (frames, receiver) = broadcast::channel(2);
        for text in ["1", "2", "3"] {
            frames.send(Message { name: "frame", text: text.into() }).unwrap();
        }
        drop(frames);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told: Vec<Message> = runtime.block_on(messages(receiver).collect());
        let told: Vec<(&str, &str)> = told.iter().map(|message| (message.name, &*message.text)).collect();
        assert_eq!(told, [("missed", "{}"), ("frame", "2"), ("frame", "3")]);
    }

    #[test]
    fn a_token_is_right_or_wrong() {
        assert!(is_same("abc", "abc"));
        for wrong in ["", "ab", "abd", "abcd"] {
            assert!(!is_same(wrong, "abc"), "{wrong}");
        }
    }
}
