//! Bodies with a known length and chunked bodies, decoded as they arrive.

use super::{MAX_BODY, Refusal, Status};

/// The way to find the end of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// After this many bytes; 0 without a body.
    Known(usize),
    /// After the last chunk (`Transfer-Encoding: chunked`).
    Chunked,
    /// At the end of the connection; in responses only.
    UntilClose,
}

pub(super) const TOO_LARGE: Refusal = Refusal { status: Status::ContentTooLarge, reason: "the body is too long" };
/// The longest chunk-size line with its extensions, and the longest trailer section, in bytes.
const MAX_LINE: usize = 4096;

/// Decodes a body that arrives in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limit: usize,
    seen: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// `left` plain bytes are still to come; then comes `then`.
    Data {
        left: usize,
        then: Next,
    },
    ChunkSize,
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Done,
    ChunkEnd,
}

impl Decoder {
    /// A decoder for a request body, which refuses bodies of more than [`MAX_BODY`] bytes.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        Self::with_limit(length, MAX_BODY)
    }

    /// A decoder that refuses bodies of more than `limit` bytes.
    #[must_use]
    pub fn with_limit(length: BodyLength, limit: usize) -> Self {
        let state = match length {
            BodyLength::Known(0) => State::Done,
            BodyLength::Known(left) => State::Data { left, then: Next::Done },
            BodyLength::Chunked => State::ChunkSize,
            BodyLength::UntilClose => State::UntilClose,
        };
        Decoder { state, limit, seen: 0 }
    }

    /// True if the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// True if the body ends with the connection.
    #[must_use]
    pub fn ends_with_the_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Passes the body bytes at the start of `input` to `take`, and returns the number of bytes used from `input`.
    ///
    /// # Errors
    /// Returns a [`Refusal`] for malformed chunks and for bodies over the limit.
    pub fn decode(&mut self, input: &[u8], mut take: impl FnMut(&[u8])) -> Result<usize, Refusal> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let step = match self.state {
                State::Done => return Ok(used),
                State::UntilClose => {
                    self.count(rest.len())?;
                    take(rest);
                    return Ok(input.len());
                }
                State::Data { left, then } => {
                    let here = left.min(rest.len());
                    take(&rest[..here]);
                    self.state = match (left - here, then) {
                        (0, Next::Done) => State::Done,
                        (0, Next::ChunkEnd) => State::ChunkEnd,
                        (left, then) => State::Data { left, then },
                    };
                    here
                }
                State::ChunkSize => self.chunk_size(rest)?,
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.state = State::ChunkSize;
                        2
                    }
                    [] | [b'\r'] => 0,
                    _ => return Err(Refusal::bad("a chunk is longer than it says")),
                },
                State::Trailers => self.trailers(rest)?,
            };
            if step == 0 {
                return Ok(used);
            }
            used += step;
        }
    }

    fn chunk_size(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        match httparse::parse_chunk_size(input) {
            Ok(httparse::Status::Complete((used, 0))) => {
                self.state = State::Trailers;
                Ok(used)
            }
            Ok(httparse::Status::Complete((used, size))) => {
                let size = usize::try_from(size).map_err(|_| TOO_LARGE)?;
                self.count(size)?;
                self.state = State::Data { left: size, then: Next::ChunkEnd };
                Ok(used)
            }
            Ok(httparse::Status::Partial) if input.len() < MAX_LINE => Ok(0),
            Ok(httparse::Status::Partial) => Err(Refusal::bad("the line of a chunk's size is too long")),
            Err(httparse::InvalidChunkSize) => Err(Refusal::bad("a chunk's size is malformed")),
        }
    }

    /// Reads the trailers and drops them.
    fn trailers(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        match httparse::parse_headers(input, &mut headers) {
            Ok(httparse::Status::Complete((used, _))) => {
                self.state = State::Done;
                Ok(used)
            }
            Ok(httparse::Status::Partial) if input.len() < MAX_LINE => Ok(0),
            _ => Err(Refusal::bad("the trailers are malformed")),
        }
    }

    fn count(&mut self, more: usize) -> Result<(), Refusal> {
        self.seen = self.seen.saturating_add(more);
        if self.seen > self.limit { Err(TOO_LARGE) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `size` bytes, as a connection's buffer would. Returns the body and the number of bytes left.
    fn decode(length: BodyLength, input: &[u8], size: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut decoder, mut body, mut buffer) = (Decoder::new(length), Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            buffer.extend_from_slice(piece);
            let used = decoder.decode(&buffer, |bytes| body.extend_from_slice(bytes))?;
            buffer.drain(..used);
        }
        assert!(decoder.is_done(), "incomplete");
        Ok((body, buffer.len()))
    }

    #[test]
    fn reads_bodies_in_pieces_of_any_size_and_leaves_the_next_request() {
        let chunked = b"4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nA: b\r\n\r\nGET";
        for size in 1..=chunked.len() {
            let (body, left) = decode(BodyLength::Chunked, chunked, size).unwrap();
            assert_eq!((body.as_slice(), left), (b"Wikipedia".as_slice(), 3), "pieces of {size}");
            let (body, left) = decode(BodyLength::Known(4), b"WikiGET", size).unwrap();
            assert_eq!((body.as_slice(), left), (b"Wiki".as_slice(), 3), "pieces of {size}");
        }
    }

    #[test]
    fn refuses_malformed_chunks_and_long_bodies() {
        for input in ["x\r\n", "1\r\nab\r\n", "1\n", "-1\r\n", "fffffffffffffffff\r\n"] {
            assert_eq!(decode(BodyLength::Chunked, input.as_bytes(), 64).unwrap_err().status, Status::BadRequest, "{input:?}");
        }
        assert_eq!(decode(BodyLength::Chunked, b"fffffff\r\n", 64).unwrap_err().status, Status::ContentTooLarge);
        let endless = vec![b'0'; 2 * MAX_LINE];
        assert!(decode(BodyLength::Chunked, &endless, 100).is_err());
    }
}
