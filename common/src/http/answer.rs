//! Answers and their encoding.

use nix::time::{ClockId, clock_gettime};
use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

macro_rules! statuses {
    ($($name:ident = $code:literal $reason:literal),* $(,)?) => {
        /// The statuses that servers in this workspace send.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are those of RFC 9110")]
        pub enum Status { $($name),* }

        impl Status {
            /// The three-digit code.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Status::$name => $code),* }
            }

            /// The reason phrase after the code.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Status::$name => $reason),* }
            }

            const fn line(self) -> &'static str {
                match self { $(Status::$name => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n")),* }
            }
        }
    };
}

statuses! {
    Ok = 200 "OK",
    Created = 201 "Created",
    BadRequest = 400 "Bad Request",
    NotFound = 404 "Not Found",
    MethodNotAllowed = 405 "Method Not Allowed",
    ContentTooLarge = 413 "Content Too Large",
    UriTooLong = 414 "URI Too Long",
    UnsupportedMediaType = 415 "Unsupported Media Type",
    ExpectationFailed = 417 "Expectation Failed",
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    InternalServerError = 500 "Internal Server Error",
    NotImplemented = 501 "Not Implemented",
    ServiceUnavailable = 503 "Service Unavailable",
    VersionNotSupported = 505 "HTTP Version Not Supported",
}

/// The interim answer to a client that sent `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer, independent of the HTTP library that encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The value of `Allow`; only with 405.
    pub allow: Option<&'static str>,
    /// The value of `Retry-After`, in seconds; only with 503.
    pub retry_after: Option<u32>,
    /// The value of `Location`; only with 201.
    pub location: Option<String>,
    /// The value of `X-State`: who sees the launches that this answer is about.
    pub state: Option<&'static str>,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl Answer {
    /// 200 with a text.
    pub fn text(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Ok, "text/plain; charset=utf-8", body)
    }

    /// 200 with JSON.
    pub fn json(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Ok, "application/json", body)
    }

    /// An error status with a line that describes the error.
    pub fn error(status: Status, body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// 503: no thread is free for the work. The client may retry in a second.
    pub fn busy() -> Self {
        let mut answer = Self::error(Status::ServiceUnavailable, "all threads for blocking work are busy\n");
        answer.retry_after = Some(1);
        answer
    }

    fn new(status: Status, content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Answer { status, content_type, allow: None, retry_after: None, location: None, state: None, body }
    }

    fn has_headers(&self) -> bool {
        self.allow.is_some() || self.retry_after.is_some() || self.location.is_some() || self.state.is_some()
    }

    /// The headers that only some answers have, besides those of every answer.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let retry_after = self.retry_after.map(|seconds| Cow::Owned(seconds.to_string()));
        let optional = [
            ("Allow", self.allow.map(Cow::Borrowed)),
            ("Retry-After", retry_after),
            ("Location", self.location.as_deref().map(Cow::Borrowed)),
            ("X-State", self.state.map(Cow::Borrowed)),
        ];
        optional.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The form of the answer that the request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Write the headers of the full answer, but no body (HEAD).
    pub without_body: bool,
    /// The value of `Connection`; `None` to omit the header.
    pub connection: Option<&'static str>,
}

/// Appends the answer's bytes to `out`.
pub fn encode(out: &mut Vec<u8>, answer: &Answer, form: Form) {
    // One reservation covers the usual case, so that the appends do not grow the buffer.
    out.reserve(256 + answer.body.len());
    with_head(answer, |head| out.extend_from_slice(head));
    let mut write = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    // Most answers have none, and looking for each would take as long as the rest.
    if answer.has_headers() {
        answer.headers().for_each(|(name, value)| write(name, &value));
    }
    if let Some(value) = form.connection {
        write("Connection", value);
    }
    out.extend_from_slice(b"\r\n");
    if !form.without_body {
        out.extend_from_slice(&answer.body);
    }
}

/// The status line and the headers that every answer has, as this thread wrote them last.
struct Head {
    /// The second that `stamp` was written for.
    second: i64,
    /// The headers `Date` and `X-Worker`, which vary over time and by process.
    stamp: Vec<u8>,
    /// Status, type and length that `text` was written for.
    status: Status,
    content_type: &'static str,
    length: usize,
    /// All of it.
    text: Vec<u8>,
}

/// Calls `use_it` with the status line and the headers that every answer has. They are written anew only where they differ from those of the
/// thread's last answer: within a second, most have the same.
fn with_head(answer: &Answer, use_it: impl FnOnce(&[u8])) {
    const NONE: Head = Head { second: -1, stamp: Vec::new(), status: Status::Ok, content_type: "", length: 0, text: Vec::new() };
    thread_local! {
        static HEAD: RefCell<Head> = const { RefCell::new(NONE) };
    }
    // Reading the coarse clock needs no system call; it is accurate to a few milliseconds.
    let second = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |now| now.tv_sec());
    HEAD.with_borrow_mut(|head| {
        let is_same = (head.second, head.status, head.length) == (second, answer.status, answer.body.len());
        if !is_same || head.content_type != answer.content_type {
            head.write(second, answer);
        }
        use_it(&head.text);
    });
}

impl Head {
    #[inline(never)]
    fn write(&mut self, second: i64, answer: &Answer) {
        if self.second != second {
            self.second = second;
            let date = UNIX_EPOCH + Duration::from_secs(second.unsigned_abs());
            let worker = std::process::id();
            self.stamp = format!("Date: {}\r\nX-Worker: {worker}\r\n", httpdate::fmt_http_date(date)).into_bytes();
        }
        (self.status, self.content_type, self.length) = (answer.status, answer.content_type, answer.body.len());
        self.text.clear();
        let mut length = itoa::Buffer::new();
        for part in [
            self.status.line().as_bytes(),
            b"Content-Type: ",
            self.content_type.as_bytes(),
            b"\r\nContent-Length: ",
            length.format(self.length).as_bytes(),
            b"\r\n",
            &self.stamp,
        ] {
            self.text.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(answer: &Answer, form: Form) -> String {
        let mut out = Vec::new();
        encode(&mut out, answer, form);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_status_headers_and_body() {
        let text = encoded(&Answer::text("hello"), Form { without_body: false, connection: None });
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = head.lines().skip(1).map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(head.lines().next(), Some("HTTP/1.1 200 OK"));
        assert_eq!(names, ["Content-Type", "Content-Length", "Date", "X-Worker"]);
        assert_eq!(body, "hello");
    }

    #[test]
    fn an_answer_after_another_has_its_own_head() {
        let form = Form { without_body: false, connection: None };
        for (answer, wanted) in [
            (Answer::text("hello"), ["200 OK", "text/plain; charset=utf-8", "5"]),
            (Answer::json("[12]"), ["200 OK", "application/json", "4"]),
            (Answer::json("[123]"), ["200 OK", "application/json", "5"]),
            (Answer::error(Status::NotFound, "gone!"), ["404 Not Found", "text/plain; charset=utf-8", "5"]),
            (Answer::text("hello"), ["200 OK", "text/plain; charset=utf-8", "5"]),
        ] {
            let [status, kind, length] = wanted;
            let text = encoded(&answer, form);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nDate: ")),
                "{text}"
            );
        }
    }

    #[test]
    fn head_has_the_length_but_not_the_body() {
        let text = encoded(&Answer::text("hello"), Form { without_body: true, connection: Some("close") });
        assert!(text.contains("Content-Length: 5\r\n") && text.contains("Connection: close\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }
}
