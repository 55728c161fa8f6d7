//! Slow, silent and greedy clients, and what a server owes the others meanwhile.

use super::life::{wait_until_taken, with_listener};
use super::{Check, LENGTHS_MS, POST, SOON, expect, expect_page, expect_served, limited, slow, start, until};
use crate::catalog::Server;
use crate::http::{Client, get, is_reset};
use crate::process::Running;
use crate::process::deploy::package;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

pub const CHECKS: &[Check] = &[
    ("request-timeout", request_timeout),
    ("idle-timeout", idle_timeout),
    ("greedy", greedy),
    ("late-server", late_server),
    ("readers", readers),
    ("turns", turns),
    ("bodies", bodies),
    ("panic", panic),
    ("largest-times", largest_times),
    ("closed-outputs", closed_outputs),
    ("out-of-descriptors", out_of_descriptors),
    ("drain-queue", drain_queue),
    ("drain-late", drain_late),
    ("drain-upload", drain_upload),
];

/// The pace of a slow client: what is tested is how a server bears it.
const PAUSE: Duration = Duration::from_millis(50);

/// A body that arrives byte by byte does not live for ever.
fn request_timeout(server: &Server) -> Result<()> {
    let running = start(server, &["--request-timeout", "300ms"])?;
    let mut client = Client::connect(running.address)?;
    client.send(format!("{POST}Content-Length: 100000\r\n\r\n").as_bytes())?;
    for _ in 0..600 {
        // A cut shows as an error, once the client has heard of it.
        if client.send(b"1").is_err() || client.has_ended() {
            return expect_served(&running).map(drop);
        }
        thread::sleep(PAUSE);
    }
    bail!("the body goes on for ever")
}

/// A silent connection is closed; one whose request takes longer than that is not.
fn idle_timeout(server: &Server) -> Result<()> {
    let running = start(server, &["--idle-timeout", "300ms"])?;
    let (mut silent, mut used, mut busy) =
        (Client::connect(running.address)?, Client::connect(running.address)?, Client::connect(running.address)?);
    expect_page(&used.ask(&get("/"))?)?;
    busy.send(&get("/sleep?ms=1500"))?;
    silent.expect_close().context("a connection that never asked")?;
    used.expect_close().context("a connection that asked once")?;
    expect("status of a request that takes longer than the limit", &busy.receive(false)?.status, &200)
}

/// A client that keeps asking without reading answers is cut off like a silent one.
fn greedy(server: &Server) -> Result<()> {
    let running = start(server, &["--idle-timeout", "300ms"])?;
    let address = running.address;
    let clients = ["/", "/sleep?ms=0"].map(|path| (path, thread::spawn(move || ask_until_cut_off(address, path))));
    for (path, client) in clients {
        let cut_off = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        cut_off.with_context(|| format!("a client that asks for {path} without end and never reads"))?;
    }
    Ok(())
}

/// A server that has read this many bytes of requests whose answers nobody takes is going to read for ever: the sockets of both sides hold less.
const MOST_ASKED: usize = 64 * 1024 * 1024;

/// Asks without reading until the server ends the connection.
fn ask_until_cut_off(address: SocketAddr, path: &str) -> Result<()> {
    let mut client = Client::connect_with(address, SOON)?;
    let pipeline = get(path).repeat(1000);
    for _ in 0..MOST_ASKED / pipeline.len() {
        // Once the server reads no more, this waits until it ends the connection.
        match client.send(&pipeline) {
            Ok(()) => crate::console::interrupt::check()?,
            Err(error) if is_reset(&error) => return Ok(()),
            Err(error) => return Err(error.context("stays open")),
        }
    }
    bail!("the server goes on reading")
}

/// A client is not cut off for bytes that the server has not read because it was blocked.
fn late_server(server: &Server) -> Result<()> {
    for length_ms in LENGTHS_MS {
        if late_by(server, Duration::from_millis(length_ms.into()))? {
            return Ok(());
        }
    }
    bail!("this machine stood still for too long to tell")
}

/// Blocks a server for twice a time limit. Returns `false` if the clients themselves were too late, on a busy machine.
fn late_by(server: &Server, limit: Duration) -> Result<bool> {
    let limits =
        ["--header-timeout", "--request-timeout", "--idle-timeout"].map(|name| [name.into(), format!("{}ms", limit.as_millis())]);
    let running = start(server, &limits.as_flattened().iter().map(String::as_str).collect::<Vec<_>>())?;
    // One loop does all of the work before it answers.
    let connect =
        |count: u32| (0..count).map(|_| Client::connect_with(running.address, SOON + limit * 8)).collect::<Result<Vec<_>>>();
    let mut clients = connect(8)?;
    let body = "[1, 2]";
    let (head, rest) = (format!("{POST}Content-Length: {}\r\n\r\n[", body.len()), &body[1..]);
    let begin = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(if number % 2 == 0 { b"GET / HT" } else { head.as_bytes() })?;
    }
    // The clock of what was read has begun.
    wait_until_taken(&running, &clients)?;
    // More of them than any server here has threads for.
    let mut blockers = connect(4)?;
    let work = get(&format!("/timer?ms={}", (limit * 2).as_millis()));
    blockers.iter_mut().try_for_each(|client| client.send(&work))?;
    for (number, client) in clients.iter_mut().enumerate() {
        // One that was cut off shows below.
        let _ = client.send(if number % 2 == 0 { b"TP/1.1\r\nHost: a\r\n\r\n" } else { rest.as_bytes() });
    }
    if begin.elapsed() > limit {
        return Ok(false);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let what = if number % 2 == 0 { "a head" } else { "a body" };
        let answer = client.receive(false).with_context(|| format!("{what} that was there while the server was blocked"))?;
        expect(what, &answer.status, &200)?;
    }
    blockers.iter_mut().try_for_each(|client| expect("a blocker", &client.receive(false)?.status, &200))?;
    Ok(true)
}

