//! Benchmarks of smol's primitives: spawn, yield, a wake from another thread, and the lateness of a 1 ms timer.

#[path = "../../primitives.rs"]
mod primitives;

use criterion::{Criterion, criterion_group, criterion_main};
use primitives::{late, timed};
use smol::future::{pending, yield_now};
use smol::{Executor, Timer, block_on};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

static EXECUTOR: Executor<'static> = Executor::new();

fn measure_all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("smol");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    thread::spawn(|| block_on(EXECUTOR.run(pending::<()>())));
    group.bench_function("spawn and join", |bencher| {
        bencher.iter_custom(|count| block_on(EXECUTOR.spawn(timed(count, || EXECUTOR.spawn(async {})))))
    });
    group.bench_function("yield", |bencher| bencher.iter_custom(|count| block_on(EXECUTOR.spawn(timed(count, yield_now)))));
    group.bench_function("lateness of a 1 ms timer", |bencher| {
        bencher.iter_custom(|count| block_on(EXECUTOR.spawn(late(count, Timer::after))))
    });
    let (ask, asked) = smol::channel::unbounded::<()>();
    let (answer, answers) = mpsc::channel();
    EXECUTOR.spawn(async move { while asked.recv().await.is_ok() && answer.send(()).is_ok() {} }).detach();
    group.bench_function("wake from another thread and answer", |bencher| {
        bencher.iter(|| (ask.try_send(()).is_ok(), answers.recv()))
    });
    group.finish();
}

criterion_group!(benches, measure_all);
criterion_main!(benches);
