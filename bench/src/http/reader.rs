//! One incremental reader of HTTP/1.1 responses, for the driver and for the plain client: bytes in, parts of responses out. Each byte is
//! looked at once, however the response is cut, so a long body costs time in proportion to its length.

use super::url::PLAIN_ONLY;
use common::http::{BodyLength, Decoder};
use std::mem::MaybeUninit;

/// The longest head that is read, in bytes.
const MAX_HEAD: usize = 256 * 1024;
/// The coding whose end is the end of the body.
const CHUNKED: &str = "chunked";
/// The most header lines that are read.
const MAX_HEADERS: usize = 256;

/// A response's head, as far as a client needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Status.
    pub status: u16,
    /// Whether the server closes the connection after this response.
    pub closes: bool,
}

/// A part of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'i> {
    /// The final head, and its bytes if they came in one piece or were put together.
    Head(Head, &'i [u8]),
    /// A piece of the body.
    Body(&'i [u8]),
    /// The response is complete.
    End(Head),
}

/// Reads the responses of one connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a head, or of a chunk's line, that is not complete.
    held: Vec<u8>,
    body: Option<(Head, Decoder)>,
}

impl Reader {
    /// Whether a response has begun and is not complete.
    pub fn is_within(&self) -> bool {
        self.body.is_some() || !self.held.is_empty()
    }

    /// Reads one response, or as much of it as there is, from the start of `input`, and returns how many bytes were used. `has_no_body` says that
    /// the request was a HEAD.
    ///
    /// # Errors
    /// Bytes that are not HTTP.
    pub fn read(&mut self, input: &[u8], has_no_body: bool, mut take: impl FnMut(Step<'_>)) -> Result<usize, String> {
        let held = std::mem::take(&mut self.held);
        let before = held.len();
        let joined: Vec<u8>;
        let all = if held.is_empty() {
            input
        } else {
            joined = [held.as_slice(), input].concat();
            &joined
        };
        let mut used = 0;
        // A head without a line end in the new bytes cannot have become complete.
        if self.body.is_none() && (before == 0 || input.contains(&b'\n')) {
            while let Some((head, length, is_interim, decoder)) = parse(&all[used..], has_no_body)? {
                if !is_interim {
                    take(Step::Head(head, &all[used..used + length]));
                    self.body = Some((head, decoder));
                }
                used += length;
                if !is_interim {
                    break;
                }
            }
        }
        let is_complete = match &mut self.body {
            Some((_, decoder)) => {
                let read = decoder.decode(&all[used..], |piece| take(Step::Body(piece)));
                used += read.map_err(|refusal| format!("the body: {}", refusal.reason))?;
                decoder.is_done()
            }
            None => false,
        };
        if is_complete {
            if let Some((head, _)) = self.body.take() {
                take(Step::End(head));
            }
            // Bytes held before belong to this response, so all that is left is new.
            return Ok(used - before);
        }
        if all.len() - used > MAX_HEAD {
            return Err(format!("a head or a line of more than {MAX_HEAD} bytes"));
        }
        self.held = all[used..].to_vec();
        Ok(input.len())
    }

    /// The connection has ended: completes a response that ends there.
    ///
    /// # Errors
    /// The connection ended within a response.
    pub fn end(&mut self) -> Result<Option<Head>, String> {
        match self.body.take() {
            Some((head, decoder)) if decoder.ends_with_the_connection() => Ok(Some(head)),
            Some(_) => Err("the connection ended within a response".into()),
            None if self.held.is_empty() => Ok(None),
            None => Err("the connection ended within a head".into()),
        }
    }
}

/// The length of a body by RFC 9112, 6.3, from the values of the headers. What two readers could understand in two ways is an error.
fn framing<'v>(
    mut lengths: impl Iterator<Item = &'v str> + Clone,
    codings: impl Iterator<Item = &'v str>,
) -> Result<BodyLength, String> {
    // Of these a usual answer has none, so this allocates nothing; identity says nothing, and older servers say it.
    let codings: Vec<String> = codings.map(str::to_ascii_lowercase).filter(|coding| coding != "identity").collect();
    match codings.iter().position(|coding| coding == CHUNKED) {
        // With a length as well, the chunks count.
        Some(at) if at + 1 == codings.len() => return Ok(BodyLength::Chunked),
        Some(_) => return Err(format!("Transfer-Encoding is '{}', in which chunked is not the last", codings.join(", "))),
        None if !codings.is_empty() => return Ok(BodyLength::UntilClose),
        None => {}
    }
    let all = lengths.clone();
    let Some(length) = lengths.next() else { return Ok(BodyLength::UntilClose) };
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
    match length.parse() {
        Ok(known) if is_number && lengths.all(|other| other == length) => Ok(BodyLength::Known(known)),
        _ => Err(format!("Content-Length is '{}'", all.collect::<Vec<_>>().join(", "))),
    }
}

/// The parts of all headers of a name, which a comma separates within one header too.
fn parts<'v>(headers: &'v [httparse::Header<'v>], name: &'static str) -> impl Iterator<Item = &'v str> + Clone {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let parts = named.flat_map(|header| header.value.split(|byte| *byte == b','));
    // What is no text is none of the words that count.
    parts.map(|part| std::str::from_utf8(part).unwrap_or("?").trim_ascii())
}

type Parsed = (Head, usize, bool, Decoder);

