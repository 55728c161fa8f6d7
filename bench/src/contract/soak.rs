//! A bad day: slow, silent, greedy and rude clients all at once, on a server with few descriptors, while others ask for the page.

use super::{Check, POST, expect_served, limited};
use crate::catalog::Server;
use crate::console::interrupt;
use crate::http::{Client, Response, get};
use crate::process::Running;
use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const CHECKS: &[Check] = &[("soak", briefly)];

/// Descriptors of a server.
const DESCRIPTORS: u32 = 256;
/// Connections of one flood: more than the server has descriptors.
const FLOOD: usize = 300;
/// Clients that ask and never read, to see what that costs.
const READERS: usize = 100;
/// Clients that ask for the page, and the pace of each: 500 requests per second.
const PROBERS: usize = 5;
const PACE: Duration = Duration::from_millis(10);
/// Between two bytes of a slow client.
const SLOWLY: Duration = Duration::from_millis(20);
/// A server without descriptors may let a client wait for so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a server may take to serve again, to close what its clients left, and to have a killed worker replaced.
const RECOVERY: Duration = Duration::from_secs(1);
const CLEANUP: Duration = Duration::from_secs(10);
/// What an allocator may keep, more or less by chance, of threads that have ended: 256 KiB of each, where every connection has one.
const MOST_GROWTH: u64 = (256 << 10) * DESCRIPTORS as u64;

/// What one client does, and how it went.
type Behaviour = fn(SocketAddr, &Tally) -> Result<()>;

/// The kinds of clients, each tried again and again by so many threads.
const CLIENTS: [(usize, Behaviour); 7] =
    [(4, slow_head), (4, slow_body), (2, slow_reader), (2, greedy), (2, reset), (2, half_close), (1, flood)];

/// What a server did.
#[derive(Debug)]
pub struct Soaked {
    /// Requests that were answered as they must be.
    pub answered: u64,
    /// Requests whose connection was closed or timed out instead: the server was out of descriptors, or a worker was killed.
    pub closed: u64,
    /// Answers that were wrong.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
    /// Workers that were killed.
    pub killed: usize,
    /// From the end of the load to the first answer.
    pub recovery: Duration,
    /// Descriptors before the load, and after it.
    pub descriptors: (usize, usize),
    /// Resident bytes after the first third of the load, and after all of it.
    pub memory: (u64, u64),
    /// Resident bytes that a client takes which asks and never reads.
    pub unread: u64,
}

impl Soaked {
    /// Whether it took too long to serve again: of use only where nothing else runs on the machine.
    pub fn was_late(&self) -> Option<String> {
        let recovery = self.recovery;
        (recovery > RECOVERY).then(|| format!("/ was answered {:.1} s after the load", recovery.as_secs_f64()))
    }

    /// What is not as it must be, on a busy machine too.
    pub fn fault(&self) -> Option<String> {
        if self.wrong > 0 {
            return Some(format!("{} wrong answers, the first: {}", self.wrong, self.first_wrong.as_deref().unwrap_or_default()));
        }
        if self.answered == 0 {
            return Some("no request was answered".into());
        }
        if self.descriptors.1 > self.descriptors.0 {
            return Some(format!("{} descriptors before, {} after", self.descriptors.0, self.descriptors.1));
        }
        let (before, after) = self.memory;
        (after > before + MOST_GROWTH)
            .then(|| format!("{} MiB after a third of the load, {} MiB after it", before >> 20, after >> 20))
    }
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    closed: AtomicU64,
    wrong: AtomicU64,
    first_wrong: Mutex<Option<String>>,
}

