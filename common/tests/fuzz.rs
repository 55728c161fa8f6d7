//! The codec against itself, cut at every byte, and against hyper, on the same bytes: requests that are nearly right, mutated at random.
//!
//! `STALLBENCH_FUZZ_SECONDS=3600 cargo test -p common --release --test fuzz` goes on for an hour; inputs with an outcome of a new kind are added to
//! `common/tests/corpus`, from which every run starts.

use common::{Connection, Service, Step};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeSet, hash_map::DefaultHasher};
use std::convert::Infallible;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Inputs of a run without a time.
const INPUTS: usize = 40_000;
/// One of so many inputs is cut at every byte, which takes as long as all the others.
const CUT_ONE_OF: usize = 20;
/// Up to this length an input is cut at every byte.
const MOST_CUTS: usize = 400;

/// Requests to start from.
const SEEDS: [&str; 16] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET /nothing?x=1 HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\n\r\n",
    "GET http://h/?x HTTP/1.1\r\nHost: h\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n[1,2]",
    "POST /json/parse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2]\r\n0\r\n\r\n",
    "POST /json/parse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n[1\r\n3\r\n,2]\r\n0\r\nA: b\r\n\r\n",
    "POST /json/parse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n[1,2]",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "GET /?q=%41 HTTP/1.1\r\nhOST:\ta\r\nX:\r\nY: z \r\n\r\n",
    "DELETE /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
];

/// Pieces that decide how a request is read.
const PIECES: [&str; 36] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ";",
    ";x",
    ",",
    "0",
    "5",
    "f",
    "-1",
    "+1",
    "0x5",
    "\0",
    "\x7f",
    "%2f",
    "#",
    "?",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 10\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Host: b\r\n",
    "Connection: close\r\n",
    "HTTP/1.1",
    "HTTP/2",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "A: b\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    " HTTP/1.1\r\n",
];

/// An answer: its status, and its body, which says what the routes made of the request.
type Reply = (u16, String);

/// One for all connections, since its descriptors stay open.
fn service() -> Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    *SERVICE.get_or_init(Service::for_tests)
}

/// Our answers to an input in pieces.
fn ours(pieces: &[&[u8]]) -> Vec<Reply> {
    let (socket, _peer) = UnixStream::pair().expect("a pair of sockets");
    let mut connection: Connection = service().connection(&socket);
    let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let (mut output, mut rest, mut is_over): (Vec<u8>, &[u8], bool) = (Vec::new(), &[], false);
    loop {
        match connection.step() {
            Step::Read => {
                if rest.is_empty() {
                    rest = pieces.next().copied().unwrap_or_default();
                }
                if rest.is_empty() {
                    assert!(!is_over, "reads on behind the end");
                    is_over = true;
                    connection.received(0);
                    continue;
                }
                let space = connection.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                connection.received(count);
            }
            Step::Write => {
                output.extend_from_slice(connection.unsent());
                connection.sent(connection.unsent().len());
            }
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => {}
            Step::Yield => {}
            Step::Close => return replies(&output),
        }
    }
}

/// Hyper's answers, from the same routes.
async fn hypers(input: &[u8]) -> Vec<Reply> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let service = service();
    let answer = move |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let answer = match Limited::new(body, common::http::MAX_BODY).collect().await {
            Ok(body) => {
                let body = body.to_bytes().into();
                let is_json = head.headers.get("content-type").is_some_and(|value| common::http::is_json(value.as_bytes()));
                service.answer(common::routes::Request { method: head.method.as_str(), target, is_json, body })
            }
            Err(error) => common::http::Answer::error(common::http::Status::BadRequest, format!("{error}\n")),
        };
        let mut response = Response::new(Full::new(Bytes::from(answer.body.into_owned())));
        *response.status_mut() = hyper::StatusCode::from_u16(answer.status.code()).unwrap_or_default();
        Ok::<_, Infallible>(response)
    };
    client.write_all(input).await.expect("room in the pipe");
    client.shutdown().await.expect("an open pipe");
    let connection =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service_fn(answer));
    let mut output = Vec::new();
    let _ = tokio::join!(connection, client.read_to_end(&mut output));
    replies(&output)
}

