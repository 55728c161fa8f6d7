//! Servers that break a connection behind a right answer: what they owe of it is asked for again, and no client falls silent.

use super::{MS, OK, closed, drive, open, request, server, target};
use crate::load::{Lane, Pace, Recording};
use std::io::{Read, Write};
use std::net::SocketAddr;
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
    for (surplus, is_error) in [(STRAY, true), (FAREWELL, false)] {
        let address = once(1, &[OK, surplus]);
        let seen = closed(address, 2, 150 * MS);
        assert!(seen.answered > 10 && (seen.errors > 0) == is_error, "{} {:?}", seen.answered, seen.first_error);
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
