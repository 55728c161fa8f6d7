//! The time that each blocking function takes with its route's default parameters (`parse` reads 5,000 records).

use common::work::{Call, Work, pbkdf2, scrypt, sort, stringify};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

fn work(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("work");
    group.sample_size(10);
    group.bench_function("json stringify, 10,000 records", |bencher| bencher.iter(|| stringify(black_box(10_000))));
    let document = stringify(5_000);
    group.bench_function("json parse, 5,000 records", |bencher| bencher.iter(|| Work::from(Call::Parse(document.clone())).run()));
    group.bench_function("sort, 100,000 numbers", |bencher| bencher.iter(|| sort(black_box(100_000))));
    group.bench_function("pbkdf2, 100,000 iterations", |bencher| bencher.iter(|| pbkdf2(black_box(100_000))));
    group.bench_function("scrypt, log_n 14", |bencher| bencher.iter(|| scrypt(black_box(14)).is_ok()));
    group.finish();
}

criterion_group!(benches, work);
criterion_main!(benches);