fn parse(input: &[u8], has_no_body: bool) -> Result<Option<Parsed>, String> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // What other clients accept.
    config.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
    let length = match config.parse_response_with_uninit_headers(&mut response, input, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            return Err(match other_protocol(input) {
                Some(name) => format!("the server speaks {name}: {PLAIN_ONLY}"),
                None => format!("the answer is not HTTP: {error}"),
            });
        }
    };
    let status = response.code.unwrap_or_default();
    if status == 101 {
        return Err("the server switched to another protocol (101)".into());
    }
    let headers = &*response.headers;
    let says = |word: &str| parts(headers, "connection").any(|part| part.eq_ignore_ascii_case(word));
    // HTTP/1.0 closes unless it says otherwise.
    let (closes, keeps) = (says("close"), response.version != Some(0) || says("keep-alive"));
    let framed = framing(parts(headers, "content-length"), parts(headers, "transfer-encoding"))?;
    let length_of_body = match status {
        _ if has_no_body => BodyLength::Known(0),
        100..=199 | 204 | 304 => BodyLength::Known(0),
        _ => framed,
    };
    let head = Head { status, closes: closes || !keeps || length_of_body == BodyLength::UntilClose };
    let is_interim = (100..200).contains(&status);
    Ok(Some((head, length, is_interim, Decoder::of_response(length_of_body))))
}

/// The protocol of a server that does not understand HTTP/1.1, by the first bytes that it sends.
fn other_protocol(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        // An alert, of any version.
        [0x15, 0x03, ..] => Some("TLS"),
        // SETTINGS or GOAWAY, on the stream of the connection.
        [_, _, _, 4 | 7, _, 0, 0, 0, 0, ..] => Some("HTTP/2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, whether it closes, and body of each response, fed in pieces of `size`; then the end of the connection.
    fn responses(bytes: &[u8], size: usize) -> Result<Vec<(u16, bool, Vec<u8>)>, String> {
        let mut reader = Reader::default();
        let (mut all, mut body) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() {
                let mut ended = None;
                let used = reader.read(rest, false, |step| match step {
                    Step::Head(..) => {}
                    Step::Body(piece) => body.extend_from_slice(piece),
                    Step::End(head) => ended = Some(head),
                })?;
                if let Some(head) = ended {
                    all.push((head.status, head.closes, std::mem::take(&mut body)));
                }
                rest = &rest[used..];
            }
        }
        if let Some(head) = reader.end()? {
            all.push((head.status, head.closes, body));
        }
        Ok(all)
    }

    /// Status, whether it closes, and body.
    type Wanted = (u16, bool, &'static str);

    #[test]
    fn every_kind_of_response_reads_the_same_however_it_is_cut() {
        let cases: [(&str, &[Wanted]); 15] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok", &[(200, false, "ok")]),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", &[(200, false, "ok")]),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nuntil the end",
                &[(200, true, "until the end")],
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", &[(200, false, "x")]),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", &[(200, false, "hello")]),
            ("HTTP/1.1 204 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", &[(204, false, ""), (200, false, "x")]),
            (
                "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                &[(200, false, "ok")],
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: v\r\n\r\n",
                &[(200, false, "abc")],
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                &[(200, false, "a")],
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n1\r\na\r\n0\r\n\r\n",
                &[(200, false, "a")],
            ),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 1\r\n\r\nx", &[(200, true, "x")]),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", &[(200, true, "x")]),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", &[(200, false, "x")]),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", &[(200, true, "until the end")]),
            ("HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", &[(304, false, "")]),
        ];
        for (text, wanted) in cases {
            let wanted: Vec<_> = wanted.iter().map(|(s, c, body)| (*s, *c, body.as_bytes().to_vec())).collect();
            for size in 1..=text.len() {
                assert_eq!(responses(text.as_bytes(), size).as_ref(), Ok(&wanted), "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn chunks_that_a_server_would_refuse_are_read_from_one() {
        let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let padded = format!("{start}2  \r\nab\r\n1\t\r\nc\r\n0 \r\n\r\n");
        let signed = format!("{start}{}0\r\n\r\n", format!("1;signature={}\r\na\r\n", "x".repeat(100)).repeat(1000));
        for (text, body) in [(padded, "abc".to_owned()), (signed, "a".repeat(1000))] {
            for size in [1, 7, 4096] {
                assert_eq!(
                    responses(text.as_bytes(), size),
                    Ok(vec![(200, false, body.clone().into_bytes())]),
                    "pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn seventy_header_lines_and_long_bodies_are_read() {
        let lines: String = (0..70).map(|i| format!("X-{i}: value\r\n")).collect();
        let body = vec![b'x'; 3_000_000];
        let bytes = [format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        assert_eq!(responses(&bytes, 65_536).unwrap()[0].2.len(), body.len());
    }

    #[test]
    fn what_is_not_http_or_ends_early_is_refused() {
        for (text, wanted) in [
            ("SSH-2.0-x\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "within a response"),
            ("HTTP/1.1 200", "within a head"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "Content-Length is '+5'"),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", "Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "Content-Length is '5, 6'"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 6, 5\r\n\r\nhello", "Content-Length is '6, 5'"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "Content-Length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "chunked is not the last"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked is not the last"),
            ("HTTP/1.1 101 x\r\n\r\n", "another protocol"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the body"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 1\r\n", "the body"),
        ] {
            assert!(responses(text.as_bytes(), 7).unwrap_err().contains(wanted), "{text}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut ended = false;
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let used = Reader::default().read(text, true, |step| ended |= matches!(step, Step::End(_)));
        assert_eq!((used, ended), (Ok(text.len()), true));
    }
}
