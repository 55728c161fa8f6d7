//! Requests that proxies and servers read in two ways: each has one right answer, and none may hide a second request.

use super::{Check, expect, expect_page, expect_served, start};
use crate::catalog::Server;
use crate::http::{Client, get};
use crate::process::Running;
use anyhow::{Context, Result, bail};
use common::http::MAX_HEAD;
use common::http::body::MAX_EXTRAS;
use common::http::target::MAX_TARGET;
use std::ops::RangeInclusive;

pub const CHECKS: &[Check] = &[
    ("h1spec", h1spec),
    ("chunk-framing", chunk_framing),
    ("targets", targets),
    ("percent-encoding", percent_encoding),
    ("methods", methods),
    ("versions", versions),
    ("hosts", hosts),
    ("refused-head", refused_head),
    ("refused-body", refused_body),
    ("empty-lines", empty_lines),
];

const REFUSED: RangeInclusive<u16> = 400..=499;
const SERVED: RangeInclusive<u16> = 200..=299;

/// A request that is sent in two pieces: the server waits for the second.
const FRAGMENTED: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Where it is cut: in the method, behind it, in the target, ... behind the last CR.
const CUTS: [usize; 15] = [1, 4, 5, 6, 10, 14, 15, 16, 19, 21, 22, 31, 32, 33, 34];

