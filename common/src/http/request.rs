//! The parser for request heads.

use super::body::is_token;
use super::target::{self, MAX_TARGET};
use super::{BodyLength, MAX_BODY, MAX_HEAD, MAX_HEADERS, Refusal, Status};
use std::mem::MaybeUninit;

/// A complete and valid request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'b> {
    /// The method, as sent.
    pub method: &'b str,
    /// The target, as sent; [`target::Target`] reads it.
    pub target: &'b str,
    /// The client uses HTTP/1.0.
    pub is_http10: bool,
    /// The client wants the connection to stay open after the answer.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The body is said to be JSON.
    pub is_json: bool,
    /// The way to find the end of the body.
    pub body: BodyLength,
    /// The length of the head in bytes, including the empty line.
    pub length: usize,
}

/// Parses a head at the start of `input`; `None` if it is still incomplete. The outcome does not depend on where the input was cut.
///
/// # Errors
/// Returns a [`Refusal`] if the request is malformed, ambiguous (RFC 9112, sections 3.2 and 6.3) or over a limit.
pub fn parse_head(input: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let window = &input[..input.len().min(MAX_HEAD)];
    let length = match request.parse_with_uninit_headers(window, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return if input.len() < MAX_HEAD { Ok(None) } else { Err(too_long(window)) },
        Err(error) => return refused(error, window),
    };
    if has_bare_line_feed(&input[..length]) {
        return Err(BARE_LINE_FEED);
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if target.len() > MAX_TARGET {
        return Err(LONG_TARGET);
    }
    target::check(method, target)?;
    let is_http10 = request.version == Some(0);
    let fields = Fields::read(request.headers)?;
    Ok(Some(Head {
        method,
        target,
        is_http10,
        keep_alive: !fields.close && (!is_http10 || fields.keep_alive),
        expects_continue: fields.expects_continue && !is_http10,
        is_json: fields.is_json,
        body: fields.body(is_http10)?,
        length,
    }))
}

#[cold]
fn refused(error: httparse::Error, window: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    match refusal(error, window) {
        Some(refusal) => Err(refusal),
        None if window.len() < MAX_HEAD => Ok(None),
        None => Err(too_long(window)),
    }
}

const MALFORMED: Refusal = Refusal::bad("the head is malformed");
const BARE_LINE_FEED: Refusal = Refusal::bad("a line ends without CR");
const TOO_LARGE: Refusal = Refusal { status: Status::HeaderFieldsTooLarge, reason: "the head is too long" };
const LONG_TARGET: Refusal = Refusal { status: Status::UriTooLong, reason: "the target is too long" };

/// The reason why a head is refused that `httparse` does not accept. `None` as long as its first line is incomplete, because the rest of that line
/// decides between the statuses; only what cannot be a method is refused at once.
fn refusal(error: httparse::Error, input: &[u8]) -> Option<Refusal> {
    let line = first_line(input);
    let (method, _) = split(line);
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Some(MALFORMED);
    }
    let line = match line.strip_suffix(b"\n")?.strip_suffix(b"\r") {
        Some(line) => line,
        None => return Some(BARE_LINE_FEED),
    };
    let (_, rest) = split(line);
    let (target, version) = split(rest.unwrap_or_default());
    Some(match version {
        Some(_) if target.len() > MAX_TARGET => LONG_TARGET,
        Some(b"HTTP/1.0" | b"HTTP/1.1") if error == httparse::Error::TooManyHeaders => TOO_LARGE,
        // Any other version is unsupported; any other form of it is malformed.
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() && error == httparse::Error::Version =>
        {
            Refusal { status: Status::VersionNotSupported, reason: "only HTTP/1.0 and HTTP/1.1 are spoken" }
        }
        _ => MALFORMED,
    })
}

/// The refusal of a head that has not ended within the longest length.
fn too_long(window: &[u8]) -> Refusal {
    let line = first_line(window);
    match split(line) {
        (_, None) => MALFORMED,
        (_, Some(rest)) if !line.ends_with(b"\n") || split(rest).0.len() > MAX_TARGET => LONG_TARGET,
        _ => TOO_LARGE,
    }
}

/// The first line that is not empty, with its line end if that is there.
fn first_line(input: &[u8]) -> &[u8] {
    let start = input.iter().position(|&byte| byte != b'\r' && byte != b'\n').unwrap_or(input.len());
    let rest = &input[start..];
    rest.iter().position(|&byte| byte == b'\n').map_or(rest, |end| &rest[..=end])
}

/// What comes before the first space, and behind it.
fn split(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    line.iter().position(|&byte| byte == b' ').map_or((line, None), |space| (&line[..space], Some(&line[space + 1..])))
}

/// True if a line ends in LF without CR. `httparse` accepts that, proxies do not, and the difference allows request smuggling.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.iter().skip(1));
    // Without an early exit the compiler vectorizes this loop, which is faster than a search for each line end.
    let is_found = pairs.fold(0, |found, (&before, &byte)| found | (u8::from(byte == b'\n') & u8::from(before != b'\r')));
    is_found != 0 || head.first() == Some(&b'\n')
}

