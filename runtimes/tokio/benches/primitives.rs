//! Benchmarks of tokio's primitives: spawn, yield, a wake from another thread, and the lateness of a 1 ms timer.

#[path = "../../primitives.rs"]
mod primitives;

use criterion::{Criterion, criterion_group, criterion_main};
use primitives::{late, timed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

fn measure_all(criterion: &mut Criterion) {
    measure(criterion, "tokio current-thread", || Builder::new_current_thread().enable_all().build());
    measure(criterion, "tokio multi-thread", || Builder::new_multi_thread().worker_threads(2).enable_all().build());
}

fn measure(criterion: &mut Criterion, name: &str, build: impl Fn() -> std::io::Result<Runtime>) {
    let runtime = build().expect("a runtime");
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let on_runtime = |count: u64, step: fn(u64) -> tokio::task::JoinHandle<Duration>| {
        runtime.block_on(async { step(count).await.expect("the task ends") })
    };
    group.bench_function("spawn and join", |bencher| {
        bencher.iter_custom(|count| on_runtime(count, |n| tokio::spawn(timed(n, || tokio::spawn(async {})))))
    });
    group
        .bench_function("yield", |bencher| bencher.iter_custom(|count| on_runtime(count, |n| tokio::spawn(timed(n, yield_now)))));
    group.bench_function("lateness of a 1 ms timer", |bencher| {
        bencher.iter_custom(|count| on_runtime(count, |n| tokio::spawn(late(n, tokio::time::sleep))));
    });
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<()>();
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || runtime.block_on(async move { while asked.recv().await.is_some() && answer.send(()).is_ok() {} }));
    group
        .bench_function("wake from another thread and answer", |bencher| bencher.iter(|| (ask.send(()).is_ok(), answers.recv())));
    group.finish();
}

criterion_group!(benches, measure_all);
criterion_main!(benches);