/// Clients that ask and never read keep nobody from being served; one that reads slowly gets all of its answers.
fn readers(server: &Server) -> Result<()> {
    const REQUESTS: usize = 1200;
    let running = start(server, &["--idle-timeout", "1s"])?;
    let pipeline = get("/").repeat(20_000);
    // Each on a thread of its own, since the server stops to read from it.
    for _ in 0..4 {
        let (mut greedy, pipeline) = (Client::connect(running.address)?, pipeline.clone());
        thread::spawn(move || greedy.send(&pipeline));
    }
    let last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".as_slice();
    let mut slow = Client::connect(running.address)?;
    slow.send(&[&get("/").repeat(REQUESTS - 1), last].concat())?;
    for number in 0..REQUESTS {
        if number % 40 == 0 {
            thread::sleep(PAUSE);
            expect_served(&running).context("beside clients that do not read")?;
        }
        expect_page(&slow.receive(false).with_context(|| format!("answer {number} of {REQUESTS} to a slow reader"))?)?;
    }
    slow.expect_close()
}

/// Clients that ask without a pause, and take their answers as fast, let others have theirs.
fn turns(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let pipeline = get("/").repeat(2000);
    // Some for each loop.
    let streams: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(running.address)).collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        for stream in &streams {
            let (pipeline, mut asking, mut taking) = (&pipeline, stream, stream);
            // Each ends with its connection.
            scope.spawn(move || while asking.write_all(pipeline).is_ok() {});
            scope.spawn(move || while taking.read(&mut [0; 64 * 1024]).is_ok_and(|count| count > 0) {});
        }
        let outcome = (0..20).try_for_each(|_| expect_served(&running).map(drop));
        for stream in &streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        outcome.context("beside clients that ask without a pause")
    })
}

/// The bodies of all connections together have a bound: beyond it the answer is 503, and below it all is as before.
fn bodies(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let length = common::http::MAX_BODY;
    let most = common::MAX_BODIES / length;
    let whole = [format!("{POST}Content-Length: {length}\r\n\r\n").as_bytes(), &vec![b' '; length - 1]].concat();
    // Two processes may share them.
    let mut clients = Vec::new();
    for _ in 0..2 * most + 8 {
        let mut client = Client::connect(running.address)?;
        // One that is refused is cut off in the middle.
        let _ = client.send(&whole);
        clients.push(client);
    }
    wait_until_taken(&running, &clients)?;
    let mut statuses = Vec::new();
    for mut client in clients {
        let _ = client.send(b"1");
        statuses.push(client.receive(false).map_or(0, |answer| answer.status));
    }
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    if count(503) == 0 || count(200) == 0 || count(200) + count(503) < statuses.len() {
        bail!("{} bodies at a time: {} x 200, {} x 503, of {}", 2 * most + 8, count(200), count(503), statuses.len());
    }
    expect_served(&running).map(drop)
}

/// A handler that panics fails its own request only.
fn panic(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let mut client = Client::connect(running.address)?;
    for _ in 0..5 {
        expect("status", &client.ask(&get("/panic"))?.status, &500)?;
        expect_page(&client.ask(&get("/"))?)?;
    }
    expect_served(&running).map(drop)
}

/// Times that no clock holds are refused like any other wrong argument.
fn largest_times(server: &Server) -> Result<()> {
    for name in ["--drain", "--drain-idle", "--max-block", "--header-timeout", "--idle-timeout", "--request-timeout"] {
        let more = [name.to_string(), "9999999999h".to_string()];
        let output = package::command(server, 2, &more).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(name, &(output.status.code(), text.contains(&name[2..])), &(Some(2), true))?;
    }
    Ok(())
}

/// A server whose outputs nobody reads serves and ends as any other.
fn closed_outputs(server: &Server) -> Result<()> {
    // The address is known before, since nobody reads the line that says it.
    let (command, address) = with_listener(server, &["--drain".into(), "300ms".into()])?;
    let mut running = Running::spawn_unheard(command, address)?;
    let mut client = Client::connect(address)?;
    expect_page(&client.ask(&get("/"))?)?;
    expect("status of a panic", &client.ask(&get("/panic"))?.status, &500)?;
    // A server that ends because of its output has ended by then.
    expect("status after the panic", &client.ask(&get("/sleep?ms=500"))?.status, &200)?;
    // Cut off at the end of the drain, which the server says to nobody.
    client.send(&get("/sleep?ms=30000"))?;
    running.signal(Signal::SIGTERM)?;
    running.wait(SOON).map(drop)
}

