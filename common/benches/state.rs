//! What the launches cost beyond SQLite itself: a request, from its ask to its answer, against a bare loop over the same statements.

use common::http::Status;
use common::state::{Ask, NewLaunch, Setting, State, Synchronous};
use criterion::{Criterion, criterion_group, criterion_main};
use rusqlite::{Connection, params};
use std::hint::black_box;
use std::path::Path;

const ADD: &str = "INSERT INTO launches (mission, rocket, launch_date, target, customers, upcoming, success)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const ONE: &str = "SELECT * FROM launches WHERE flight_number = ?1";

fn launch() -> NewLaunch {
    let document = br#"{"mission":"Kepler X","rocket":"Explorer IS1","launch_date":"2030-12-27","target":"Kepler-442 b"}"#;
    NewLaunch::read(document).expect("a launch")
}

fn open(path: &Path) -> State {
    State::open(&Setting::Sqlite { path: path.into(), synchronous: Synchronous::Normal }).expect("a file")
}

fn bare(path: &Path) -> Connection {
    // The table is made by the code under test; the statements are not.
    drop(open(path));
    let connection = Connection::open(path).expect("a file");
    connection.pragma_update(None, "synchronous", "normal").expect("a setting");
    connection
}

fn state(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (open(&folder.path().join("ours")), bare(&folder.path().join("theirs")));
    let mut group = criterion.benchmark_group("launches in SQLite");
    let launch = launch();
    group.bench_function("add", |bencher| {
        bencher.iter(|| assert_eq!(ours.answer(Ask::Add(launch.clone())).status, Status::Created));
    });
    group.bench_function("add, bare", |bencher| {
        bencher.iter(|| {
            let mut add = theirs.prepare_cached(ADD).expect("a statement");
            let NewLaunch { mission, rocket, launch_date, target, upcoming, success, .. } = &launch;
            add.execute(params![mission, rocket, launch_date, target, "[]", upcoming, success]).expect("a row")
        });
    });
    group.bench_function("one", |bencher| bencher.iter(|| assert_eq!(ours.answer(Ask::One(1)).status, Status::Ok)));
    group.bench_function("one, bare", |bencher| {
        bencher.iter(|| {
            let mut one = theirs.prepare_cached(ONE).expect("a statement");
            let read = |row: &rusqlite::Row<'_>| {
                let texts: Vec<String> = (1..6).map(|column| row.get(column)).collect::<Result<_, _>>()?;
                Ok((row.get::<_, i64>(0)?, texts, row.get::<_, bool>(6)?, row.get::<_, bool>(7)?))
            };
            black_box(one.query_row([1], read).expect("a row"))
        });
    });
    group.finish();
}

criterion_group!(benches, state);
criterion_main!(benches);
