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
/// The most bytes of one body's chunk extensions and trailers together, or of a response's chunk: they say nothing that anybody needs.
pub const MAX_EXTRAS: usize = 16 * 1024;
/// The most digits of a chunk's size; more would not fit into 64 bits.
const MAX_DIGITS: u8 = 16;

/// Decodes a body that arrives in pieces of any size. It looks at each byte once, in order, so what it says does not depend on the pieces.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The most bytes of the body.
    limit: usize,
    /// Bytes of the body so far, those of a chunk from its first byte on.
    seen: usize,
    /// Bytes of extensions and trailers so far.
    extras: usize,
    /// The body is a response's.
    is_response: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many bytes of a body of known length are still to come.
    Known(usize),
    UntilClose,
    /// In a chunk's size.
    Size {
        size: usize,
        digits: u8,
    },
    /// In the space between a chunk's size and its extension.
    Space(usize),
    /// In a chunk's extension.
    Extension(usize),
    /// Behind the CR of a size's line.
    SizeEnd(usize),
    /// This many bytes of a chunk are still to come.
    Chunk(usize),
    /// Behind a chunk, where CR comes.
    ChunkEnd,
    /// Behind that CR.
    ChunkLineFeed,
    /// At the start of a trailer's line, or of the empty line that ends the body.
    TrailerStart,
    /// In a trailer's name.
    TrailerName,
    /// In a trailer's value.
    TrailerValue,
    /// Behind the CR of a trailer's line.
    TrailerEnd,
    /// Behind the CR of the empty line.
    LastLineFeed,
    Done,
}

impl Decoder {
    /// A decoder for a request body, which refuses bodies of more than [`MAX_BODY`] bytes.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        Self::with_limit(length, MAX_BODY)
    }

    /// A decoder for a response body of any length. It reads what a strict server would refuse, since nothing is smuggled by a response to a client
    /// that reads one at a time: blanks behind a chunk's size, as some servers pad it, and an extension with every chunk, such as a signature.
    #[must_use]
    pub fn of_response(length: BodyLength) -> Self {
        Decoder { is_response: true, ..Self::with_limit(length, usize::MAX) }
    }

    /// A decoder that refuses bodies of more than `limit` bytes.
    fn with_limit(length: BodyLength, limit: usize) -> Self {
        let state = match length {
            BodyLength::Known(0) => State::Done,
            BodyLength::Known(left) => State::Known(left),
            BodyLength::Chunked => State::Size { size: 0, digits: 0 },
            BodyLength::UntilClose => State::UntilClose,
        };
        Decoder { state, limit, seen: 0, extras: 0, is_response: false }
    }

    /// True if the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// True if the body ends with the connection.
    #[must_use]
    pub fn ends_with_the_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Passes the body bytes at the start of `input` to `take`, and returns the number of bytes used from `input`: all of them, unless the body
    /// ends before.
    ///
    /// # Errors
    /// Returns a [`Refusal`] for malformed chunks and for bodies over the limit.
    pub fn decode(&mut self, input: &[u8], mut take: impl FnMut(&[u8])) -> Result<usize, Refusal> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            used += match self.state {
                State::Done => break,
                State::UntilClose => {
                    self.count(rest.len())?;
                    take(rest);
                    rest.len()
                }
                State::Known(left) => {
                    let here = left.min(rest.len());
                    take(&rest[..here]);
                    self.state = if here == left { State::Done } else { State::Known(left - here) };
                    here
                }
                State::Chunk(left) => {
                    let here = left.min(rest.len());
                    take(&rest[..here]);
                    self.state = if here == left { State::ChunkEnd } else { State::Chunk(left - here) };
                    here
                }
                state => {
                    self.state = self.next(state, rest[0])?;
                    1
                }
            };
        }
        Ok(used)
    }

    /// The state behind one byte of a chunked body's framing (RFC 9112, section 7.1). Every line ends in CR LF, as in heads.
    fn next(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        const BAD_SIZE: Refusal = Refusal::bad("a chunk's size is malformed");
        Ok(match (state, byte) {
            (State::Size { size, digits }, byte) if byte.is_ascii_hexdigit() && digits < MAX_DIGITS => {
                let digit = (byte as char).to_digit(16).unwrap_or(0) as usize;
                let size = size.checked_mul(16).and_then(|size| size.checked_add(digit)).ok_or(TOO_LARGE)?;
                State::Size { size, digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BAD_SIZE),
            (State::Size { size, .. }, b'\r') | (State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Space(size), b'\r') if self.is_response => State::SizeEnd(size),
            (State::Size { size, .. } | State::Space(size), b';') => State::Extension(size),
            (State::Size { size, .. } | State::Space(size), b' ' | b'\t') => {
                self.count_extra()?;
                State::Space(size)
            }
            (State::Size { .. } | State::Space(_), _) => return Err(BAD_SIZE),
            (State::Extension(size), byte) if is_text(byte) => {
                self.count_extra()?;
                State::Extension(size)
            }
            (State::Extension(_), _) => return Err(Refusal::bad("a chunk's extension is malformed")),
            (State::SizeEnd(0), b'\n') => State::TrailerStart,
            (State::SizeEnd(size), b'\n') => {
                self.count(size)?;
                if self.is_response {
                    self.extras = 0;
                }
                State::Chunk(size)
            }
            (State::SizeEnd(_), _) => return Err(BAD_SIZE),
            (State::ChunkEnd, b'\r') => State::ChunkLineFeed,
            (State::ChunkLineFeed, b'\n') => State::Size { size: 0, digits: 0 },
            (State::ChunkEnd | State::ChunkLineFeed, _) => return Err(Refusal::bad("a chunk is longer than it says")),
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::LastLineFeed, b'\n') => State::Done,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => {
                self.count_extra()?;
                State::TrailerName
            }
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, byte) if is_text(byte) => {
                self.count_extra()?;
                State::TrailerValue
            }
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            _ => return Err(Refusal::bad("the trailers are malformed")),
        })
    }

    fn count(&mut self, more: usize) -> Result<(), Refusal> {
        self.seen = self.seen.saturating_add(more);
        if self.seen > self.limit { Err(TOO_LARGE) } else { Ok(()) }
    }

    fn count_extra(&mut self) -> Result<(), Refusal> {
        self.extras += 1;
        let refusal = Refusal::bad("the chunk extensions and trailers are too long");
        if self.extras > MAX_EXTRAS { Err(refusal) } else { Ok(()) }
    }
}