impl Tally {
    /// Counts what became of a request. 503 is an honest answer of a server that has no room for another body.
    fn count(&self, what: &str, answer: Result<Response>, is_right: impl Fn(&Response) -> bool) -> Result<()> {
        match answer {
            Ok(answer) if is_right(&answer) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
            Ok(answer) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                let words = format!("{what}: {} {:?}", answer.status, String::from_utf8_lossy(&answer.body));
                self.first_wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(words);
            }
            Err(error) => {
                self.closed.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }
}

fn briefly(server: &Server) -> Result<()> {
    soak(server, Duration::from_secs(2))?.fault().map_or(Ok(()), |fault| bail!(fault))
}

/// Lets all kinds of clients at a server for so long.
///
/// # Errors
/// It cannot be started, or does not serve within ten seconds after the load.
pub fn soak(server: &Server, length: Duration) -> Result<Soaked> {
    let running = limited(server, DESCRIPTORS)?;
    expect_served(&running)?;
    let can_lose_workers = !server.is_one_process && !server.unsupported.contains_key("processes");
    let tally = Tally::default();
    let descriptors = descriptors(&running);
    let processes = running.pids().len();
    let mut killed = 0;
    let mut phase = |length| -> Result<(Duration, usize, u64)> {
        killed += load(&running, &tally, length, can_lose_workers);
        interrupt::check()?;
        let recovery = serves_again(&running)?;
        let after = settled(&running, descriptors, processes);
        Ok((recovery, after, running.memory().rss))
    };
    let (first, _, memory) = phase(length / 3)?;
    let (second, after, memory_after) = phase(length - length / 3)?;
    Ok(Soaked {
        answered: tally.answered.into_inner(),
        closed: tally.closed.into_inner(),
        wrong: tally.wrong.into_inner(),
        first_wrong: tally.first_wrong.into_inner().unwrap_or_default(),
        killed,
        recovery: first.max(second),
        descriptors: (descriptors, after),
        memory: (memory, memory_after),
        unread: held_for_readers(&running)?,
    })
}

/// All clients at once; half-way a worker is killed, if there are workers. Returns how many were.
fn load(running: &Running, tally: &Tally, length: Duration, can_lose_workers: bool) -> usize {
    let (address, begin) = (running.address, Instant::now());
    let goes_on = || begin.elapsed() < length && !interrupt::is_requested();
    thread::scope(|scope| {
        for (count, client) in CLIENTS {
            for _ in 0..count {
                scope.spawn(move || {
                    while goes_on() {
                        // What became of it is counted; a refused connection is not.
                        if client(address, tally).is_err() {
                            thread::sleep(PACE);
                        }
                    }
                });
            }
        }
        for _ in 0..PROBERS {
            scope.spawn(move || probe(address, tally, goes_on));
        }
        let worker = running.pids().get(1).copied().filter(|_| can_lose_workers);
        thread::sleep(length / 2);
        worker.map_or(0, |worker| usize::from(kill(worker, Signal::SIGKILL).is_ok()))
    })
}

/// The memory that the server holds for each of many clients that ask without reading, once it reads no more from them.
fn held_for_readers(running: &Running) -> Result<u64> {
    let before = running.memory().rss;
    let pipeline = get("/").repeat(1000);
    let mut clients =
        (0..READERS).map(|_| TcpStream::connect_timeout(&running.address, PATIENCE)).collect::<Result<Vec<_>, _>>()?;
    clients.iter().try_for_each(|client| client.set_nonblocking(true))?;
    let mut idle = 0;
    while idle < 10 {
        interrupt::check()?;
        // A client that the server has closed does not count on.
        let sent = clients.iter_mut().map(|client| client.write(&pipeline).unwrap_or(0)).sum::<usize>();
        idle = if sent > 0 { 0 } else { idle + 1 };
        // Nothing tells when the server has stopped to read.
        thread::sleep(SLOWLY);
    }
    Ok(running.memory().rss.saturating_sub(before) / READERS as u64)
}

/// From the end of the load to the first answer.
fn serves_again(running: &Running) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        match expect_served(running) {
            Ok(_) => return Ok(begin.elapsed()),
            Err(error) if begin.elapsed() > CLEANUP => return Err(error.context("does not serve after the load")),
            Err(_) => interrupt::check()?,
        }
    }
}

/// The descriptors once it has closed what its clients left, and has its workers again.
fn settled(running: &Running, before: usize, processes: usize) -> usize {
    let begin = Instant::now();
    loop {
        let now = descriptors(running);
        if now <= before && running.pids().len() >= processes || begin.elapsed() > CLEANUP || interrupt::is_requested() {
            return now;
        }
        // Nothing tells when a process closes a descriptor.
        thread::sleep(PACE);
    }
}

