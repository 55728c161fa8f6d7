//! The routes: one plain synchronous function from a request to its outcome.
//!
//! [`handle`] classifies the work of a request as instant or blocking *before* doing it. So an offloading model can send blocking
//! work to another thread. The function does not depend on the thread it runs on.

use crate::hits;
use crate::http::{Answer, BodyLength, Head, Status, Target};
use crate::rendezvous;
use crate::state::{self, Ask, NewLaunch, Page};
use crate::work::{Call, Clock};
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// The outcome of routing a request.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// An answer that took no time to make.
    Instant(Answer),
    /// Work that will block the thread that runs it.
    Blocking(Call),
}

/// The server state that the routes need.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The longest time that `/timer` and `/sleep` accept.
    pub max_block: Duration,
    /// The server is draining.
    pub is_draining: bool,
}

/// A request, as the client sent it.
#[derive(Debug, Default)]
pub struct Request<'r> {
    /// The method.
    pub method: &'r str,
    /// The target.
    pub target: &'r str,
    /// Its `Content-Type` is JSON.
    pub is_json: bool,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
}

/// The regular page.
pub const PAGE: &str = "This is the regular page. It should answer at once.\n";

/// Routes a request.
#[must_use]
pub fn handle(context: Context, request: Request<'_>) -> Outcome {
    let target = Target::read(request.target);
    match refusal_of(request.method, &target.path) {
        Some(refused) => Outcome::Instant(refused),
        None => route(context, &target.path, Query(target.query), request).unwrap_or_else(|refused| Outcome::Instant(refused.0)),
    }
}

/// The answer to a request that no body makes right: it has the wrong method, names no route, or says that its body is what the route does not take.
/// `None` to any other.
#[must_use]
pub fn refusal(head: &Head<'_>) -> Option<Answer> {
    let path = Target::read(head.target).path;
    let refused_body = || {
        let length = if let BodyLength::Known(length) = head.body { length } else { 0 };
        let is_launch = path == LAUNCHES && head.method == "POST";
        is_launch.then(|| takes_launch(head.is_json, length).err()).flatten().map(|refused| refused.0)
    };
    refusal_of(head.method, &path).or_else(refused_body)
}

fn refusal_of(method: &str, path: &str) -> Option<Answer> {
    let allowed = allowed(path);
    if allowed.is_some_and(|methods| methods.list.contains(&method)) {
        return None;
    }
    if !METHODS.contains(&method) {
        return Some(Answer::error(Status::NotImplemented, "unknown method\n"));
    }
    // `*` is the server as a whole, and CONNECT asks for another one.
    let allow = match allowed {
        _ if path == "*" || method == "CONNECT" => "GET, HEAD, POST, DELETE",
        Some(methods) => methods.text,
        None => return Some(not_found()),
    };
    let mut refused = Answer::error(Status::MethodNotAllowed, format!("{path} takes {allow}\n"));
    refused.allow = Some(allow);
    Some(refused)
}

/// The methods of RFC 9110 and RFC 5789; any other is answered 501.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// All paths; below `/launches` there is one for each launch.
pub const PATHS: [&str; 14] = [
    "/",
    "/timer",
    "/sleep",
    "/json/stringify",
    "/json/parse",
    "/sort",
    "/pbkdf2",
    "/scrypt",
    "/panic",
    "/healthz",
    "/hits",
    "/wait",
    "/release",
    LAUNCHES,
];

const LAUNCHES: &str = "/launches";

/// The methods that a path takes.
#[derive(Clone, Copy)]
struct Methods {
    list: &'static [&'static str],
    /// The same, as the header `Allow` has them.
    text: &'static str,
}

/// The methods that a path takes; `None` if there is no such path.
fn allowed(path: &str) -> Option<Methods> {
    Some(match path {
        "/json/parse" => Methods { list: &["POST"], text: "POST" },
        LAUNCHES => Methods { list: &["GET", "HEAD", "POST"], text: "GET, HEAD, POST" },
        _ if PATHS.contains(&path) => Methods { list: &["GET", "HEAD"], text: "GET, HEAD" },
        _ if flight(path).is_some() => Methods { list: &["GET", "HEAD", "DELETE"], text: "GET, HEAD, DELETE" },
        _ => return None,
    })
}

