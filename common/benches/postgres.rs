//! What the launches cost beyond PostgreSQL's client itself: eight threads that ask at once, against eight tasks over a bare client with the same
//! pool and the same statements. Takes the address of a database that may be written to, in `STALLBENCH_POSTGRES`.

use common::http::Status;
use common::state::{Ask, NewLaunch, Setting, State};
use criterion::{Criterion, criterion_group, criterion_main};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::hint::black_box;
use std::thread;
use tokio_postgres::{Config, NoTls};

const DATABASE: &str = "STALLBENCH_POSTGRES";
const CLIENTS: usize = 8;
/// Requests of each client in one pass.
const EACH: usize = 25;
const ADD: &str = "WITH next AS (UPDATE stallbench SET last_flight = last_flight + 1 RETURNING last_flight)
    INSERT INTO launches SELECT last_flight, $1, $2, $3, $4, $5, $6, $7 FROM next RETURNING flight_number";
const ONE: &str = "SELECT * FROM launches WHERE flight_number = $1";

fn new_launch() -> NewLaunch {
    let document = br#"{"mission":"Kepler X","rocket":"Explorer IS1","launch_date":"2030-12-27","target":"Kepler-442 b"}"#;
    NewLaunch::read(document).expect("a launch")
}

fn postgres(criterion: &mut Criterion) {
    let Ok(address) = std::env::var(DATABASE) else {
        println!("launches in PostgreSQL: skipped, since {DATABASE} names no database");
        return;
    };
    let setting = Setting::parse(&address).expect("an address");
    let ours = State::open(&setting).expect("a database");
    let config: Config = address.parse().expect("an address");
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager).max_size(CLIENTS).runtime(Runtime::Tokio1).build().expect("a pool");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let launch = new_launch();
    assert_eq!(ours.answer(Ask::Add(launch.clone())).status, Status::Created);
    let mut group = criterion.benchmark_group("launches in PostgreSQL");
    group.throughput(criterion::Throughput::Elements((CLIENTS * EACH) as u64));
    let ask_all = |ask: &(dyn Fn() + Sync)| {
        thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(|| (0..EACH).for_each(|_| ask())))));
    };
    group.bench_function("add", |bencher| {
        bencher.iter(|| ask_all(&|| assert_eq!(ours.answer(Ask::Add(launch.clone())).status, Status::Created)));
    });
    group.bench_function("add, bare", |bencher| {
        bencher.iter(|| {
            run_all(&runtime, &pool, |pool| async move {
                let connection = pool.get().await.expect("a connection");
                let add = connection.prepare_cached(ADD).await.expect("a statement");
                let NewLaunch { mission, rocket, launch_date, target, customers, upcoming, success } = new_launch();
                let row = connection
                    .query_one(&add, &[&mission, &rocket, &launch_date, &target, &customers, &upcoming, &success])
                    .await;
                black_box(row.expect("a row").get::<_, i64>(0));
            });
        });
    });
    group.bench_function("one", |bencher| {
        bencher.iter(|| ask_all(&|| assert_eq!(ours.answer(Ask::One(1)).status, Status::Ok)));
    });
    group.bench_function("one, bare", |bencher| {
        bencher.iter(|| {
            run_all(&runtime, &pool, |pool| async move {
                let connection = pool.get().await.expect("a connection");
                let one = connection.prepare_cached(ONE).await.expect("a statement");
                let row = connection.query_one(&one, &[&1_i64]).await.expect("a row");
                let texts: Vec<String> = (1..5).map(|column| row.get(column)).collect();
                let rest: (Vec<String>, bool, bool) = (row.get(5), row.get(6), row.get(7));
                black_box((texts, rest));
            });
        });
    });
    group.finish();
}

/// Each task asks one request after the other.
fn run_all<F: Future<Output = ()> + Send + 'static>(
    runtime: &tokio::runtime::Runtime,
    pool: &Pool,
    ask: impl Fn(Pool) -> F + Copy + Send + 'static,
) {
    runtime.block_on(async {
        let client = |_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    ask(pool.clone()).await;
                }
            })
        };
        for client in (0..CLIENTS).map(client).collect::<Vec<_>>() {
            client.await.expect("a client");
        }
    });
}

criterion_group!(benches, postgres);
criterion_main!(benches);
