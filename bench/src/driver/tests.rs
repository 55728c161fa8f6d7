//! The driver against scripted servers: what real servers do on the wire, and what must be counted.

mod broken;

use super::Sockets;
use crate::load::{Drive, Lane, Load, Observation, Pace, Recording, Target};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A server whose connections a script serves, each on a thread of its own; the script gets the connection's number.
fn server(script: impl Fn(usize, TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let script = script.clone();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || script(number, stream));
        }
    });
    address
}

/// Reads one request without a body; false at the end of the connection.
fn request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Answers every request with these bytes.
fn echo(answer: &'static [u8]) -> impl Fn(usize, TcpStream) + Send + Sync + Clone + 'static {
    move |_, mut stream| while request(&mut stream) && stream.write_all(answer).is_ok() {}
}

fn target(address: SocketAddr) -> Target {
    Target { address, request: REQUEST.into(), is_head: false, status: 200, body: None }
}

fn drive(lane: Lane, window: Duration) -> Observation {
    Sockets.drive(&Load { grace: 100 * MS, ..Load::of(vec![lane], window, 1) }).unwrap()
}

fn closed(address: SocketAddr, connections: usize, window: Duration) -> Recording {
    let lane = Lane { retries: true, ..Lane::closed(target(address), connections, 1) };
    drive(lane, window).lanes.remove(0)
}

fn open(address: SocketAddr, connections: usize, rate: f64, window: Duration) -> Recording {
    let lane = Lane { retries: true, ..Lane::open(target(address), connections, rate, false) };
    drive(lane, window).lanes.remove(0)
}

#[test]
fn a_closed_loop_counts_what_was_never_answered_with_its_age() {
    // Each connection answers ten requests and then goes silent, as a stopped server does.
    let address = server(|_, mut stream| {
        for _ in 0..10 {
            if !request(&mut stream) || stream.write_all(OK).is_err() {
                return;
            }
        }
        // Silent until the client goes away.
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    });
    let seen = closed(address, 4, 300 * MS);
    assert_eq!((seen.answered, seen.unanswered), (40, 4));
    assert!(seen.ages.max() > 300_000_000, "{}", seen.ages.max());
    let never = closed(server(|_, mut stream| while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}), 2, 200 * MS);
    assert_eq!((never.answered, never.unanswered), (0, 2));
    assert!(never.all_times().value_at_quantile(0.99) > 150_000_000 && never.response.is_empty());
}

