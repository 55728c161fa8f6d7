//! Benchmarks of plain threads: spawn, yield, a wake from another thread, and the lateness of a 1 ms sleep.

use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

fn primitives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("std");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("spawn and join", |bencher| bencher.iter(|| thread::spawn(|| {}).join()));
    group.bench_function("yield", |bencher| bencher.iter(thread::yield_now));
    group.bench_function("lateness of a 1 ms timer", |bencher| bencher.iter_custom(late));
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || while asked.recv().is_ok() && answer.send(()).is_ok() {});
    group
        .bench_function("wake from another thread and answer", |bencher| bencher.iter(|| (ask.send(()).is_ok(), answers.recv())));
    group.finish();
}

fn late(count: u64) -> Duration {
    let mut late = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        thread::sleep(Duration::from_millis(1));
        late += start.elapsed().saturating_sub(Duration::from_millis(1));
    }
    late
}

criterion_group!(benches, primitives);
criterion_main!(benches);
