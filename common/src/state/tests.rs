//! All backends behave alike, as far as one process can tell; and the faults of a database are answers.

use super::*;
use crate::http::Answer;
use serde_json::{Value, json};
use std::path::Path;
use std::thread;

fn sqlite(path: &Path) -> Setting {
    Setting::Sqlite { path: path.into(), synchronous: Synchronous::Normal }
}

/// A folder, and each backend with nothing in it.
fn each(test: impl Fn(&State)) {
    let folder = tempfile::tempdir().unwrap();
    for setting in [Setting::Memory, sqlite(&folder.path().join("launches.db"))] {
        test(&State::open(&setting).unwrap());
    }
}

fn kepler() -> Value {
    json!({ "mission": "Kepler X", "rocket": "Explorer IS1", "launch_date": "2030-12-27", "target": "Kepler-442 b" })
}

fn new_launch() -> NewLaunch {
    NewLaunch::read(kepler().to_string().as_bytes()).unwrap()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn list(state: &State, number: u32, limit: u32) -> Vec<i64> {
    let answer = state.answer(Ask::List(Page { number, limit }));
    body(&answer).as_array().unwrap().iter().map(|launch| launch["flight_number"].as_i64().unwrap()).collect()
}

#[test]
fn a_launch_that_was_added_is_found_and_can_be_aborted() {
    each(|state| {
        let added = state.answer(Ask::Add(new_launch()));
        assert_eq!((added.status, added.location.as_deref()), (Status::Created, Some("/launches/1")));
        assert!(added.state.is_some());
        let found = state.answer(Ask::One(1));
        assert_eq!(body(&found), body(&added));
        assert_eq!(body(&found)["upcoming"], true);
        assert_eq!(body(&found)["customers"], json!([]));
        let aborted = state.answer(Ask::Abort(1));
        assert_eq!((&body(&aborted)["upcoming"], &body(&aborted)["success"]), (&json!(false), &json!(false)));
        assert_eq!(body(&state.answer(Ask::One(1))), body(&aborted));
    });
}

#[test]
fn what_is_not_there_is_404() {
    each(|state| {
        for flight in [1, i64::MAX] {
            assert_eq!(state.answer(Ask::One(flight)).status, Status::NotFound);
            assert_eq!(state.answer(Ask::Abort(flight)).status, Status::NotFound);
        }
    });
}

#[test]
fn pages_hold_the_flights_in_turn() {
    each(|state| {
        for _ in 0..5 {
            state.answer(Ask::Add(new_launch()));
        }
        assert_eq!(list(state, 1, 2), [1, 2]);
        assert_eq!(list(state, 3, 2), [5]);
        assert!(list(state, 4, 2).is_empty());
        assert!(list(state, u32::MAX, 1_000).is_empty());
    });
}

#[test]
fn a_page_that_is_too_long_is_refused_and_a_shorter_one_is_not() {
    let mut launch = kepler();
    // As long as a text may be; each character takes six bytes.
    launch["customers"] = json!(vec!["\u{1}".repeat(200); 11]);
    let long = NewLaunch::read(launch.to_string().as_bytes()).unwrap();
    each(|state| {
        for _ in 0..25 {
            state.answer(Ask::Add(long.clone()));
        }
        let refused = state.answer(Ask::List(Page { number: 1, limit: 1_000 }));
        assert_eq!((refused.status, refused.body.starts_with(b"limit: ")), (Status::BadRequest, true));
        assert_eq!(list(state, 2, 10), (11..=20).collect::<Vec<_>>());
    });
}

#[test]
fn a_usual_page_of_the_longest_launches_is_answered() {
    let mut launch = kepler();
    // Each character takes six bytes.
    launch["customers"] = json!(vec!["\u{1}".repeat(30); 10]);
    launch["mission"] = "x".repeat(MAX_DOCUMENT - launch.to_string().len()).into();
    let longest = NewLaunch::read(launch.to_string().as_bytes()).unwrap();
    each(|state| {
        for _ in 0..=USUAL_LIMIT {
            state.answer(Ask::Add(longest.clone()));
        }
        assert_eq!(list(state, 1, USUAL_LIMIT), (1..=USUAL_LIMIT.into()).collect::<Vec<_>>());
    });
}

#[test]
fn threads_number_flights_without_gaps_or_doubles() {
    each(|state| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| drop(state.answer(Ask::Add(new_launch())))));
            }
        });
        assert_eq!(list(state, 1, 1_000), (1..=200).collect::<Vec<_>>());
    });
}

#[test]
fn more_threads_than_connections_read_at_once() {
    each(|state| {
        state.answer(Ask::Add(new_launch()));
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| (0..20).for_each(|_| assert_eq!(state.answer(Ask::One(1)).status, Status::Ok)));
            }
        });
    });
}

