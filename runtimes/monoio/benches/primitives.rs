//! What monoio's primitives take: spawn, yield, a wake from another thread, and how late a timer of 1 ms is.

use criterion::{Criterion, criterion_group, criterion_main};
use futures_lite::future::yield_now;
use monoio::time::{TimeDriver, sleep};
use monoio::{IoUringDriver, RuntimeBuilder};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

fn primitives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("monoio");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("spawn and join", |bencher| bencher.iter_custom(|count| event_loop().block_on(spawns(count))));
    group.bench_function("yield", |bencher| bencher.iter_custom(|count| event_loop().block_on(yields(count))));
    group.bench_function("timer of 1 ms, time it is late", |bencher| {
        bencher.iter_custom(|count| event_loop().block_on(late(count)))
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

async fn spawns(count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        monoio::spawn(async {}).await;
    }
    start.elapsed()
}

async fn yields(count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        yield_now().await;
    }
    start.elapsed()
}

async fn late(count: u64) -> Duration {
    let mut late = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        sleep(Duration::from_millis(1)).await;
        late += start.elapsed().saturating_sub(Duration::from_millis(1));
    }
    late
}

criterion_group!(benches, primitives);
criterion_main!(benches);
