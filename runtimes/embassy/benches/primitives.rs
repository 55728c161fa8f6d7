//! Benchmarks of embassy's primitives: spawn, yield, a wake from another thread, and the lateness of a 1 ms timer.

#[path = "../../primitives.rs"]
mod primitives;

#[path = "../src/executor.rs"]
mod executor;

use async_io::Timer;
use criterion::{Criterion, criterion_group, criterion_main};
use embassy_executor::Spawner;
use futures_lite::future::yield_now;
use primitives::{late, timed};
use std::cell::Cell;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The job that the executor repeats `count` times.
#[derive(Clone, Copy)]
enum Job {
    Spawn,
    Yield,
    Timer,
    Answer,
}

fn measure_all(criterion: &mut Criterion) {
    let (ask, asked) = async_channel::unbounded();
    let (answer, answers) = mpsc::channel();
    // The executor never ends, as on a microcontroller.
    thread::spawn(|| {
        executor::run(|spawner| {
            spawner.spawn(work(spawner, asked, answer).expect("the first task"));
            Ok(())
        })
    });
    let mut group = criterion.benchmark_group("embassy");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let run = |job: Job, count: u64| (ask.try_send((job, count)).is_ok(), answers.recv().expect("the executor runs")).1;
    group.bench_function("spawn and run", |bencher| bencher.iter_custom(|count| run(Job::Spawn, count)));
    group.bench_function("yield", |bencher| bencher.iter_custom(|count| run(Job::Yield, count)));
    group.bench_function("lateness of a 1 ms timer of async-io", |bencher| bencher.iter_custom(|count| run(Job::Timer, count)));
    group.bench_function("wake from another thread and answer", |bencher| bencher.iter(|| run(Job::Answer, 1)));
    group.finish();
}

#[embassy_executor::task]
async fn work(spawner: Spawner, asked: async_channel::Receiver<(Job, u64)>, answer: mpsc::Sender<Duration>) {
    while let Ok((job, count)) = asked.recv().await {
        let took = match job {
            Job::Spawn => spawns(spawner, count).await,
            Job::Yield => timed(count, yield_now).await,
            Job::Timer => late(count, Timer::after).await,
            Job::Answer => Duration::ZERO,
        };
        if answer.send(took).is_err() {
            break;
        }
    }
}

thread_local! {
    static RAN: Cell<u64> = const { Cell::new(0) };
}

#[embassy_executor::task]
async fn nothing() {
    RAN.set(RAN.get() + 1);
}

/// Times `count` spawns. embassy cannot join a task; a new spawn succeeds only once the previous task has left the pool.
async fn spawns(spawner: Spawner, count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let ran = RAN.get();
        spawner.spawn(nothing().expect("the previous task has ended"));
        while RAN.get() == ran {
            yield_now().await;
        }
    }
    start.elapsed()
}

criterion_group!(benches, measure_all);
criterion_main!(benches);
