//! Benchmarks of monoio's primitives: spawn, yield, a wake from another thread, and the lateness of a 1 ms timer.

#[path = "../../primitives.rs"]
mod primitives;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_lite::future::yield_now;
use monoio::time::{TimeDriver, sleep};
use monoio::{IoUringDriver, RuntimeBuilder};
use primitives::{late, timed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn measure_all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("monoio");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("spawn and join", |bencher| {
        bencher.iter_custom(|count| event_loop().block_on(timed(count, || monoio::spawn(async {}))))
    });
    group.bench_function("yield", |bencher| bencher.iter_custom(|count| event_loop().block_on(timed(count, yield_now))));
    group.bench_function("lateness of a 1 ms timer", |bencher| {
        bencher.iter_custom(|count| event_loop().block_on(late(count, sleep)))
    });
    let (ask, asked) = async_channel::unbounded::<()>();
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || event_loop().block_on(async move { while asked.recv().await.is_ok() && answer.send(()).is_ok() {} }));
    group.bench_function("wake from another thread and answer", |bencher| {
        bencher.iter(|| (ask.try_send(()).is_ok(), answers.recv()))
    });
    group.finish();
}

fn event_loop() -> monoio::Runtime<TimeDriver<IoUringDriver>> {
    RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().expect("io_uring")
}

criterion_group!(benches, measure_all);
criterion_main!(benches);