/// The flight in the path of one launch, as the client wrote it.
fn flight(path: &str) -> Option<&str> {
    path.strip_prefix(LAUNCHES)?.strip_prefix('/').filter(|flight| !flight.is_empty() && !flight.contains('/'))
}

/// Counting this many hits takes some 20 us.
const INSTANT_HITS: u64 = 1_000;

fn route(context: Context, path: &str, query: Query<'_>, request: Request<'_>) -> Result<Outcome, Refused> {
    let work = match path {
        "/" => return Ok(Outcome::Instant(Answer::text(PAGE))),
        "/healthz" if context.is_draining => {
            return Ok(Outcome::Instant(Answer::error(Status::ServiceUnavailable, "draining\n")));
        }
        "/healthz" => return Ok(ask(Ask::Health)),
        "/hits" => match query.number("times", 1, 1..=10_000)? {
            times @ ..=INSTANT_HITS => return Ok(Outcome::Instant(hits::count(times))),
            times => Call::Hits { times },
        },
        LAUNCHES if request.method == "POST" => return Ok(ask(Ask::Add(new_launch(&request)?))),
        LAUNCHES => {
            let page = Page {
                number: query.number("page", 1, 1..=u32::MAX)?,
                limit: query.number("limit", state::USUAL_LIMIT, 1..=1_000)?,
            };
            return Ok(ask(Ask::List(page)));
        }
        "/timer" => Call::Timer { length: query.length(context)?, clock: query.clock()? },
        "/sleep" => Call::Sleep(query.length(context)?),
        "/wait" => Call::Wait { ticket: query.number("t", 0, 0..=u32::MAX)?, most: query.length(context)? },
        "/release" => return Ok(Outcome::Instant(release(query.number("t", 0, 0..=u32::MAX)?))),
        "/json/stringify" => Call::Stringify { items: query.number("items", 10_000, 0..=1_000_000)? },
        "/json/parse" => Call::Parse(request.body),
        "/sort" => Call::Sort { items: query.number("items", 100_000, 0..=10_000_000)? },
        "/pbkdf2" => Call::Pbkdf2 { iterations: query.number("iterations", 100_000, 1..=10_000_000)? },
        "/panic" => Call::Panic,
        "/scrypt" => Call::Scrypt { log_n: query.number("log_n", 14, 1..=17)? },
        _ => return Ok(one_launch(request.method, flight(path).unwrap_or_default())),
    };
    Ok(Outcome::Blocking(work))
}

fn one_launch(method: &str, flight: &str) -> Outcome {
    // One number has one path: no sign, and no zero before it.
    let is_plain = flight.bytes().all(|byte| byte.is_ascii_digit()) && !flight.starts_with('0');
    match flight.parse().ok().filter(|_| is_plain).ok_or(()) {
        // Not a number, or none that a database knows.
        Ok(..1) | Err(_) => Outcome::Instant(state::no_such(flight)),
        Ok(flight) => ask(if method == "DELETE" { Ask::Abort(flight) } else { Ask::One(flight) }),
    }
}

/// Memory answers at once but for a page, all of whose launches are copied and written; a database blocks the thread that asks it.
fn ask(ask: Ask) -> Outcome {
    let state = state::here();
    if state.blocks() || matches!(ask, Ask::List(_)) {
        Outcome::Blocking(Call::Launches(ask))
    } else {
        Outcome::Instant(state.answer(ask))
    }
}

/// Fails unless a body of this type and length may be a launch.
fn takes_launch(is_json: bool, length: usize) -> Result<(), Refused> {
    if !is_json {
        let message = "a launch is sent with Content-Type: application/json\n";
        return Err(Refused(Answer::error(Status::UnsupportedMediaType, message)));
    }
    if length > state::MAX_DOCUMENT {
        let message = format!("body: a launch takes at most {} bytes\n", state::MAX_DOCUMENT);
        return Err(Refused(Answer::error(Status::ContentTooLarge, message)));
    }
    Ok(())
}

