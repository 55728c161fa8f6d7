//! Servers that break a connection behind a right answer: what they owe of it is asked for again, and no client falls silent.

use super::{MS, OK, closed, drive, echo, open, request, server, target};
use crate::driver::Sockets;
use crate::load::{Drive, Lane, Load, Pace, Recording, Target};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

const STRAY: &[u8] = b"stray bytes";
const FAREWELL: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A server that reads this many requests on each connection, sends these bytes at once, and then is silent until the client goes away.
fn once(requests: usize, parts: &[&[u8]]) -> SocketAddr {
    let bytes: &'static [u8] = parts.concat().leak();
    server(move |_, mut stream| {
        if (0..requests).all(|_| request(&mut stream)) && stream.write_all(bytes).is_ok() {
            while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        }
    })
}

fn pipelined(address: SocketAddr) -> Recording {
    drive(Lane { retries: true, ..Lane::closed(target(address), 1, 4) }, 150 * MS).lanes.remove(0)
}

#[test]
fn a_closed_lane_goes_on_when_more_comes_than_was_asked_for() {
    for (surplus, is_unasked) in [(STRAY, true), (FAREWELL, false)] {
        let address = once(1, &[OK, surplus]);
        let seen = closed(address, 2, 150 * MS);
        assert!(seen.answered > 10 && (seen.unasked > 0) == is_unasked, "{} {}", seen.answered, seen.unasked);
        assert_eq!((seen.errors, seen.failed), (0, 0), "every request was answered");
        let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: None, think: MS };
        let thinking = drive(Lane { pace, ..Lane::closed(target(address), 2, 1) }, 150 * MS).lanes.remove(0);
        assert!(thinking.answered > 10, "{}", thinking.answered);
        let kept = open(address, 2, 100.0, 200 * MS);
        assert_eq!(kept.answered, kept.planned);
        let fresh = Lane { is_fresh: true, ..Lane::open(target(address), 1, 100.0, false) };
        let fresh = drive(fresh, 200 * MS).lanes.remove(0);
        assert_eq!(fresh.answered, fresh.planned);
    }
}

#[test]
fn pipelined_requests_keep_their_depth_when_a_connection_breaks_behind_an_answer() {
    // The server waits for four requests, so with one less in flight it would wait for ever.
    for (ending, is_error) in [(STRAY, true), (FAREWELL, false)] {
        let seen = pipelined(once(4, &[OK, OK, ending]));
        assert!(seen.answered > 10 && (seen.errors > 0) == is_error, "{} {:?}", seen.answered, seen.first_error);
    }
}

#[test]
fn a_client_that_rests_after_a_failure_asks_again_only_after_its_pause() {
    // A wrong status, or no answer at all: the pause outlasts the window, so the first request is the only one.
    for answer in [b"HTTP/1.1 429 x\r\nContent-Length: 0\r\n\r\n".as_slice(), b""] {
        let address =
            server(move |_, mut stream| while request(&mut stream) && !answer.is_empty() && stream.write_all(answer).is_ok() {});
        let lane = Lane { rests: Some(1000 * MS), ..Lane::closed(target(address), 1, 1) };
        let seen = drive(lane, 100 * MS).lanes.remove(0);
        assert_eq!((seen.errors, seen.failed, seen.answered), (1, 1, 0), "{:?}", seen.first_error);
    }
}

/// A server that answers the first request on each connection, and closes it on the second without an answer, as one that shuts down may. It reports each
/// request.
fn closes_on_the_second(heard: mpsc::Sender<()>) -> SocketAddr {
    server(move |_, mut stream| {
        for answer in [OK, b""] {
            if request(&mut stream) {
                let _ = heard.send(());
                let _ = stream.write_all(answer);
            }
        }
    })
}

#[test]
fn a_request_that_may_have_been_acted_on_is_sent_again_only_if_twice_is_as_good_as_once() {
    for (method, is_resent) in [("GET", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false)] {
        let (send, hear) = mpsc::channel();
        let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").into_bytes();
        let lost = Target { request: request.into(), ..target(closes_on_the_second(send)) };
        let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(6), think: Duration::ZERO };
        let seen = drive(Lane { pace, retries: true, ..Lane::closed(lost, 1, 1) }, 2000 * MS).lanes.remove(0);
        assert_eq!((seen.resent > 0, seen.errors == 0), (is_resent, is_resent), "{method}: {:?}", seen.first_error);
        assert_eq!(hear.try_iter().count() as u64, seen.answered + seen.errors + seen.resent, "{method}");
        if !is_resent {
            assert!(seen.first_error.is_some_and(|error| error.contains("not sent again")), "{method}");
        }
    }
}