/// The header fields that concern framing and the connection.
#[derive(Default)]
struct Fields {
    hosts: usize,
    content_length: Option<usize>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    is_json: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        for header in headers {
            fields.add(header.name.as_bytes(), header.value)?;
        }
        Ok(fields)
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        // Compare lengths first: most headers match none of these names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if !target::is_authority(value) {
                    return Err(Refusal::bad("the Host is malformed"));
                }
                self.hosts += 1;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal { status: Status::ExpectationFailed, reason: "unknown expectation" });
                }
                self.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => self.is_json = is_json(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.content_length.is_some() {
                    return Err(Refusal::bad("several Content-Length"));
                }
                self.content_length = Some(decimal(value).ok_or(Refusal::bad("bad Content-Length"))?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
                // Without chunks at the end, nobody knows where the body ends (RFC 9112, section 6.3).
                if self.chunked || !last.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::bad("Transfer-Encoding must end with chunked, and have it once"));
                }
                if last.len() < value.len() {
                    return Err(Refusal { status: Status::NotImplemented, reason: "unknown Transfer-Encoding" });
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn body(&self, is_http10: bool) -> Result<BodyLength, Refusal> {
        if self.hosts > 1 || (self.hosts == 0 && !is_http10) {
            return Err(Refusal::bad("exactly one Host is required"));
        }
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(Refusal::bad("both Content-Length and Transfer-Encoding")),
            (None, true) if is_http10 => Err(Refusal::bad("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(BodyLength::Chunked),
            (Some(length), false) if length > MAX_BODY => Err(super::body::TOO_LARGE),
            (length, false) => Ok(BodyLength::Known(length.unwrap_or(0))),
        }
    }
}

/// True for the media type `application/json`, with or without parameters.
#[must_use]
pub fn is_json(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|&byte| byte == b';').unwrap_or(content_type.len());
    content_type[..end].trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// Parses a length made of digits only: `+5`, `5 5` and the empty value are not valid.
pub(super) fn decimal(value: &[u8]) -> Option<usize> {
    let all_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    all_digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(input: &str) -> Status {
        parse_head(input.as_bytes()).expect_err(input).status
    }

    fn head(input: &str) -> Head<'_> {
        parse_head(input.as_bytes()).expect(input).expect(input)
    }

    #[test]
    fn reads_a_plain_get() {
        let head = head("GET /timer?ms=5 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.method, head.target, head.keep_alive), ("GET", "/timer?ms=5", true));
        assert_eq!((head.body, head.length), (BodyLength::Known(0), 37));
    }

    #[test]
    fn waits_for_the_rest_of_a_head_at_every_byte() {
        let whole = b"POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse_head(&whole[..end]), Ok(None), "after {end} bytes");
        }
        assert!(parse_head(whole).unwrap().is_some());
    }

    #[test]
    fn keep_alive_follows_version_and_connection_header() {
        assert!(head("GET / HTTP/1.1\r\nHost: a\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn refuses_ambiguous_and_malformed_requests() {
        for input in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTX\r\nHost: a\r\n\r\n",
            "GET / HTTP/2\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/3.0\nHost: a\r\n\r\n",
            "GET foo HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "\u{1}\u{2}\u{3}\r\n\r\n",
        ] {
            assert_eq!(status_of(input), Status::BadRequest, "{input:?}");
        }
    }

    #[test]
    fn the_outcome_does_not_depend_on_the_cut() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
        for input in [
            "GET / HTTP/2\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/12.0\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "\r\n\r\nGET / HTTP/3.0\r\nHost: a\r\n\r\n",
            "GET\u{1}/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
            "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nA b: c\r\n\r\n",
            many.as_str(),
            long.as_str(),
        ] {
            let whole = parse_head(input.as_bytes()).expect_err(input);
            let first = (0..=input.len()).find_map(|end| match parse_head(&input.as_bytes()[..end]) {
                Ok(None) => None,
                other => Some(other),
            });
            assert_eq!(first, Some(Err(whole)), "{input:?}");
        }
    }

    #[test]
    fn refuses_with_the_status_that_names_the_limit() {
        assert_eq!(status_of("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Status::VersionNotSupported);
        for length in [MAX_TARGET, MAX_HEAD, 20_000] {
            let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length));
            assert_eq!(status_of(&long), Status::UriTooLong, "{length}");
        }
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(status_of(&long), Status::HeaderFieldsTooLarge);
        let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(status_of(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Status::HeaderFieldsTooLarge);
        let long = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
        assert_eq!(status_of(&long), Status::ContentTooLarge);
        let coded = |coding: &str| status_of(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n"));
        assert_eq!(coded("gzip, chunked"), Status::NotImplemented);
        for coding in ["gzip", "chunked, identity", "", "chunked\r\nTransfer-Encoding: chunked"] {
            assert_eq!(coded(coding), Status::BadRequest, "{coding}");
        }
        assert_eq!(status_of("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"), Status::ExpectationFailed);
    }
}