#[test]
fn a_launch_is_refused_with_the_property_that_is_missing_or_wrong() {
    let with = |name: &str, value: Value| {
        let mut launch = kepler();
        launch[name] = value;
        launch.to_string()
    };
    let mut without = kepler();
    without.as_object_mut().unwrap().remove("target");
    let long = "x".repeat(201);
    let cases = [
        ("{".to_owned(), "body: not a JSON object"),
        ("[]".to_owned(), "body: not a JSON object"),
        ("\"\u{1}\"".to_owned(), "body: not a JSON object"),
        (without.to_string(), "target: missing"),
        (with("mission", json!(5)), "mission: takes a text"),
        (with("mission", json!("")), "mission: takes a text"),
        (with("rocket", json!(long)), "rocket: takes a text"),
        (with("target", json!("a\0b")), "target: takes a text"),
        (with("launch_date", json!("2030-02-31")), "launch_date: takes a day"),
        (with("launch_date", json!("soon")), "launch_date: takes a day"),
        (with("launch_date", json!("2030-12-27 ")), "launch_date: takes a day"),
        (with("customers", json!("NASA")), "customers: takes a list"),
        (with("customers", json!([1])), "customers: takes a list"),
        (with("customers", json!(vec!["a"; 21])), "customers: takes a list"),
        (with("upcoming", json!("yes")), "upcoming: takes true or false"),
        (with("success", json!(null)), "success: takes true or false"),
        (with("flight_number", json!(7)), "flight_number: the server chooses it"),
        (with("colour\n", json!(7)), "colour\\n: not a property"),
    ];
    for (document, wanted) in cases {
        let found = NewLaunch::read(document.as_bytes()).expect_err(&document);
        assert!(found.starts_with(wanted) && !found.contains('\n'), "{document}: {found}");
    }
}

#[test]
fn what_a_client_writes_is_text_and_never_a_statement() {
    each(|state| {
        let mut new = new_launch();
        new.mission = "'); DROP TABLE launches; --".into();
        new.customers = vec!["\"]".into()];
        state.answer(Ask::Add(new.clone()));
        let found: Launch = serde_json::from_slice(&state.answer(Ask::One(1)).body).unwrap();
        assert_eq!(found.chosen, new);
    });
}

#[test]
fn a_file_that_cannot_be_used_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "this is not a database, but it is long enough to be read as the head of one".repeat(20)).unwrap();
    let newer = folder.path().join("newer");
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let cases = [
        (folder.path().join("nowhere/launches.db"), "unable to open database file"),
        (folder.path().to_path_buf(), "unable to open database file"),
        (garbage, "file is not a database"),
        (newer, "schema 99 is newer than this program's 1"),
    ];
    for (path, wanted) in cases {
        let error = State::open(&sqlite(&path)).err().expect(wanted);
        assert!(error.starts_with("--state sqlite:") && error.contains(wanted) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_opened_again_holds_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let setting = sqlite(&folder.path().join("launches.db"));
    for flight in 1..=3 {
        let added = State::open(&setting).unwrap().answer(Ask::Add(new_launch()));
        assert_eq!(body(&added)["flight_number"], flight);
    }
}

#[test]
fn a_file_that_vanishes_is_503_and_one_that_comes_back_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("launches.db"), folder.path().join("away"));
    let state = State::open(&sqlite(&path)).unwrap();
    assert_eq!(state.answer(Ask::Health).status, Status::Ok);
    std::fs::rename(&path, &away).unwrap();
    let refused = state.answer(Ask::Add(new_launch()));
    assert_eq!((refused.status, refused.retry_after), (Status::ServiceUnavailable, Some(1)), "{refused:?}");
    assert_eq!(state.answer(Ask::Health).status, Status::ServiceUnavailable);
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(state.answer(Ask::Add(new_launch())).status, Status::Created);
}

#[test]
fn a_change_that_the_database_rolls_back_is_503() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("launches.db");
    let state = State::open(&sqlite(&path)).unwrap();
    let added = state.answer(Ask::Add(new_launch()));
    // Checked at the commit, behind the row that the statement returns.
    let rule = "CREATE TABLE child (parent INTEGER REFERENCES launches DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER broken AFTER UPDATE ON launches BEGIN INSERT INTO child VALUES (-1); END";
    rusqlite::Connection::open(&path).unwrap().execute_batch(rule).unwrap();
    assert_eq!(state.answer(Ask::Abort(1)).status, Status::ServiceUnavailable);
    assert_eq!(body(&state.answer(Ask::One(1))), body(&added));
}

#[test]
fn settings_are_read_and_shown_alike() {
    for text in ["memory", "sqlite:launches.db", "sqlite:/tmp/a?synchronous=full"] {
        assert_eq!(Setting::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "disk", "sqlite:", "sqlite:?synchronous=full", "sqlite:a?synchronous=off"] {
        Setting::parse(text).expect_err(text);
    }
}
