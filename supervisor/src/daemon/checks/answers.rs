//! Whether processes answer a request.
//!
//! Processes that share an address cannot be asked one by one: the kernel chooses who accepts a connection. So it is looked up who has.

use crate::channel::Key;
use crate::core::{Checks, Purpose};
use crate::proc::{self, Groups, sockets};
use crate::spec::Target;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Requests for each process: with fewer, one of several might often get none.
const EACH: usize = 4;
/// Most requests at once.
const MOST: usize = 64;
/// Longest head of an answer, in bytes.
const LONGEST: usize = 16 * 1024;
/// How long a connection is waited for to be accepted before the request is sent, and the pause between two looks.
const ACCEPTANCE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(2);

/// An answer, or why there is none.
struct Answer {
    result: Result<(), String>,
    holder: Holder,
}

/// Who has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Nobody has accepted it.
    Nobody,
    One(Key),
    /// None of the processes that are asked.
    Other,
}

/// Asks the processes; returns each that has answered or failed, with the reason if it has failed. `sockets` are the inodes of the listeners that they share.
pub fn ask(checks: &Checks, address: &str, target: &Target, sockets: &[u64]) -> Vec<(Key, Option<String>)> {
    let Ok(address) = address.parse::<SocketAddr>().map(reachable) else { return Vec::new() };
    let is_shared = checks.is_shared;
    let count = if is_shared { (EACH * checks.processes.len()).min(MOST) } else { 1 };
    let groups = Groups::read();
    let holds = |leader: i32, socket: &str| groups.members(leader).iter().any(|pid| proc::holds(*pid, socket));
    let holder = |socket: u64| {
        let socket = format!("socket:[{socket}]");
        let one = checks.processes.iter().find(|(_, process)| holds(process.pid, &socket));
        one.map_or(Holder::Other, |(key, _)| Holder::One(*key))
    };
    let one = || request(address, &target.path, checks.timeout, &holder);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let begin = |_| thread::Builder::new().name("check".into()).stack_size(super::STACK_SIZE).spawn_scoped(scope, one).ok();
        let threads: Vec<_> = (0..count).filter_map(begin).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let judged = checks.processes.iter().filter_map(|(key, process)| {
        // A connection that nobody has accepted speaks against all of them.
        let is_its = |answer: &&Answer| !is_shared || [Holder::One(*key), Holder::Nobody].contains(&answer.holder);
        let own: Vec<&Result<(), String>> = answers.iter().filter(is_its).map(|answer| &answer.result).collect();
        let failed = own.iter().find_map(|result| result.as_ref().err().cloned());
        match checks.purpose {
            Purpose::Readiness if own.iter().any(|result| result.is_ok()) => Some((*key, None)),
            // Beside busy ones, it may get no connection for long. It counts that it waits for them, and has failed none.
            Purpose::Readiness => Some((*key, failed.or_else(|| super::listens::look(process.pid, sockets).err()))),
            // Nothing is known of one that got none this time.
            Purpose::Health => (!own.is_empty()).then_some((*key, failed)),
        }
    });
    judged.collect()
}

/// Returns where a listener on all interfaces is reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Sends a request, and reads the status of the answer.
fn request(address: SocketAddr, path: &str, timeout: Duration, holder: &dyn Fn(u64) -> Holder) -> Answer {
    let until = Instant::now() + timeout;
    let plain = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {}", humantime::format_duration(timeout)),
        _ => error.to_string(),
    };
    let mut stream = match TcpStream::connect_timeout(&address, timeout) {
        Ok(stream) => stream,
        Err(error) => return Answer { result: Err(plain(error)), holder: Holder::Nobody },
    };
    let Ok(own) = stream.local_addr() else {
        return Answer { result: Err("the connection is gone".into()), holder: Holder::Nobody };
    };
    let other_end = || sockets::other_end(address, own);
    // Before the request is sent, since a server that has answered may have closed its end. Some accept only once it has come.
    let begin = Instant::now();
    let mut socket = other_end();
    while socket.is_none() && begin.elapsed() < ACCEPTANCE.min(timeout) {
        thread::sleep(LOOK);
        socket = other_end();
    }
    let first = socket.map(holder);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: supervisor\r\n\r\n");
    let status = exchange(&mut stream, &head, until).map_err(plain);
    let holder = first.or_else(|| other_end().map(holder));
    let is_answered = status.is_ok();
    let result = status.and_then(|status| if status < 400 { Ok(()) } else { Err(format!("status {status}")) });
    // Whoever has answered has closed it.
    Answer { result, holder: holder.unwrap_or(if is_answered { Holder::Other } else { Holder::Nobody }) }
}

/// Returns the status of the answer to a request.
fn exchange(stream: &mut TcpStream, request: &str, until: Instant) -> std::io::Result<u16> {
    let left = || until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(ErrorKind::TimedOut);
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        // The status is known before the whole head is.
        let parsed = response.parse(&bytes);
        if let Some(status) = response.code {
            return Ok(status);
        }
        if parsed.is_err_and(|error| error != httparse::Error::TooManyHeaders) || bytes.len() > LONGEST {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "the answer is not HTTP"));
        }
        stream.set_read_timeout(Some(left()?))?;
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed without an answer")),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}
