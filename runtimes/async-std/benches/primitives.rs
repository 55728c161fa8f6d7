//! Benchmarks of async-std's primitives: spawn, yield, a wake from another thread, and the lateness of a 1 ms timer.

#[path = "../../primitives.rs"]
mod primitives;

use async_std::channel::unbounded;
use async_std::task::{block_on, sleep, spawn, yield_now};
use criterion::{Criterion, criterion_group, criterion_main};
use primitives::{late, timed};
use std::sync::mpsc;
use std::time::Duration;

fn measure_all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("async-std");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("spawn and join", |bencher| {
        bencher.iter_custom(|count| block_on(spawn(timed(count, || spawn(async {})))))
    });
    group.bench_function("yield", |bencher| bencher.iter_custom(|count| block_on(spawn(timed(count, yield_now)))));
    group.bench_function("lateness of a 1 ms timer", |bencher| bencher.iter_custom(|count| block_on(spawn(late(count, sleep)))));
    let (ask, asked) = unbounded::<()>();
    let (answer, answers) = mpsc::channel();
    spawn(async move { while asked.recv().await.is_ok() && answer.send(()).is_ok() {} });
    group.bench_function("wake from another thread and answer", |bencher| {
        bencher.iter(|| (ask.try_send(()).is_ok(), answers.recv()))
    });
    group.finish();
}

criterion_group!(benches, measure_all);
criterion_main!(benches);
