//! Benchmarks of may's primitives: spawn, yield, a wake from another thread, and the lateness of a 1 ms timer.

use criterion::{Criterion, criterion_group, criterion_main};
use may::coroutine::{JoinHandle, sleep, yield_now};
use may::go;
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn primitives(criterion: &mut Criterion) {
    may::config().set_workers(2).set_stack_size(256 * 1024 / size_of::<usize>()).set_worker_pin(false);
    let mut group = criterion.benchmark_group("may");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let in_coroutine = |count: u64, step: fn(u64) -> Duration| -> Duration {
        let task: JoinHandle<Duration> = go!(move || step(count));
        task.join().expect("the coroutine ends")
    };
    group.bench_function("spawn and join", |bencher| bencher.iter_custom(|count| in_coroutine(count, spawns)));
    group.bench_function("yield", |bencher| bencher.iter_custom(|count| in_coroutine(count, yields)));
    group.bench_function("lateness of a 1 ms timer", |bencher| bencher.iter_custom(|count| in_coroutine(count, late)));
    let (ask, asked) = may::sync::mpsc::channel::<()>();
    let (answer, answers) = mpsc::channel();
    let _echo: JoinHandle<()> = go!(move || while asked.recv().is_ok() && answer.send(()).is_ok() {});
    group
        .bench_function("wake from another thread and answer", |bencher| bencher.iter(|| (ask.send(()).is_ok(), answers.recv())));
    group.finish();
}

fn spawns(count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let task: JoinHandle<()> = go!(|| {});
        task.join().expect("the coroutine ends");
    }
    start.elapsed()
}

fn yields(count: u64) -> Duration {
    let start = Instant::now();
    (0..count).for_each(|_| yield_now());
    start.elapsed()
}

fn late(count: u64) -> Duration {
    let mut late = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        sleep(Duration::from_millis(1));
        late += start.elapsed().saturating_sub(Duration::from_millis(1));
    }
    late
}

criterion_group!(benches, primitives);
criterion_main!(benches);