#[test]
fn a_server_that_closes_after_some_answers_without_saying_so_is_asked_on_and_on() {
    let address = server(|_, mut stream| {
        for _ in 0..5 {
            if !request(&mut stream) || stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let seen = closed(address, 2, 200 * MS);
    assert!(seen.answered > 50, "{}", seen.answered);
    assert_eq!((seen.errors, seen.first_error), (0, None));
    assert!(seen.resent > 0);
}

#[test]
fn answers_that_end_with_the_connection_or_announce_its_end_are_answers() {
    for answer in [
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end".as_slice(),
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let address = server(move |_, mut stream| {
            if request(&mut stream) {
                let _ = stream.write_all(answer);
            }
        });
        let seen = closed(address, 2, 200 * MS);
        assert!(seen.answered > 20 && seen.errors == 0, "{} {:?}", seen.answered, seen.first_error);
    }
}

#[test]
fn connections_that_the_server_announces_to_close_leave_no_port_of_this_machine_occupied() {
    const TIME_WAIT: &str = "06";
    // It closes after the client, as one does that reads what may still come.
    let address = server(|_, mut stream| {
        if request(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
            while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        }
    });
    let seen = closed(address, 2, 200 * MS);
    assert!(seen.answered > 20 && seen.errors == 0, "{} {:?}", seen.answered, seen.first_error);
    let port = format!(":{:04X}", address.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let waiting = fields.filter(|fields| fields[2].ends_with(&port) && fields[3] == TIME_WAIT).count();
    // Those that were open when the time was over are closed as clients close theirs.
    assert!(waiting <= 2, "{waiting} of {}", seen.answered);
}

#[test]
fn interim_answers_and_bodiless_ones_are_understood() {
    for (answer, status) in [
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                .as_slice(),
            200,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304),
    ] {
        let target = Target { status, ..target(server(echo(answer))) };
        let seen = drive(Lane::closed(target, 1, 1), 100 * MS).lanes.remove(0);
        assert!(seen.answered > 10 && seen.errors == 0, "{status} {:?}", seen.first_error);
        assert_eq!(seen.statuses.keys().copied().collect::<Vec<_>>(), [status]);
    }
}

#[test]
fn a_wrong_status_or_body_is_an_error_and_the_connection_goes_on() {
    let address = server(|_, mut stream| {
        let mut number = 0;
        while request(&mut stream) {
            number += 1;
            let answer: &[u8] = if number % 10 == 0 { b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n" } else { OK };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let seen = closed(address, 1, 100 * MS);
    assert!(seen.errors > 3 && seen.answered > 8 * seen.errors, "{} {}", seen.errors, seen.answered);
    assert_eq!(seen.first_error.as_deref(), Some("status 500 instead of 200"));
    assert!(seen.statuses[&500] >= seen.errors && seen.statuses[&200] > seen.statuses[&500]);
    let strict = Target { body: Some(b"OK".as_slice().into()), ..target(server(echo(OK))) };
    let wrong = drive(Lane::closed(strict, 1, 1), 50 * MS).lanes.remove(0);
    assert_eq!((wrong.answered, wrong.first_error.unwrap().contains("not the expected one")), (0, true));
}

#[test]
fn a_request_that_fails_is_as_old_at_the_end_as_one_that_still_waits() {
    for (answer, is_closed) in [(Some(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".as_slice()), false), (None, true)] {
        let address = server(
            move |_, mut stream| {
                while request(&mut stream) && answer.is_some_and(|answer| stream.write_all(answer).is_ok()) {}
            },
        );
        let lane = Lane { keeps_samples: true, ..Lane::open(target(address), 4, 100.0, false) };
        let seen = drive(lane, 400 * MS).lanes.remove(0);
        assert_eq!((seen.answered, seen.failed, seen.unanswered), (0, seen.planned, 0), "closed: {is_closed}");
        assert_eq!((seen.response.len(), seen.ages.len()), (0, seen.planned));
        // Even arrivals: the first waits from the start to the end, the last hardly at all.
        assert!(seen.ages.max() >= 390_000_000 && seen.ages.min() < 100_000_000, "{} {}", seen.ages.max(), seen.ages.min());
        assert_eq!(seen.samples.iter().filter(|sample| !sample.is_answered).count() as u64, seen.planned);
        assert!(seen.samples.iter().any(|sample| sample.response >= 390 * MS), "{:?}", seen.samples);
    }
}

#[test]
fn what_a_server_sheds_is_counted_apart_and_asked_for_again_after_the_pause() {
    const NO_ROOM: &[u8] = b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n";
    let address = server(|number, stream| echo(if number == 0 { NO_ROOM } else { OK })(number, stream));
    let shedding = |sheds| drive(Lane { sheds, ..Lane::closed(target(address), 1, 1) }, 100 * MS).lanes.remove(0);
    // Its pause outlasts the window, so the first request is the only one.
    let seen = shedding(Some(1000 * MS));
    assert_eq!((seen.shed, seen.answered, seen.errors, seen.response.len()), (1, 0, 0, 0));
    let address = server(echo(NO_ROOM));
    let seen = drive(Lane::closed(target(address), 1, 1), 100 * MS).lanes.remove(0);
    assert!(seen.shed == 0 && seen.errors > 1, "without leave to shed it is wrong: {} {}", seen.shed, seen.errors);
}

#[test]
fn a_body_of_thirty_megabytes_is_read_in_the_time_that_its_bytes_take() {
    let body = vec![b'x'; 30 << 20];
    let answer: &'static [u8] =
        Vec::leak([format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat());
    let strict = Target { body: Some(body.into()), ..target(server(echo(answer))) };
    let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(3), think: Duration::ZERO };
    let seen = drive(Lane { pace, ..Lane::closed(strict, 1, 1) }, Duration::from_secs(20)).lanes.remove(0);
    assert_eq!((seen.answered, seen.errors), (3, 0));
}

#[test]
fn an_idle_connection_that_the_server_closes_is_opened_again_without_an_error() {
    // The second server says so with status 408, as several do.
    for farewell in [b"".as_slice(), b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"] {
        let address = server(move |_, mut stream| {
            if request(&mut stream) && stream.write_all(OK).is_ok() {
                let _ = stream.write_all(farewell);
            }
        });
        let seen = open(address, 2, 50.0, 400 * MS);
        assert_eq!((seen.answered, seen.errors, seen.unanswered), (seen.planned, 0, 0), "{:?}", seen.first_error);
        assert!(seen.idle_closes > 5, "{}", seen.idle_closes);
    }
}

#[test]
fn a_server_that_goes_away_and_comes_back_is_counted_and_measured_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, hear): (_, Receiver<()>) = mpsc::channel();
    let serve = |listener: TcpListener, until: Option<Receiver<()>>| {
        listener.set_nonblocking(true).unwrap();
        let mut streams = Vec::new();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && until.as_ref().is_none_or(|until| until.try_recv().is_err()) {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                streams.push(stream.try_clone().unwrap());
                thread::spawn(move || echo(OK)(0, stream));
            }
            thread::yield_now();
        }
        streams.iter().for_each(|stream| {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
    };
    thread::spawn(move || {
        serve(listener, Some(hear));
        thread::sleep(150 * MS);
        serve(TcpListener::bind(address).unwrap(), None);
    });
    let ending = thread::spawn(move || {
        thread::sleep(200 * MS);
        let _ = send.send(());
    });
    let seen = open(address, 4, 400.0, 900 * MS);
    ending.join().unwrap();
    assert!(seen.refused > 0 && seen.answered > 250, "{} {}", seen.refused, seen.answered);
    // What waited for the server to come back has its whole wait in the histogram.
    assert!(seen.response.max() > 100_000_000, "{}", seen.response.max());
}

#[test]
fn a_server_that_takes_one_connection_at_a_time_is_measured() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| echo(OK)(0, stream)));
    let lane = Lane { primer: Some(target(address)), retries: true, ..Lane::open(target(address), 4, 100.0, false) };
    let seen = drive(lane, 400 * MS).lanes.remove(0);
    assert!(seen.answered > 0 && seen.unanswered > 0, "{} {}", seen.answered, seen.unanswered);
    assert_eq!((seen.planned, seen.errors), (seen.answered + seen.unanswered, 0));
}

#[test]
fn answers_after_the_window_are_not_part_of_its_rate() {
    // One answer in 20 ms on the only connection: 50 a second, whatever is asked.
    let address = server(|_, mut stream| {
        while request(&mut stream) {
            thread::sleep(20 * MS);
            if stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let lane = Lane::open(target(address), 1, 100.0, false);
    let load = Load { warmup: 50 * MS, grace: Duration::from_secs(2), ..Load::of(vec![lane], 400 * MS, 1) };
    let observation = Sockets.drive(&load).unwrap();
    let seen = &observation.lanes[0];
    assert!(seen.answered > seen.in_window, "{} {}", seen.answered, seen.in_window);
    assert!(observation.per_second(0) <= 52.0, "{}", observation.per_second(0));
    assert_eq!(seen.statuses.values().sum::<u64>(), seen.answered, "one line, one count");
}

#[test]
fn a_request_without_a_right_answer_fails_where_a_lane_does_not_retry() {
    let address = server(|_, mut stream| {
        request(&mut stream);
    });
    let seen = drive(Lane::open(target(address), 2, 100.0, false), 200 * MS).lanes.remove(0);
    assert_eq!((seen.answered, seen.errors), (0, seen.planned));
    assert!(seen.first_error.unwrap().contains("without an answer"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fresh = Lane { is_fresh: true, ..Lane::open(target(nobody), 1, 100.0, false) };
    let refused = drive(fresh, 100 * MS).lanes.remove(0);
    assert!(refused.errors > 0 && refused.refused == refused.errors, "{} {}", refused.refused, refused.errors);
}

#[test]
fn a_fresh_request_that_is_refused_waits_where_a_lane_retries() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fresh = Lane { is_fresh: true, retries: true, ..Lane::open(target(nobody), 1, 100.0, false) };
    let seen = drive(fresh, 200 * MS).lanes.remove(0);
    assert_eq!((seen.errors, seen.unanswered), (0, seen.planned), "{:?}", seen.first_error);
    assert!(seen.refused > seen.planned && seen.ages.max() > 200_000_000, "{} {}", seen.refused, seen.ages.max());
}

#[test]
fn a_connection_without_a_request_in_flight_is_closed_and_not_reset() {
    let (send, hear) = mpsc::channel();
    let address = server(move |_, mut stream| {
        request(&mut stream);
        let _ = stream.write_all(OK);
        let _ = send.send(stream.read(&mut [0]).map_err(|error| error.kind()));
    });
    let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(1), think: Duration::ZERO };
    drive(Lane { pace, ..Lane::closed(target(address), 1, 1) }, 100 * MS);
    assert_eq!(hear.recv().unwrap(), Ok(0));
}

#[test]
fn fresh_connections_do_not_keep_others_from_being_read() {
    let address = server(echo(OK));
    // More connections than one thread can open, and refused at once: they cost the driver its time, and the server nothing.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lanes = vec![Lane::closed(target(address), 2, 1), Lane { is_fresh: true, ..Lane::open(target(nobody), 1, 1e6, false) }];
    let seen = Sockets.drive(&Load { grace: 100 * MS, ..Load::of(lanes, 300 * MS, 1) }).unwrap();
    assert!(seen.lanes[0].answered > 2, "{}", seen.lanes[0].answered);
}

#[test]
fn requests_that_the_driver_never_released_are_owed() {
    let address = server(echo(OK));
    // Faster than one thread can send.
    let seen = open(address, 8, 1e6, 100 * MS);
    assert!(seen.planned >= 99_000, "{}", seen.planned);
    assert_eq!(seen.planned, seen.answered + seen.unanswered);
}

#[test]
fn pipelined_requests_keep_their_depth_over_a_lost_connection() {
    let address = server(|number, mut stream| {
        for _ in 0..if number == 0 { 7 } else { 1_000_000 } {
            if !request(&mut stream) || stream.write_all(OK).is_err() {
                return;
            }
        }
    });
    let lane = Lane { retries: true, ..Lane::closed(target(address), 1, 4) };
    let seen = drive(lane, 150 * MS).lanes.remove(0);
    assert!(seen.answered > 50 && seen.errors == 0, "{} {:?}", seen.answered, seen.first_error);
}
