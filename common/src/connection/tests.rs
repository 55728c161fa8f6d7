//! A connection against a scripted client.

use super::*;
use crate::Served;
use crate::args::Knobs;
use crate::dispatch::OfferedWorker;
use std::io::Read;
use std::os::unix::net::UnixStream;

/// A connection and the bytes that it has written; it runs blocking work inline.
struct Client {
    connection: Connection,
    written: Vec<u8>,
    ran: Vec<(Call, usize)>,
    yielded: usize,
    _socket: UnixStream,
}

impl Client {
    fn new() -> Self {
        Self::taken_from_the_parent(None)
    }

    fn taken_from_the_parent(arrival: Option<Arrival>) -> Self {
        Self::of(Service::for_tests(), arrival)
    }

    fn of(service: Service, arrival: Option<Arrival>) -> Self {
        let (socket, _) = UnixStream::pair().unwrap();
        let connection = Connection::new(service, &socket, arrival);
        Client { connection, written: Vec::new(), ran: Vec::new(), yielded: 0, _socket: socket }
    }

    /// Sends `bytes`, then steps until the connection waits for input or closes; true if it closes.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut left = bytes;
        loop {
            match self.connection.step() {
                Step::Read if left.is_empty() => return false,
                Step::Read => {
                    let space = self.connection.space();
                    let count = space.len().min(left.len());
                    space[..count].copy_from_slice(&left[..count]);
                    left = &left[count..];
                    self.connection.received(count);
                }
                Step::Write => {
                    // Write only half of the bytes: a short write must not lose any.
                    let count = self.connection.unsent().len().div_ceil(2);
                    self.written.extend_from_slice(&self.connection.unsent()[..count]);
                    self.connection.sent(count);
                }
                Step::Run(work) => {
                    self.ran.push((work.call.clone(), self.written.len()));
                    self.connection.answer(&work.run());
                }
                Step::CloseSend => {
                    self.connection.received(0);
                }
                Step::Yield => self.yielded += 1,
                Step::Close => return true,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn answers_pipelined_requests_in_order_and_stays_open() {
    let mut client = Client::new();
    assert!(!client.send(&GET.repeat(3)));
    assert_eq!(client.text().matches("HTTP/1.1 200 OK").count(), 3);
    assert!(!client.text().contains("Connection:"));
}

#[test]
fn writes_pending_answers_before_it_hands_out_blocking_work() {
    let mut client = Client::new();
    client.send(&[GET, b"GET /sleep?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()].concat());
    let (_, written_before) = client.ran[0];
    assert!(written_before > 100, "only {written_before} bytes were written before the work started");
    assert_eq!(client.text().matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn a_request_is_at_work_only_when_the_answers_before_it_are_written() {
    let mut client = Client::new();
    client.connection.receive(&[GET, b"GET /sleep?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()].concat());
    assert!(matches!(client.connection.step(), Step::Write));
    assert_eq!(client.connection.slot.phase(), Phase::Open);
    let count = client.connection.unsent().len();
    client.connection.sent(count);
    assert!(matches!(client.connection.step(), Step::Run(_)));
    assert_eq!(client.connection.slot.phase(), Phase::Busy);
}

#[test]
fn reads_a_body_that_arrives_byte_by_byte_by_length_and_by_chunk() {
    let by_length = "POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n[1, 2]";
    let by_chunk = "POST /json/parse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n3\r\n 2]\r\n0\r\n\r\n";
    for request in [by_length, by_chunk] {
        let mut client = Client::new();
        for byte in request.as_bytes() {
            assert!(!client.send(&[*byte]));
        }
        assert_eq!(client.ran[0].0, Call::Parse(b"[1, 2]".to_vec()));
        assert!(client.text().starts_with("HTTP/1.1 200 OK"), "{}", client.text());
    }
}

#[test]
fn sends_100_continue_to_a_client_that_expects_it() {
    let mut client = Client::new();
    client.send(b"POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"[]");
    assert!(client.text().contains("HTTP/1.1 200 OK"));
}

#[test]
fn a_drain_answers_all_requests_that_have_arrived_and_says_with_the_last_that_it_closes() {
    let sleep = b"GET /sleep?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    for (last, statuses) in
        [(b"".as_slice(), "200 200 200 200"), (b"\r\nGET / HT", "200 200 200 200"), (b"bad\r\n", "200 200 200 200 400")]
    {
        let mut client = Client::new();
        client.connection.service.watch().drain_for_tests();
        assert!(client.send(&[GET, sleep, GET, GET, last].concat()));
        let text = client.text();
        let found: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(found.join(" "), statuses);
        let before_last = text.rfind("HTTP/1.1 ").unwrap();
        assert!(text[before_last..].contains("Connection: close") && !text[..before_last].contains("Connection: "), "{text}");
    }
}

#[test]
fn head_gets_no_body_and_http10_is_closed() {
    let mut client = Client::new();
    assert!(!client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(client.text().ends_with("\r\n\r\n"));
    assert!(client.send(b"GET / HTTP/1.0\r\n\r\n"));
    assert!(client.text().contains("Connection: close"));
}

#[test]
fn a_body_that_the_route_does_not_take_is_refused_before_it_is_sent() {
    for (request, status) in [
        ("POST /timer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", "405"),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", "404"),
        ("POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n", "413"),
        ("POST /launches HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", "415"),
        (
            "POST /launches HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n",
            "413",
        ),
    ] {
        let mut client = Client::new();
        assert!(client.send(request.as_bytes()), "the connection stays open");
        assert!(client.text().starts_with(&format!("HTTP/1.1 {status}")), "{}", client.text());
    }
}

#[test]
fn empty_lines_between_requests_are_ignored_and_start_no_clock() {
    let post = b"POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n[]\r\n\r\n".as_slice();
    let mut client = Client::new();
    assert!(!client.send(&[post, GET, b"\r\n"].concat()));
    assert_eq!(client.text().matches("HTTP/1.1 200 OK").count(), 2);
    assert!(client.connection.input.bytes().is_empty());
}

#[test]
fn a_head_request_that_is_refused_has_no_body() {
    for request in ["HEAD / HTTP/1.1\r\n\r\n", "\r\nHEAD foo HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = Client::new();
        assert!(client.send(request.as_bytes()));
        assert!(client.text().starts_with("HTTP/1.1 400") && client.text().ends_with("\r\n\r\n"), "{}", client.text());
    }
}

#[test]
fn a_client_that_is_turned_away_before_its_request_is_read_gets_no_body() {
    let mut client = Client::new();
    assert!(client.connection.turn_away());
    assert!(client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let text = client.text();
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("Content-Length: 0\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn refuses_and_closes_and_never_reads_later_bytes_as_a_request() {
    let mut client = Client::new();
    assert!(client.send(&[b"GET / HTTP/1.1\r\n\r\n".as_slice(), GET].concat()));
    assert_eq!(client.text().matches("HTTP/1.1").count(), 1);
    assert!(client.text().starts_with("HTTP/1.1 400 Bad Request"));
}

#[test]
fn a_warm_connection_serves_without_allocating() {
    let mut client = Client::new();
    client.written.reserve(64 * 1024);
    let mut serve = || {
        client.send(GET);
        client.connection.rest();
    };
    serve();
    let before = crate::counting::allocations();
    (0..10).for_each(|_| serve());
    assert_eq!(crate::counting::allocations() - before, 0);
}

#[test]
fn an_idle_connection_holds_no_buffers_and_little_state() {
    let mut client = Client::new();
    client.send(GET);
    client.connection.rest();
    assert_eq!((client.connection.input.capacity(), client.connection.output.capacity()), (0, 0));
    assert!(size_of::<Connection>() + crate::watch::STATE_PER_CONNECTION <= 1024);
}

#[test]
fn a_worker_gets_the_next_connection_once_the_first_request_runs_is_answered_or_turns_out_to_be_incomplete() {
    let worker = OfferedWorker::new();
    // Its first bytes are about to be read.
    let mut client = Client::taken_from_the_parent(Some(worker.take()));
    assert!(matches!(client.connection.step(), Step::Read));
    assert!(!worker.is_free());
    client.send(b"GET / HTTP/1.1\r\n");
    assert!(worker.is_free());

    let mut client = Client::taken_from_the_parent(Some(worker.take()));
    client.send(GET);
    assert!(worker.is_free());

    let mut client = Client::taken_from_the_parent(Some(worker.take()));
    client.connection.receive(b"GET /timer?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n");
    let Step::Run(work) = client.connection.step() else { panic!("nothing to run") };
    assert!(!worker.is_free());
    client.connection.answer(&work.run());
    assert!(worker.is_free());

    drop(Client::taken_from_the_parent(Some(worker.take())));
    assert!(worker.is_free());

    // What waits in a pool holds up no other connection.
    let knobs = Knobs { blocking_threads: 1, ..Service::knobs_for_tests() };
    let mut client = Client::of(Service::new(knobs, knobs.listen, 1).unwrap(), Some(worker.take()));
    client.connection.receive(b"GET /timer?ms=0 HTTP/1.1\r\nHost: a\r\n\r\n");
    let Step::Run(_queued) = client.connection.step() else { panic!("nothing to run") };
    assert!(worker.is_free());
}

#[test]
fn a_connection_from_the_parent_ends_for_its_client_though_a_stopped_worker_holds_a_copy_of_the_socket() {
    let worker = OfferedWorker::new();
    let (socket, mut client) = UnixStream::pair().unwrap();
    let _copy = socket.try_clone().unwrap();
    client.set_nonblocking(true).unwrap();
    drop(Served::new(Service::for_tests(), socket, Some(worker.take())));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_client_that_sends_without_a_pause_lets_others_have_a_turn_and_one_that_waits_for_answers_has_no_need_to() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut greedy = Client::new();
    greedy.send(&get.repeat(10_000));
    assert!(greedy.yielded > 10, "{}", greedy.yielded);
    let mut patient = Client::new();
    for _ in 0..100 {
        patient.send(get);
        patient.connection.rest();
    }
    assert_eq!(patient.yielded, 0);
}

#[test]
fn calls_count_as_turns_of_a_client_that_sends_without_a_pause() {
    let mut client = Client::new();
    let connection = &mut client.connection;
    connection.receive(&b"GET /hits?times=10000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(90));
    let mut calls = 0;
    loop {
        match connection.step() {
            Step::Write => {
                let count = connection.unsent().len();
                connection.sent(count);
            }
            Step::Run(work) => {
                calls += 1;
                connection.answer(&work.run());
            }
            Step::Yield => break,
            other => panic!("{other:?} after {calls} calls"),
        }
    }
    // An answer is written behind each.
    assert_eq!(calls, usize::from(MOST_TURNS / 2 + 1));
}

#[test]
fn half_of_an_empty_line_is_no_head_that_has_begun() {
    let mut client = Client::new();
    client.send(b"\r");
    assert_eq!(client.connection.slot.phase(), Phase::Open);
    client.send(b"\n");
    client.send(b"G");
    assert_eq!(client.connection.slot.phase(), Phase::Head);
}