/// A byte of a field's value or of an extension: no control character but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A byte of a method or of a field's name (RFC 9110, section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `size` bytes, as a connection would. Returns the body and the number of bytes left.
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
        let chunked = b"4;x=y\r\nWiki\r\n5 ;q=\"a;b\"\r\npedia\r\n0\r\nA: b\r\nC:\r\n\r\nGET";
        for size in 1..=chunked.len() {
            let (body, left) = decode(BodyLength::Chunked, chunked, size).unwrap();
            assert_eq!((body.as_slice(), left), (b"Wikipedia".as_slice(), 3), "pieces of {size}");
            let (body, left) = decode(BodyLength::Known(4), b"WikiGET", size).unwrap();
            assert_eq!((body.as_slice(), left), (b"Wiki".as_slice(), 3), "pieces of {size}");
        }
    }

    #[test]
    fn refuses_malformed_chunks_and_trailers_whatever_the_pieces() {
        for input in [
            // No size: taken for the end of the body, what follows would be a request.
            "\r\n\r\n",
            " \r\n\r\n",
            ";x\r\n\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "1 \r\na\r\n",
            "fffffffffffffffff\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            // Lines that end in LF alone.
            "1\na\r\n0\r\n\r\n",
            "1;x\na\r\n0\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
            "1;\0\r\n",
            "1;x\ry\r\n",
            "0\r\nA b: c\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA\r\n\r\n",
        ] {
            for size in 1..=input.len() {
                let refusal = decode(BodyLength::Chunked, input.as_bytes(), size).expect_err(input);
                assert_eq!(refusal.status, Status::BadRequest, "{input:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_body_has_a_bound_and_its_framing_too_whatever_the_pieces() {
        let extended = format!("1;{}\r\na\r\n", "x".repeat(MAX_EXTRAS / 4)).repeat(5);
        let trailers = format!("0\r\n{}\r\n", format!("A: {}\r\n", "x".repeat(MAX_EXTRAS / 4)).repeat(5));
        let zeros = "0".repeat(2 * MAX_EXTRAS);
        for (input, status) in [
            ("fffffff\r\n", Status::ContentTooLarge),
            ("ffffffffffffffff\r\n", Status::ContentTooLarge),
            (extended.as_str(), Status::BadRequest),
            (trailers.as_str(), Status::BadRequest),
            (zeros.as_str(), Status::BadRequest),
        ] {
            for size in [1, 7, 4096, input.len()] {
                assert_eq!(decode(BodyLength::Chunked, input.as_bytes(), size).unwrap_err().status, status, "pieces of {size}");
            }
        }
        let small_chunks = "1\r\na\r\n".repeat(50_000) + "0\r\n\r\n";
        assert_eq!(decode(BodyLength::Chunked, small_chunks.as_bytes(), 4096).unwrap().0.len(), 50_000);
    }
}
