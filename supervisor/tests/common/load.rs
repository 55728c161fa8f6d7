//! A load of requests, and what became of each.

use super::until;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Requests `/`; returns whether the connection can be reused.
pub fn ask(stream: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    ask_for("/", stream)
}

/// Requests a path.
pub fn ask_for(path: &str, stream: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let (mut length, mut is_kept, mut status) = (0, true, String::new());
    stream.read_line(&mut status)?;
    if !status.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(format!("answered {status:?}")));
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
        is_kept &= line != "connection: close";
    }
    stream.read_exact(&mut vec![0; length])?;
    Ok(is_kept)
}

pub fn connect(address: &str) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(BufReader::new(stream))
}

/// A load of requests on kept-alive and fresh connections, until it is stopped.
pub struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Load {
    pub fn start(address: &str) -> Self {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (is_over, answered, address) = (is_over.clone(), answered.clone(), address.to_owned());
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    let mut kept = None;
                    while !is_over.load(Ordering::Relaxed) {
                        let stream = kept.take().map_or_else(|| connect(&address), Ok);
                        match stream.and_then(|mut stream| ask(&mut stream).map(|is_kept| (stream, is_kept))) {
                            Ok((stream, is_kept)) => {
                                answered.fetch_add(1, Ordering::Relaxed);
                                // Two of the threads open a connection for each request.
                                kept = (is_kept && number % 2 == 0).then_some(stream);
                            }
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Load { is_over, threads, answered }
    }

    /// Returns all failures, and the number of answered requests.
    pub fn stop(mut self) -> (Vec<String>, usize) {
        self.is_over.store(true, Ordering::Relaxed);
        let failures = std::mem::take(&mut self.threads).into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (failures, self.answered.load(Ordering::Relaxed))
    }

    pub fn answers_more(&self) {
        let now = self.answered.load(Ordering::Relaxed);
        until("more answers", || self.answered.load(Ordering::Relaxed) > now + 20);
    }
}
