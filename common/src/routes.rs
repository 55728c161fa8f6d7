//! The routes: one plain synchronous function from a request to its outcome.
//!
//! [`handle`] classifies the work of a request as instant or blocking *before* doing it. So an offloading model can send blocking
//! work to another thread. The function does not depend on the thread it runs on.

use crate::http::{Answer, Status};
use crate::work::{Clock, Work};
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
    Blocking(Work),
}

/// The server state that the routes need.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The longest time that `/timer` and `/sleep` accept.
    pub max_block: Duration,
    /// The server is draining.
    pub is_draining: bool,
}

/// The regular page.
pub const PAGE: &str = "This is the regular page. It should answer at once.\n";

/// Routes a request. `target` is its path and query.
#[must_use]
pub fn handle(context: Context, method: &str, target: &str, body: Vec<u8>) -> Outcome {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let allow = if path == "/json/parse" { "POST" } else { "GET, HEAD" };
    let is_allowed = match method {
        "GET" | "HEAD" => allow != "POST",
        "POST" => allow == "POST",
        _ => false,
    };
    if is_allowed {
        return route(context, path, Query(query), body).unwrap_or_else(|refused| Outcome::Instant(refused.0));
    }
    if !PATHS.contains(&path) {
        return Outcome::Instant(not_found());
    }
    let mut refused = Answer::error(Status::MethodNotAllowed, format!("{path} takes {allow}\n"));
    refused.allow = Some(allow);
    Outcome::Instant(refused)
}

/// All paths.
pub const PATHS: [&str; 9] =
    ["/", "/timer", "/sleep", "/json/stringify", "/json/parse", "/sort", "/pbkdf2", "/scrypt", "/healthz"];

fn route(context: Context, path: &str, query: Query<'_>, body: Vec<u8>) -> Result<Outcome, Refused> {
    let work = match path {
        "/" => return Ok(Outcome::Instant(Answer::text(PAGE))),
        "/healthz" => return Ok(Outcome::Instant(health(context.is_draining))),
        "/timer" => Work::Timer { length: query.length(context)?, clock: query.clock()? },
        "/sleep" => Work::Sleep(query.length(context)?),
        "/json/stringify" => Work::Stringify { items: query.number("items", 10_000, 0..=1_000_000)? },
        "/json/parse" => Work::Parse(body),
        "/sort" => Work::Sort { items: query.number("items", 100_000, 0..=10_000_000)? },
        "/pbkdf2" => Work::Pbkdf2 { iterations: query.number("iterations", 100_000, 1..=10_000_000)? },
        "/scrypt" => Work::Scrypt { log_n: query.number("log_n", 14, 1..=20)? },
        _ => return Ok(Outcome::Instant(not_found())),
    };
    Ok(Outcome::Blocking(work))
}

fn health(is_draining: bool) -> Answer {
    if is_draining { Answer::error(Status::ServiceUnavailable, "draining\n") } else { Answer::text("ready\n") }
}

fn not_found() -> Answer {
    Answer::error(Status::NotFound, "there is nothing here; try /, /timer?ms=9000, /sleep?ms=1000 or /healthz\n")
}

/// The 400 answer to a request with an invalid parameter.
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
    fn get(self, name: &str) -> Option<&'q str> {
        self.0.split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (pair == name).then_some(""),
        })
    }

    fn number<N: FromStr + PartialOrd + Display>(self, name: &str, default: N, bounds: RangeInclusive<N>) -> Result<N, Refused> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if is_plain && bounds.contains(&number) => Ok(number),
            _ => Err(Refused::parameter(name, value, format!("a whole number from {} to {}", bounds.start(), bounds.end()))),
        }
    }

    /// The parameter `ms`: milliseconds, with or without a fraction. The default is 9 seconds, or `--max-block` if less.
    fn length(self, context: Context) -> Result<Duration, Refused> {
        let most = context.max_block.as_secs_f64() * 1e3;
        let Some(value) = self.get("ms") else { return Ok(context.max_block.min(Duration::from_secs(9))) };
        let is_plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match value.parse::<f64>() {
            Ok(ms) if is_plain && ms <= most => Ok(Duration::from_secs_f64(ms / 1e3)),
            _ => Err(Refused::parameter("ms", value, format!("milliseconds from 0 to {most} (--max-block)"))),
        }
    }

    fn clock(self) -> Result<Clock, Refused> {
        match self.get("clock") {
            None | Some("wall") => Ok(Clock::Wall),
            Some("cpu") => Ok(Clock::Cpu),
            Some(other) => Err(Refused::parameter("clock", other, "wall or cpu")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context { max_block: Duration::from_secs(60), is_draining: false };

    fn get(target: &str) -> Outcome {
        handle(CONTEXT, "GET", target, Vec::new())
    }

    fn instant(outcome: Outcome) -> Answer {
        match outcome {
            Outcome::Instant(answer) => answer,
            Outcome::Blocking(work) => panic!("{work:?} was not expected to block"),
        }
    }

    #[test]
    fn classifies_blocking_work_before_doing_it() {
        assert_eq!(get("/timer"), Outcome::Blocking(Work::Timer { length: Duration::from_secs(9), clock: Clock::Wall }));
        assert_eq!(
            get("/timer?clock=cpu&ms=0.5"),
            Outcome::Blocking(Work::Timer { length: Duration::from_micros(500), clock: Clock::Cpu })
        );
        assert_eq!(get("/sleep?ms=60000"), Outcome::Blocking(Work::Sleep(Duration::from_secs(60))));
        assert_eq!(get("/sort?items=5"), Outcome::Blocking(Work::Sort { items: 5 }));
        assert_eq!(handle(CONTEXT, "POST", "/json/parse", b"[]".to_vec()), Outcome::Blocking(Work::Parse(b"[]".to_vec())));
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
            ("/scrypt?log_n=21", "log_n"),
        ] {
            let answer = instant(get(target));
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, Status::BadRequest, "{target}");
            assert!(text.starts_with(&format!("{name}: takes ")), "{target}: {text}");
        }
    }

    #[test]
    fn unknown_paths_are_404_and_other_methods_405() {
        assert_eq!(instant(get("/nothing")).status, Status::NotFound);
        assert_eq!(instant(handle(CONTEXT, "PUT", "/nothing", Vec::new())).status, Status::NotFound);
        let refused = instant(handle(CONTEXT, "POST", "/timer", Vec::new()));
        assert_eq!((refused.status, refused.allow), (Status::MethodNotAllowed, Some("GET, HEAD")));
        assert_eq!(instant(get("/json/parse")).allow, Some("POST"));
    }

    #[test]
    fn every_path_in_the_list_is_routed() {
        for path in PATHS {
            let method = if path == "/json/parse" { "POST" } else { "GET" };
            if let Outcome::Instant(answer) = handle(CONTEXT, method, path, Vec::new()) {
                assert_eq!(answer.status, Status::Ok, "{path}");
            }
        }
    }

    #[test]
    fn health_says_when_the_server_drains() {
        let draining = Context { is_draining: true, ..CONTEXT };
        assert_eq!(instant(handle(draining, "GET", "/healthz", Vec::new())).status, Status::ServiceUnavailable);
    }
}
