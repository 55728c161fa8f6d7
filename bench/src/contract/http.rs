//! Routes, bytes and bad input.

use super::{Check, ask, beside, expect, expect_page, expect_served, slow, start};
use crate::catalog::Server;
use crate::http::{Client, get};
use anyhow::{Context, Result};
use common::http::{MAX_BODY, MAX_HEAD};
use common::routes::PAGE;

pub const CHECKS: &[Check] = &[
    ("routes", routes),
    ("bad-input", bad_input),
    ("bytes", bytes),
    ("keep-alive", keep_alive),
    ("pipelining", pipelining),
    ("flush-before-blocking", flush_before_blocking),
    ("body-by-length", body_by_length),
    ("chunked-body", chunked_body),
    ("expect-continue", expect_continue),
    ("head", head),
    ("http10", http10),
    ("connection-close", connection_close),
    ("refuse-ambiguous", refuse_ambiguous),
    ("refuse-long-head", refuse_long_head),
];

fn routes(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    expect_served(&running)?;
    let paths = [
        "/healthz",
        "/timer?ms=1",
        "/timer?ms=1&clock=cpu",
        "/sleep?ms=1",
        "/json/stringify?items=3",
        "/sort?items=9",
        "/pbkdf2?iterations=2",
        "/scrypt?log_n=4",
    ];
    for path in paths {
        expect(path, &ask(&running, &get(path))?.status, &200)?;
    }
    let first = ask(&running, &get("/sort?items=1000"))?;
    let again = ask(&running, &get("/sort?items=1000"))?;
    expect("the answer to the same work", &again.body, &first.body)?;
    expect("status of an unknown path", &ask(&running, &get("/nothing"))?.status, &404)?;
    expect("status of an unknown method", &ask(&running, b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n")?.status, &405)
}

fn bad_input(server: &Server) -> Result<()> {
    let running = start(server, &["--max-block", "5s"])?;
    for (path, name) in [
        ("/timer?ms=x", "ms"),
        ("/sleep?ms=-1", "ms"),
        ("/sleep?ms=5001", "ms"),
        ("/timer?clock=moon", "clock"),
        ("/scrypt?log_n=18", "log_n"),
    ] {
        let answer = ask(&running, &get(path))?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        expect(path, &(answer.status, text.starts_with(&format!("{name}: takes "))), &(400, true))?;
    }
    Ok(())
}

/// The same bytes from every server, but for `Date` and `X-Worker`.
fn bytes(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let text = "Content-Type: text/plain; charset=utf-8";
    let refused = "/timer takes GET, HEAD\n";
    let cases: [(&[u8], Vec<String>, &str); 2] = [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            vec!["HTTP/1.1 200 OK".into(), text.into(), format!("Content-Length: {}", PAGE.len())],
            PAGE,
        ),
        (
            b"POST /timer HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            vec![
                "HTTP/1.1 405 Method Not Allowed".into(),
                text.into(),
                format!("Content-Length: {}", refused.len()),
                "Allow: GET, HEAD".into(),
            ],
            refused,
        ),
    ];
    for (request, wanted, body) in cases {
        let answer = ask(&running, request)?;
        answer.header("Date").context("no Date")?;
        answer.header("X-Worker").context("no X-Worker")?.parse::<u32>().context("X-Worker is no process id")?;
        let varies = |line: &String| line.starts_with("Date: ") || line.starts_with("X-Worker: ");
        let fixed: Vec<String> = answer.head.into_iter().filter(|line| !varies(line)).collect();
        expect("head", &fixed, &wanted)?;
        expect("body", &String::from_utf8_lossy(&answer.body).as_ref(), &body)?;
    }
    Ok(())
}

fn keep_alive(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    (0..3).try_for_each(|_| expect_page(&client.ask(&get("/"))?))
}

fn pipelining(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    client.send(&[get("/"), get("/nothing"), get("/")].concat())?;
    for wanted in [200, 404, 200] {
        expect("status in order", &client.receive(false)?.status, &wanted)?;
    }
    Ok(())
}

/// The first of two pipelined answers comes while the second request still blocks.
fn flush_before_blocking(server: &Server) -> Result<()> {
    beside(server, &[], "the answer that was ready came together with the one that took long", |running, length_ms| {
        let mut client = Client::connect(running.address)?;
        client.send(&[get("/"), slow(length_ms)].concat())?;
        expect_page(&client.receive(false)?)?;
        if client.has_more() {
            return Ok(false);
        }
        expect("status", &client.receive(false)?.status, &200)?;
        Ok(true)
    })
}

const DOCUMENT: &str = "[1, 2, {\"a\": null}]";

fn expect_parsed(client: &mut Client) -> Result<()> {
    let answer = client.receive(false)?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    expect("status and what was parsed", &(answer.status, text.contains("\"amount\":5")), &(200, true))
}

fn body_by_length(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    client.send(format!("POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", DOCUMENT.len()).as_bytes())?;
    client.send(DOCUMENT.as_bytes())?;
    expect_parsed(&mut client)?;
    expect_page(&client.ask(&get("/"))?)
}

fn chunked_body(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    client.send(b"POST /json/parse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for piece in [&DOCUMENT[..4], &DOCUMENT[4..]] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())?;
    }
    client.send(b"0\r\n\r\n")?;
    expect_parsed(&mut client)?;
    expect_page(&client.ask(&get("/"))?)
}

fn expect_continue(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    let length = DOCUMENT.len();
    client.send(
        format!("POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n").as_bytes(),
    )?;
    expect("status before the body", &client.receive_interim()?, &100)?;
    client.send(DOCUMENT.as_bytes())?;
    expect_parsed(&mut client)
}

fn head(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    let answer = client.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    expect("length that HEAD tells", &answer.header("Content-Length").unwrap_or("none"), &PAGE.len().to_string().as_str())?;
    expect_page(&client.ask(&get("/"))?)
}

fn http10(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    let answer = client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
    expect("Connection", &answer.header("Connection"), &Some("keep-alive"))?;
    expect_page(&client.ask(b"GET / HTTP/1.0\r\n\r\n")?)?;
    client.expect_close()
}

fn connection_close(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    let answer = client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    expect_page(&answer)?;
    expect("says that it closes", &answer.closes, &true)?;
    client.expect_close()
}

fn refuse_ambiguous(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let long = format!("POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (long.as_str(), 413),
    ];
    for (request, wanted) in cases {
        let mut client = Client::connect(running.address)?;
        // What follows must never be taken for a request of its own.
        client.send(&[request.as_bytes(), &get("/")].concat())?;
        let answer = client.receive(false)?;
        expect(request, &(answer.status, answer.closes), &(wanted, true))?;
        client.expect_close()?;
    }
    Ok(())
}

fn refuse_long_head(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let answer = client.ask(request.as_bytes())?;
    expect("status", &(answer.status, answer.closes), &(431, true))?;
    client.expect_close()?;
    expect_served(&running).map(drop)
}