fn descriptors(running: &Running) -> usize {
    let of = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    running.pids().into_iter().map(of).sum()
}

fn is_page(answer: &Response) -> bool {
    answer.status == 200 && answer.body == common::routes::PAGE.as_bytes()
}

/// Asks for the page at a steady pace, on a connection that is kept while it lasts.
fn probe(address: SocketAddr, tally: &Tally, goes_on: impl Fn() -> bool) {
    let mut kept: Option<Client> = None;
    let mut due = Instant::now();
    while goes_on() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += PACE;
        let client = kept.take().map_or_else(|| Client::connect_with(address, PATIENCE), Ok);
        let Ok(mut client) = client else { continue };
        let answer = client.ask(&get("/"));
        let stays = answer.as_ref().is_ok_and(|answer| !answer.closes);
        if tally.count("a probe", answer, is_page).is_ok() && stays {
            kept = Some(client);
        }
    }
}

fn slow_head(address: SocketAddr, tally: &Tally) -> Result<()> {
    let mut client = Client::connect_with(address, PATIENCE)?;
    trickle(&mut client, &get("/"))?;
    tally.count("a slow head", client.receive(false), is_page)
}

fn slow_body(address: SocketAddr, tally: &Tally) -> Result<()> {
    let body = b"[1, 2, 3, 4, 5, 6, 7, 8]";
    let mut client = Client::connect_with(address, PATIENCE)?;
    client.send(format!("{POST}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
    trickle(&mut client, body)?;
    tally.count("a slow body", client.receive(false), |answer| [200, 503].contains(&answer.status))
}

fn trickle(client: &mut Client, bytes: &[u8]) -> Result<()> {
    bytes.iter().try_for_each(|byte| {
        thread::sleep(SLOWLY);
        client.send(&[*byte])
    })
}

/// Asks for much and reads it little by little.
fn slow_reader(address: SocketAddr, tally: &Tally) -> Result<()> {
    const REQUESTS: usize = 50;
    let mut client = Client::connect_with(address, PATIENCE)?;
    client.send(&get("/").repeat(REQUESTS))?;
    for _ in 0..REQUESTS {
        thread::sleep(SLOWLY / 4);
        tally.count("a slow reader", client.receive(false), is_page)?;
    }
    Ok(())
}

/// Asks for more than the sockets hold, reads nothing, and leaves.
fn greedy(address: SocketAddr, _: &Tally) -> Result<()> {
    let mut client = Client::connect_with(address, SLOWLY * 10)?;
    client.send(&get("/").repeat(20_000))
}

/// Asks, or begins to, and resets the connection.
fn reset(address: SocketAddr, _: &Tally) -> Result<()> {
    for length in [0, 10, get("/").len()] {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger)?;
        stream.write_all(&get("/")[..length])?;
    }
    thread::sleep(PACE);
    Ok(())
}

fn half_close(address: SocketAddr, tally: &Tally) -> Result<()> {
    let mut client = Client::connect_with(address, PATIENCE)?;
    client.send(&get("/"))?;
    client.end()?;
    let answer = client.receive(false);
    thread::sleep(PACE);
    tally.count("a half-closed connection", answer, is_page)
}

/// Many connections at once, each with a request, which stay for a moment.
fn flood(address: SocketAddr, tally: &Tally) -> Result<()> {
    let open = || Client::connect_with(address, SLOWLY * 10).and_then(|mut client| client.send(&get("/")).map(|()| client));
    let clients: Vec<Client> = (0..FLOOD).filter_map(|_| open().ok()).collect();
    let asked = Instant::now();
    for mut client in clients {
        // One that the server had no descriptor for is closed; those that still wait after a while are given up.
        if asked.elapsed() < RECOVERY {
            let _ = tally.count("a flood", client.receive(false), is_page);
        }
    }
    thread::sleep(SLOWLY * 20);
    Ok(())
}
