//! The cost of HTTP itself, without any I/O: parse, route and answer a plain GET.

use common::http::answer::{Form, encode};
use common::http::{Answer, parse_head};
use common::routes::{Outcome, Request, handle};
use common::{Connection, Service, Step};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::os::unix::net::UnixStream;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: stallbench\r\n\r\n";
const BROWSER: &[u8] = b"GET /timer?ms=9000 HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n\r\n";

/// Feeds `bytes` to the connection and discards its answers until it waits for more.
fn serve(connection: &mut Connection, bytes: &[u8]) {
    let mut left = bytes;
    loop {
        match connection.step() {
            Step::Read if left.is_empty() => return,
            Step::Read => {
                let space = connection.space();
                space[..left.len()].copy_from_slice(left);
                connection.received(left.len());
                left = &[];
            }
            Step::Write => {
                let count = black_box(connection.unsent()).len();
                connection.sent(count);
            }
            Step::Yield => {}
            step => panic!("a plain GET does not need {step:?}"),
        }
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.bench_function("parse GET", |bencher| bencher.iter(|| parse_head(black_box(GET))));
    group.bench_function("parse a browser's GET", |bencher| bencher.iter(|| parse_head(black_box(BROWSER))));
    let (mut out, page) = (Vec::new(), Answer::text(common::routes::PAGE));
    group.bench_function("write the page", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(&mut out, black_box(&page), Form { without_body: false, connection: None });
        });
    });

    let context = Service::for_tests().context();
    group.bench_function("parse, route and write", |bencher| {
        bencher.iter(|| {
            out.clear();
            let Ok(Some(head)) = parse_head(black_box(GET)) else { panic!("a plain GET is complete") };
            let Outcome::Instant(answer) =
                handle(context, Request { method: head.method, target: head.target, ..Request::default() })
            else {
                panic!("the page is instant")
            };
            encode(&mut out, &answer, Form { without_body: false, connection: None });
        });
    });
    let (socket, _peer) = UnixStream::pair().expect("a pair of sockets");
    let mut connection = Service::for_tests().connection(&socket);
    group.bench_function("GET through a connection", |bencher| {
        bencher.iter(|| {
            serve(&mut connection, GET);
            connection.rest();
        });
    });
    let pipeline = GET.repeat(16);
    group.throughput(Throughput::Elements(16));
    group.bench_function("16 GETs through a connection", |bencher| {
        bencher.iter(|| {
            serve(&mut connection, &pipeline);
            connection.rest();
        });
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