#[test]
fn an_answer_that_comes_before_the_request_is_sent_whole_is_an_answer() {
    const REFUSED: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    // It reads the head alone, so its close resets the connection, which it does not announce.
    let address = server(|_, mut stream| {
        request(&mut stream);
        let _ = stream.write_all(REFUSED);
    });
    let body = vec![b'x'; 32 << 20];
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let large = [head.as_bytes(), &body].concat();
    for is_fresh in [false, true] {
        let refused = Target { request: large.as_slice().into(), status: 413, ..target(address) };
        let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(4), think: Duration::ZERO };
        let seen = drive(Lane { pace, is_fresh, ..Lane::closed(refused, 1, 1) }, 5000 * MS).lanes.remove(0);
        assert_eq!((seen.answered, seen.errors), (4, 0), "{:?}", seen.first_error);
    }
}

#[test]
fn a_line_end_behind_an_answer_is_skipped() {
    let address = server(|_, mut stream| while request(&mut stream) && stream.write_all(&[OK, b"\r\n"].concat()).is_ok() {});
    let seen = closed(address, 1, 150 * MS);
    assert!(seen.answered > 10, "{}", seen.answered);
    assert_eq!((seen.errors, seen.unasked, seen.idle_closes, seen.resent), (0, 0, 0, 0));
}

#[test]
fn long_requests_on_many_connections_keep_the_driver_from_nothing() {
    const LENGTH: usize = 4 << 20;
    let address = server(|_, mut stream| {
        let mut piece = vec![0; 1 << 16];
        while request(&mut stream) {
            let mut left = LENGTH;
            while left > 0 {
                let most = left.min(piece.len());
                match stream.read(&mut piece[..most]) {
                    Ok(count) if count > 0 => left -= count,
                    _ => return,
                }
            }
            let _ = stream.write_all(OK);
        }
    });
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n");
    let long = [head.as_bytes(), &vec![b'x'; LENGTH]].concat();
    let uploads = Lane::closed(Target { request: long.into(), ..target(address) }, 16, 1);
    let probes = Lane { retries: true, ..Lane::open(target(server(echo(OK))), 2, 200.0, false) };
    let seen = Sockets.drive(&Load { grace: 5000 * MS, ..Load::of(vec![uploads, probes], 500 * MS, 1) }).unwrap();
    assert!(seen.driver_load <= 1.05, "{}", seen.driver_load);
    let (uploads, probes) = (&seen.lanes[0], &seen.lanes[1]);
    assert!(uploads.response.len() >= 16 && uploads.errors == 0, "{} {:?}", uploads.response.len(), uploads.first_error);
    assert_eq!((probes.answered, probes.errors), (probes.planned, 0));
}

#[test]
fn no_client_of_a_service_is_silent_on_a_connection_before_its_first_request() {
    // Each silent connection holds a thread of many servers.
    let (send, silent) = mpsc::channel();
    let address = server(move |_, mut stream| {
        stream.set_read_timeout(Some(700 * MS)).unwrap();
        let _ = stream.peek(&mut [0]).is_err().then(|| send.send(()));
        stream.set_read_timeout(None).unwrap();
        while request(&mut stream) && stream.write_all(OK).is_ok() {}
    });
    let pace = Pace::Closed { depth: 1, stagger: 3000 * MS, most: Some(1), think: Duration::ZERO };
    let lane = Lane { retries: true, primer: Some(target(address)), pace, ..Lane::closed(target(address), 3, 1) };
    let seen = drive(lane, 3200 * MS).lanes.remove(0);
    assert_eq!((seen.answered, silent.try_iter().count()), (3, 0));
}

#[test]
fn a_server_that_refuses_some_connections_is_measured_on_the_others() {
    // Of ten connections it serves four and resets the rest.
    let load = |retries| {
        let address = server(|number, mut stream| while number < 4 && request(&mut stream) && stream.write_all(OK).is_ok() {});
        let lane = Lane { primer: Some(target(address)), retries, ..Lane::open(target(address), 10, 200.0, false) };
        Sockets.drive(&Load { grace: 100 * MS, ..Load::of(vec![lane], 200 * MS, 1) })
    };
    let seen = load(true).unwrap().lanes.remove(0);
    assert!(seen.answered > 0 && seen.refused > 0, "{} {}", seen.answered, seen.refused);
    assert!(load(false).is_err(), "a server under the contract refuses none");
}
