//! What the lab keeps running is left alone, or nobody would see what a slow request does to the others.

use bench::stage::{Kept, Placement, build, find, servers};
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn a_process_that_one_request_holds_up_for_long_is_not_replaced() {
    let server = find(&servers().unwrap(), "tokio-current-thread").unwrap();
    build(std::slice::from_ref(&server)).unwrap();
    let mut kept = Kept::start(&server, 2, 1, Placement::default_here()).unwrap();
    let before = kept.workers().unwrap();
    let mut stream = TcpStream::connect(kept.address()).unwrap();
    // Twice as long as a cluster that heals itself would wait.
    stream.write_all(b"GET /timer?ms=2000 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(kept.workers().unwrap(), before);
    kept.end();
}