/// The answers in an output, without interim ones.
fn replies(output: &[u8]) -> Vec<Reply> {
    let text = String::from_utf8_lossy(output);
    let parts = text.split("HTTP/1.").skip(1);
    let reply = |part: &str| {
        let status = part.get(2..5)?.parse().ok()?;
        Some((status, part.split_once("\r\n\r\n")?.1.to_owned()))
    };
    parts.filter_map(reply).filter(|(status, _)| *status >= 200).collect()
}

/// The answers to requests that were served. The last one may be an error behind which the connection closes: then the request was refused, or its
/// body was not waited for.
fn served(replies: &[Reply]) -> &[Reply] {
    match replies {
        [served @ .., (400.., body)] if !body.starts_with("body: not JSON") => served,
        all => all,
    }
}

/// A place to change an input at: behind a line more often than elsewhere.
fn place(random: &mut fastrand::Rng, input: &[u8]) -> usize {
    let ends: Vec<usize> = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    if ends.is_empty() || random.u8(..10) < 4 { random.usize(..=input.len()) } else { ends[random.usize(..ends.len())] }
}

fn mutated(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input: Vec<u8> = (0..random.usize(1..=3)).flat_map(|_| corpus[random.usize(..corpus.len())].clone()).collect();
    for _ in 0..random.usize(0..=3) {
        let at = place(random, &input);
        let end = (at + random.usize(0..=3)).min(input.len());
        let piece = PIECES[random.usize(..PIECES.len())].as_bytes();
        match random.u8(..3) {
            0 => drop(input.drain(at..end)),
            1 => drop(input.splice(at..at, piece.iter().copied())),
            _ => drop(input.splice(at..end, piece.iter().copied())),
        }
    }
    input.truncate(2 * MOST_CUTS);
    input
}

/// Cuts an input at every byte, and into single bytes.
fn check_cuts(input: &[u8], whole: &[Reply]) {
    for cut in 0..=input.len().min(MOST_CUTS) {
        let (first, second) = input.split_at(cut);
        assert_eq!(ours(&[first, second]), whole, "cut behind {cut} bytes of {:?}", String::from_utf8_lossy(input));
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(ours(&bytes), whole, "byte by byte: {:?}", String::from_utf8_lossy(input));
}

#[test]
fn the_same_bytes_get_the_same_answers_however_they_are_cut_and_nothing_is_served_that_hyper_refuses() {
    let seconds: Option<u64> = std::env::var("STALLBENCH_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let kept = fs::read_dir(&folder).into_iter().flatten().filter_map(|file| fs::read(file.ok()?.path()).ok());
    let mut corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).chain(kept).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut kinds = BTreeSet::new();
    let mut random = fastrand::Rng::with_seed(seconds.map_or(1, |_| fastrand::u64(..)));
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let known = corpus.len();
    for number in 0.. {
        if end.map_or(number >= INPUTS + known, |end| Instant::now() >= end) {
            println!("{number} inputs, {} kinds of outcome", kinds.len());
            break;
        }
        let input = corpus.get(number).filter(|_| number < known).cloned().unwrap_or_else(|| mutated(&mut random, &corpus));
        let whole = ours(&[&input]);
        if number < known || number % CUT_ONE_OF == 0 {
            check_cuts(&input, &whole);
        }
        let hypers = runtime.block_on(hypers(&input));
        // Whatever we serve, hyper serves too, and in the same way: no request can hide from it.
        assert!(hypers.starts_with(served(&whole)), "ours {whole:?}, hyper's {hypers:?}: {:?}", String::from_utf8_lossy(&input));
        // How many are served before the end matters little.
        let last = |replies: &[Reply]| replies.last().map(|(status, _)| *status);
        let kind = (last(&whole), last(&hypers), whole.len().cmp(&hypers.len()));
        if kinds.insert(kind) && number >= known && end.is_some() {
            let mut hasher = DefaultHasher::new();
            input.hash(&mut hasher);
            fs::write(folder.join(format!("{:016x}", hasher.finish())), &input).expect("a corpus that can be written");
            corpus.push(input);
        }
    }
}