fn new_launch(request: &Request<'_>) -> Result<NewLaunch, Refused> {
    takes_launch(request.is_json, request.body.len())?;
    NewLaunch::read(&request.body).map_err(|wrong| Refused(Answer::error(Status::BadRequest, format!("{wrong}\n"))))
}

fn release(ticket: u32) -> Answer {
    if rendezvous::release(ticket) {
        Answer::text("released\n")
    } else {
        Answer::error(Status::NotFound, "nobody waits with this ticket\n")
    }
}

fn not_found() -> Answer {
    Answer::error(Status::NotFound, "there is nothing here; try /, /timer?ms=9000, /launches or /healthz\n")
}

/// The answer to a request that is refused.
struct Refused(Answer);

impl Refused {
    fn parameter(name: &str, value: &str, takes: impl Display) -> Self {
        Refused(Answer::error(Status::BadRequest, format!("{name}: takes {takes}, not '{value}'\n")))
    }
}

/// The part of a target after `?`.
#[derive(Clone, Copy)]
struct Query<'q>(&'q str);

impl<'q> Query<'q> {
    fn get(self, name: &str) -> Option<Cow<'q, str>> {
        form_urlencoded::parse(self.0.as_bytes()).find_map(|(key, value)| (key == name).then_some(value))
    }

    fn number<N: FromStr + PartialOrd + Display>(self, name: &str, default: N, bounds: RangeInclusive<N>) -> Result<N, Refused> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if is_plain && bounds.contains(&number) => Ok(number),
            _ => Err(Refused::parameter(name, &value, format!("a whole number from {} to {}", bounds.start(), bounds.end()))),
        }
    }

    /// The parameter `ms`: milliseconds, with or without a fraction. The default is 9 seconds, or `--max-block` if less.
    fn length(self, context: Context) -> Result<Duration, Refused> {
        let most = context.max_block.as_secs_f64() * 1e3;
        let Some(value) = self.get("ms") else { return Ok(context.max_block.min(Duration::from_secs(9))) };
        let is_plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match value.parse::<f64>() {
            Ok(ms) if is_plain && ms <= most => Ok(Duration::from_secs_f64(ms / 1e3)),
            _ => Err(Refused::parameter("ms", &value, format!("milliseconds from 0 to {most} (--max-block)"))),
        }
    }

    fn clock(self) -> Result<Clock, Refused> {
        match self.get("clock").as_deref() {
            None | Some("wall") => Ok(Clock::Wall),
            Some("cpu") => Ok(Clock::Cpu),
            Some(other) => Err(Refused::parameter("clock", other, "wall or cpu")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::MAX_WORK;

    const CONTEXT: Context = Context { max_block: Duration::from_secs(60), is_draining: false };

    fn send(method: &str, target: &str) -> Outcome {
        handle(CONTEXT, Request { method, target, ..Request::default() })
    }

    fn get(target: &str) -> Outcome {
        send("GET", target)
    }

    fn instant(outcome: Outcome) -> Answer {
        match outcome {
            Outcome::Instant(answer) => answer,
            Outcome::Blocking(work) => panic!("{work:?} was not expected to block"),
        }
    }

    #[test]
    fn classifies_blocking_work_before_doing_it() {
        assert_eq!(get("/timer"), Outcome::Blocking(Call::Timer { length: Duration::from_secs(9), clock: Clock::Wall }));
        assert_eq!(
            get("/timer?clock=cpu&ms=0.5"),
            Outcome::Blocking(Call::Timer { length: Duration::from_micros(500), clock: Clock::Cpu })
        );
        assert_eq!(get("/sleep?ms=60000"), Outcome::Blocking(Call::Sleep(Duration::from_secs(60))));
        assert_eq!(get("/sort?items=5"), Outcome::Blocking(Call::Sort { items: 5 }));
        assert_eq!(
            handle(CONTEXT, Request { method: "POST", target: "/json/parse", is_json: false, body: b"[]".to_vec() }),
            Outcome::Blocking(Call::Parse(b"[]".to_vec()))
        );
    }

    #[test]
    fn what_takes_long_in_memory_too_is_blocking() {
        let page = Page { number: 1, limit: 1_000 };
        assert_eq!(get("/launches?limit=1000"), Outcome::Blocking(Call::Launches(Ask::List(page))));
        assert_eq!(get("/hits?times=10000"), Outcome::Blocking(Call::Hits { times: 10_000 }));
        assert_eq!(instant(get("/launches/1")).status, Status::NotFound);
        assert_eq!(instant(get("/hits?times=2")).status, Status::Ok);
    }

    #[test]
    fn names_and_values_may_be_percent_encoded_and_targets_absolute() {
        let millisecond = Outcome::Blocking(Call::Timer { length: Duration::from_millis(1), clock: Clock::Wall });
        for target in ["/%74imer?ms=1", "/timer?%6ds=1", "/timer?ms=%31", "http://h/timer?ms=1", "HTTPS://h:1/timer?a=b&ms=1"] {
            assert_eq!(get(target), millisecond, "{target}");
        }
        assert_eq!(instant(get("http://h?next=/timer")).body, PAGE.as_bytes());
    }

    #[test]
    fn bad_parameters_are_answered_400_with_their_name_and_bounds() {
        for (target, name) in [
            ("/timer?ms=abc", "ms"),
            ("/timer?ms=-1", "ms"),
            ("/timer?ms=60001", "ms"),
            ("/timer?ms=inf", "ms"),
            ("/timer?ms=nan", "ms"),
            ("/timer?ms=1e3", "ms"),
            ("/sleep?ms=", "ms"),
            ("/sleep?ms", "ms"),
            ("/timer?clock=moon", "clock"),
            ("/sort?items=+5", "items"),
            ("/pbkdf2?iterations=0", "iterations"),
            ("/pbkdf2?iterations=99999999999", "iterations"),
            ("/scrypt?log_n=18", "log_n"),
        ] {
            let answer = instant(get(target));
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, Status::BadRequest, "{target}");
            assert!(text.starts_with(&format!("{name}: takes ")), "{target}: {text}");
        }
    }

    #[test]
    fn the_largest_work_fits_into_the_memory_that_there_is() {
        for target in ["/scrypt?log_n=17", "/sort?items=10000000", "/json/stringify?items=1000000"] {
            let Outcome::Blocking(call) = get(target) else { panic!("{target} is instant") };
            assert!(call.memory() <= MAX_WORK, "{target}");
        }
    }

    #[test]
    fn unknown_paths_are_404_and_other_methods_405() {
        assert_eq!(instant(get("/nothing")).status, Status::NotFound);
        assert_eq!(instant(send("PUT", "/nothing")).status, Status::NotFound);
        assert_eq!(instant(send("BREW", "/")).status, Status::NotImplemented);
        assert_eq!(instant(send("OPTIONS", "*")).status, Status::MethodNotAllowed);
        assert_eq!(instant(send("CONNECT", "h:80")).status, Status::MethodNotAllowed);
        let refused = instant(send("POST", "/timer"));
        assert_eq!((refused.status, refused.allow), (Status::MethodNotAllowed, Some("GET, HEAD")));
        assert_eq!(instant(get("/json/parse")).allow, Some("POST"));
    }

    #[test]
    fn every_path_in_the_list_is_routed() {
        for path in PATHS {
            let method = if path == "/json/parse" { "POST" } else { "GET" };
            if let Outcome::Instant(answer) = send(method, path) {
                assert_ne!(answer, not_found(), "{path}");
            }
        }
    }

    #[test]
    fn health_says_when_the_server_drains() {
        let draining = Context { is_draining: true, ..CONTEXT };
        assert_eq!(
            instant(handle(draining, Request { method: "GET", target: "/healthz", ..Request::default() })).status,
            Status::ServiceUnavailable
        );
    }
}
