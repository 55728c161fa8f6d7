//! One connection of the driver: what was asked on it and what came back so far.

use super::Target;
use common::http::{BodyLength, Decoder, parse_response_head};
use std::collections::VecDeque;
use std::net::TcpStream;

/// A request that is on its way; times are nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub planned: u64,
    pub sent: u64,
}

/// A connection of a lane.
pub(super) struct Link {
    pub lane: usize,
    /// Its number in the lane; of a fresh connection, the number of its request.
    pub number: usize,
    pub stream: TcpStream,
    /// What is in flight, oldest first.
    pub flights: VecDeque<Flight>,
    /// Planned instants of requests that wait until the connection is free.
    pub waiting: VecDeque<u64>,
    /// Bytes of requests that the socket did not take yet.
    pub unsent: Vec<u8>,
    /// Bytes of an answer that is not complete.
    pub partial: Vec<u8>,
    /// Requests sent so far.
    pub count: u64,
}

/// How far the bytes at hand go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A right answer of so many bytes; the connection stays open or closes after it.
    Complete {
        length: usize,
        closes: bool,
    },
    Incomplete,
    Wrong(String),
}

/// Looks for one answer at the start of `input`.
pub(super) fn look(input: &[u8], target: &Target, is_end: bool) -> Answer {
    let head = match parse_response_head(input) {
        Ok(Some(head)) => head,
        Ok(None) => return Answer::Incomplete,
        Err(what) => return Answer::Wrong(format!("the answer is not HTTP: {what}")),
    };
    let rest = &input[head.length..];
    if head.status == 100 {
        return match look(rest, target, is_end) {
            Answer::Complete { length, closes } => Answer::Complete { length: head.length + length, closes },
            other => other,
        };
    }
    let decoded;
    let (body, used) = match head.body {
        BodyLength::Known(length) if length <= rest.len() => (&rest[..length], length),
        BodyLength::Known(_) => return Answer::Incomplete,
        length => {
            let (mut decoder, mut body) = (Decoder::with_limit(length, usize::MAX), Vec::new());
            let used = match decoder.decode(rest, |bytes| body.extend_from_slice(bytes)) {
                Ok(used) if decoder.is_done() || (is_end && decoder.ends_with_the_connection()) => used,
                Ok(_) => return Answer::Incomplete,
                Err(refusal) => return Answer::Wrong(format!("the answer's body: {}", refusal.reason)),
            };
            decoded = body;
            (decoded.as_slice(), used)
        }
    };
    if head.status != target.status {
        return Answer::Wrong(format!("status {} instead of {}", head.status, target.status));
    }
    if target.body.as_ref().is_some_and(|expected| expected != body) {
        return Answer::Wrong(format!("a body of {} bytes that is not the expected one", body.len()));
    }
    Answer::Complete { length: head.length + used, closes: head.close }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { address: ([127, 0, 0, 1], 1).into(), request: Vec::new(), status: 200, body: Some(b"hello".to_vec()) }
    }

    #[test]
    fn takes_one_right_answer_and_leaves_the_next() {
        let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200";
        assert_eq!(look(answers, &target(), false), Answer::Complete { length: 43, closes: false });
        assert_eq!(look(&answers[..42], &target(), false), Answer::Incomplete);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(look(chunked, &target(), false), Answer::Complete { length: chunked.len(), closes: false });
    }

    #[test]
    fn a_lying_server_is_caught() {
        for lie in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO",
            "HTTP/1.1 500 no\r\nContent-Length: 5\r\n\r\nhello",
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(matches!(look(lie.as_bytes(), &target(), false), Answer::Wrong(_)), "{lie}");
        }
    }
}
