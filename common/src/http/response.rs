//! The head of a response, for whoever measures a server.

use super::{BodyLength, MAX_HEADERS, request::decimal};
use std::mem::MaybeUninit;

/// A response head that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The three digits.
    pub status: u16,
    /// The server closes the connection after this response.
    pub close: bool,
    /// How the body's end is found. A response to HEAD has none, whatever this says.
    pub body: BodyLength,
    /// Bytes of the head, the empty line included.
    pub length: usize,
}

/// Reads a head from the start of `input`; `None` while it is incomplete.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn parse_response_head(input: &[u8]) -> Result<Option<ResponseHead>, &'static str> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, input, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() > super::MAX_HEAD => return Err("the head is too long"),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("the head is malformed"),
    };
    let mut head = ResponseHead {
        status: response.code.unwrap_or_default(),
        close: response.version == Some(0),
        body: BodyLength::UntilClose,
        length,
    };
    for header in response.headers {
        let (name, value) = (header.name.as_bytes(), header.value);
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                head.close = value.eq_ignore_ascii_case(b"close") || (head.close && !value.eq_ignore_ascii_case(b"keep-alive"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                head.body = BodyLength::Known(decimal(value).ok_or("bad Content-Length")?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => head.body = BodyLength::Chunked,
            _ => {}
        }
    }
    if matches!(head.status, 100..=199 | 204 | 304) {
        head.body = BodyLength::Known(0);
    }
    head.close |= head.body == BodyLength::UntilClose;
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_length_and_whether_it_closes() {
        let head = |text: &str| parse_response_head(text.as_bytes()).unwrap().unwrap();
        let plain = head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!((plain.status, plain.close, plain.body, plain.length), (200, false, BodyLength::Known(5), 38));
        assert!(head("HTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").close);
        assert_eq!(head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").body, BodyLength::Chunked);
        assert!(head("HTTP/1.1 200 OK\r\n\r\n").close);
        assert_eq!(parse_response_head(b"HTTP/1.1 200 OK\r\nCont"), Ok(None));
        assert!(parse_response_head(b"garbage\r\n\r\n").is_err());
    }
}