/// A server that has no descriptor left answers or turns away all that come, and serves again as soon as clients have gone. Other libraries let them wait.
fn out_of_descriptors(server: &Server) -> Result<()> {
    let mut running = limited(server, 64)?;
    for _ in 0..8 {
        let mut clients = Vec::new();
        for _ in 0..200 {
            // Some are turned away.
            clients.extend(Client::connect(running.address).and_then(|mut client| client.send(&get("/")).map(|()| client)));
        }
        if server.http == "common" {
            let hears = |client: &Client| client.has_more() || client.has_ended();
            until("every client is answered or turned away", || Ok(clients.iter().all(hears)))?;
        }
        drop(clients);
        // The server may turn away a few more until it has seen that they are gone.
        let is_served = (0..100).any(|_| {
            let served = expect_served(&running).is_ok();
            if !served {
                thread::sleep(PAUSE);
            }
            served
        });
        expect("whether it serves again", &is_served, &true)?;
    }
    running.signal(Signal::SIGTERM)?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

/// Connections that wait while the server is blocked are answered before it ends, also if that takes longer than idle ones stay open.
fn drain_queue(server: &Server) -> Result<()> {
    drained_queue(server, &[])?;
    let has_parent = !server.is_one_process && !server.unsupported.contains_key("round-robin");
    let round_robin = || drained_queue(server, &["--processes", "2", "--dispatch", "round-robin"]);
    if has_parent { round_robin().context("--dispatch round-robin") } else { Ok(()) }
}

fn drained_queue(server: &Server, more: &[&str]) -> Result<()> {
    let mut running = start(server, &[&["--drain-idle", "100ms"], more].concat())?;
    let mut blockers: Vec<Client> = (0..4).map(|_| Client::connect(running.address)).collect::<Result<_>>()?;
    for blocker in &mut blockers {
        blocker.send(&get("/timer?ms=500"))?;
    }
    wait_until_taken(&running, &blockers[..1])?;
    let mut waiting: Vec<Client> = (0..8).map(|_| Client::connect(running.address)).collect::<Result<_>>()?;
    waiting.iter_mut().try_for_each(|client| client.send(&get("/")))?;
    running.signal(Signal::SIGTERM)?;
    for client in &mut waiting {
        expect_page(&client.receive(false).context("a connection that waited when the signal came")?)?;
    }
    blockers.iter_mut().try_for_each(|client| expect("a blocker", &client.receive(false)?.status, &200))?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

/// Connections to a blocked server that come when it is told to end are answered or refused, also if their requests take longer than all before.
fn drain_late(server: &Server) -> Result<()> {
    let mut running = start(server, &[])?;
    // The parent of workers is not blocked, and whom it is given while it closes its listener is reset.
    let is_alone = running.pids().len() == 1;
    let connect = || (0..8).map(|_| Client::connect(running.address)).collect::<Result<Vec<_>>>();
    let (mut blockers, mut waiting) = (connect()?, connect()?);
    blockers.truncate(4);
    blockers.iter_mut().try_for_each(|client| client.send(&get("/timer?ms=500")))?;
    // One for each thread.
    wait_until_taken(&running, &blockers[..2])?;
    waiting.iter_mut().try_for_each(|client| client.send(&get("/")))?;
    running.signal(Signal::SIGTERM)?;
    let mut late: Vec<Client> = (0..8).filter_map(|_| Client::connect(running.address).ok()).collect();
    // A server that is not blocked may have closed its listener meanwhile, and have been given some of them just then.
    if !is_alone || waiting.iter().any(Client::has_more) {
        return Ok(());
    }
    // The last to come are those that the library does not accept.
    late.iter_mut().zip(1..).try_for_each(|(client, number)| client.send(&slow(60 * number)))?;
    for client in &mut late {
        let answer = client.receive(false).context("a connection that was accepted behind the signal")?;
        expect("status of a connection that came behind the signal", &answer.status, &200)?;
    }
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

/// An upload that is under way is answered, though it takes longer than idle connections stay open.
fn drain_upload(server: &Server) -> Result<()> {
    let mut running = start(server, &["--drain-idle", "100ms"])?;
    let mut client = Client::connect(running.address)?;
    client.send(format!("{POST}Content-Length: 6\r\n\r\n[1").as_bytes())?;
    wait_until_taken(&running, std::slice::from_ref(&client))?;
    let mut idle = Client::connect(running.address)?;
    expect_page(&idle.ask(&get("/"))?)?;
    running.signal(Signal::SIGTERM)?;
    // Idle connections are closed now.
    idle.expect_close()?;
    client.send(b", 2]")?;
    let answer = client.receive(false)?;
    expect("status, and whether it says that it closes", &(answer.status, answer.closes), &(200, true))?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}