/// The cases that h1spec asks of every server, besides the fragmented ones: a name, the request, and the statuses that are right.
const CASES: [(&str, &str, RangeInclusive<u16>); 18] = [
    ("no version", "GET / \r\n\r\n", 400..=599),
    ("expectation without a body", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 100..=299),
    ("plain GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", SERVED),
    ("odd but valid headers", "GET / HTTP/1.1\r\nhoSt:\ta\r\nempty:\r\n\r\n", SERVED),
    ("a name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX-Invalid[]: x\r\n\r\n", REFUSED),
    ("no Host", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", REFUSED),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", REFUSED),
    ("a long negative length", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -123456789123456789123456789\r\n\r\n", REFUSED),
    ("a negative length", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1234\r\n\r\n", REFUSED),
    ("a length in words", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n", REFUSED),
    ("a length that overflows", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 123456789123456789123456789\r\n\r\n", REFUSED),
    ("an empty value", "GET / HTTP/1.1\r\nHost: a\r\nX-Empty: \r\n\r\n", SERVED),
    ("a control character", "GET / HTTP/1.1\r\nHost: a\r\nX-Bad: x\u{7}\r\n\r\n", REFUSED),
    ("an unknown version", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400..=599),
    ("words before the method", "Extra lineGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400..=599),
    ("CR within a line", "GET / HTTP/1.1\r\nHost: a\r\n\rSome-Header: x\r\n\r\n", REFUSED),
    ("a body", "POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n[1,2]", SERVED),
    ("both lengths", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", REFUSED),
];

fn h1spec(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut failed = Vec::new();
    for cut in CUTS {
        let (first, second) = FRAGMENTED.split_at(cut);
        let asked = Client::connect(running.address).and_then(|mut client| {
            client.send(first.as_bytes())?;
            expect_page(&client.ask(second.as_bytes())?)
        });
        failed.extend(asked.err().map(|error| format!("cut behind {first:?}: {error:#}")));
    }
    for (name, request, right) in CASES {
        match first_status(&running, request) {
            Ok(status) if right.contains(&status) => {}
            Ok(status) => failed.push(format!("{name}: {status}")),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    let all = CUTS.len() + CASES.len();
    if failed.is_empty() { Ok(()) } else { bail!("{} of {all}; {}", all - failed.len(), failed.join("; ")) }
}

/// The first status, of an interim answer too.
fn first_status(running: &Running, request: &str) -> Result<u16> {
    let mut client = Client::connect(running.address)?;
    client.send(request.as_bytes())?;
    client.receive_interim()
}

/// Expects a request to be refused with one of these statuses, and a second one behind it not to be seen.
fn expect_refused(running: &Running, request: &str, statuses: &[u16]) -> Result<()> {
    let shown: String = request.chars().take(80).collect();
    let refused = || -> Result<()> {
        let mut client = Client::connect(running.address)?;
        // A server that has seen enough may close while the rest is still being sent.
        let _ = client.send(&[request.as_bytes(), &get("/")].concat());
        let answer = client.receive(false)?;
        if !statuses.contains(&answer.status) || !answer.closes {
            bail!("status {}, closes: {}, instead of {statuses:?} and a close", answer.status, answer.closes);
        }
        client.expect_close()
    };
    refused().with_context(|| format!("{shown:?}"))
}

/// A body's framing is followed to the letter and has a bound.
fn chunk_framing(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let head = "POST /json/parse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "\r\n\r\n",
        " \r\n\r\n",
        ";x\r\n\r\n",
        "1;x\n1\r\n0\r\n\r\n",
        "1\r\n1\r\n0\r\nA: b\n\r\n",
        "1\n1\r\n0\r\n\r\n",
        "0x1\r\n1\r\n0\r\n\r\n",
    ] {
        expect_refused(&running, &format!("{head}{body}"), &[400])?;
    }
    let extension = "x".repeat(MAX_EXTRAS / 4);
    expect_refused(&running, &format!("{head}{}0\r\n\r\n", format!("1;{extension}\r\n1\r\n").repeat(8)), &[400, 413, 431])?;
    expect_refused(&running, &format!("{head}1\r\n1\r\n0\r\n{}\r\n", format!("A: {extension}\r\n").repeat(8)), &[400, 413, 431])?;
    expect_served(&running).map(drop)
}

/// Every form of a target, and a bound for it.
fn targets(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for target in ["http://h/", "HTTP://h/", "https://h/", "http://h", "http://h?next=/timer", "/?next=http://h/timer"] {
        let answer = Client::connect(running.address)?.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())?;
        expect_page(&answer).with_context(|| target.to_owned())?;
    }
    for target in ["foo", "http:///x", "*", "h:80"] {
        expect_refused(&running, &format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), &[400])?;
    }
    for length in [MAX_TARGET, 20_000] {
        expect_refused(&running, &format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(length)), &[414])?;
    }
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    expect_refused(&running, &long, &[431])?;
    expect_served(&running).map(drop)
}

fn percent_encoding(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let wanted = Client::connect(running.address)?.ask(&get("/timer?ms=1"))?.body;
    for target in ["/%74imer?ms=1", "/timer?%6ds=1", "/timer?ms=%31", "/timer?ms=1&x=%26ms=2"] {
        let answer = Client::connect(running.address)?.ask(&get(target))?;
        expect(target, &(answer.status, String::from_utf8_lossy(&answer.body)), &(200, String::from_utf8_lossy(&wanted)))?;
    }
    Ok(())
}

fn methods(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for (request, right) in [
        ("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", [501, 501]),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", [204, 405]),
        ("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", [405, 405]),
    ] {
        let status = first_status(&running, request)?;
        if !right.contains(&status) {
            bail!("{request:?}: {status} instead of {right:?}");
        }
    }
    Ok(())
}

fn versions(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for line in ["GET /a b HTTP/1.1", "GET / HTTP/2", "GET  / HTTP/1.1", "GET / http/1.1", "GET /"] {
        expect_refused(&running, &format!("{line}\r\nHost: h\r\n\r\n"), &[400])?;
    }
    expect_refused(&running, "GET / HTTP/2.0\r\nHost: h\r\n\r\n", &[505])
}

fn hosts(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for host in ["a b", "a/b", "u@a", "a:x", "[::1"] {
        expect_refused(&running, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400])?;
    }
    for host in ["a", "a:80", "[::1]:80", "127.0.0.1"] {
        let answer = Client::connect(running.address)?.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        expect_page(&answer).with_context(|| host.to_owned())?;
    }
    Ok(())
}

/// A HEAD that is refused has no body, which its client would take for the next answer.
fn refused_head(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    let answer = client.ask(b"HEAD / HTTP/1.1\r\n\r\n")?;
    expect("status", &answer.status, &400)?;
    client.expect_close()
}

/// A client that asks before it sends a body hears at once that the route does not take it.
fn refused_body(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for (request, right) in [
        ("POST /timer HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", 405),
        ("POST /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", 404),
        ("POST /json/parse HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n", 413),
    ] {
        expect(request, &first_status(&running, request)?, &right)?;
    }
    if server.unsupported.contains_key("launches") {
        return Ok(());
    }
    for (headers, right) in [("Content-Length: 9", 415), ("Content-Type: application/json\r\nContent-Length: 5000", 413)] {
        let request = format!("POST /launches HTTP/1.1\r\nHost: h\r\n{headers}\r\nExpect: 100-continue\r\n\r\n");
        expect(&request, &first_status(&running, &request)?, &right)?;
    }
    Ok(())
}

/// An empty line behind a body belongs to no request: it gets no answer, and it is not cut off for a head that never comes.
fn empty_lines(server: &Server) -> Result<()> {
    let running = start(server, &["--header-timeout", "200ms"])?;
    let mut client = Client::connect(running.address)?;
    let answer = client.ask(b"POST /json/parse HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]\r\n")?;
    expect("status", &answer.status, &200)?;
    // A connection that has begun a head is cut meanwhile, which shows that the limit works and has passed.
    let mut late = Client::connect(running.address)?;
    late.send(b"GET / HT")?;
    let _ = late.receive(false);
    expect_page(&client.ask(&get("/"))?)
}
