//! Launches and hits: what requests change, and who sees it.

use super::{Check, ask, expect, start};
use crate::catalog::Server;
use crate::http::{Client, Response, get};
use crate::process::Running;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use tempfile::TempDir;

pub const CHECKS: &[Check] =
    &[("launches", launches), ("bad-launches", bad_launches), ("lost-database", lost_database), ("hits", hits)];

/// Those that need several processes.
pub const OF_WORKERS: &[Check] = &[("shared-launches", shared_launches), ("shared-hits", shared_hits)];

const LAUNCH: &str = r#"{"mission":"Kepler X","rocket":"Explorer IS1","launch_date":"2030-12-27","target":"Kepler-442 b"}"#;

fn folder() -> Result<TempDir> {
    tempfile::tempdir().context("a folder for the database")
}

fn sqlite(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("launches.db").display())
}

fn post(content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /launches HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

fn delete(path: &str) -> Vec<u8> {
    format!("DELETE {path} HTTP/1.1\r\nHost: a\r\n\r\n").into()
}

fn add(client: &mut Client) -> Result<Response> {
    client.ask(&post("application/json", LAUNCH))
}

fn json(answer: &Response) -> Result<Json> {
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

fn flights(list: &Json) -> Vec<i64> {
    list.as_array().into_iter().flatten().filter_map(|launch| launch["flight_number"].as_i64()).collect()
}

/// The four requests about launches, in memory and in a database.
fn launches(server: &Server) -> Result<()> {
    let folder = folder()?;
    for state in ["memory", &sqlite(&folder)] {
        let running = start(server, &["--state", state])?;
        four_requests(&running).with_context(|| format!("--state {state}"))?;
    }
    Ok(())
}

fn four_requests(running: &Running) -> Result<()> {
    let mut client = Client::connect(running.address)?;
    expect("the list of no launches", &json(&client.ask(&get("/launches"))?)?, &Json::Array(Vec::new()))?;
    for flight in 1..=3 {
        let added = client.ask(&post("application/json; charset=utf-8", LAUNCH))?;
        expect("status of a launch", &added.status, &201)?;
        expect("Location", &added.header("Location"), &Some(format!("/launches/{flight}").as_str()))?;
        expect("X-State is there", &added.header("X-State").is_some(), &true)?;
        expect("its number", &json(&added)?["flight_number"], &flight.into())?;
    }
    let one = client.ask(&get("/launches/2"))?;
    expect("status of one launch", &one.status, &200)?;
    expect("its mission", &json(&one)?["mission"], &"Kepler X".into())?;
    let aborted = json(&client.ask(&delete("/launches/2"))?)?;
    expect("an aborted launch", &(&aborted["upcoming"], &aborted["success"]), &(&false.into(), &false.into()))?;
    expect("the aborted launch again", &json(&client.ask(&get("/launches/2"))?)?, &aborted)?;
    let page = json(&client.ask(&get("/launches?page=2&limit=2"))?)?;
    expect("the second page of two", &flights(&page), &vec![3])
}

/// What is wrong with a launch is said; nothing of it is kept.
fn bad_launches(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    let long = format!("{{\"mission\":\"{}\"}}", "x".repeat(20_000));
    let refused = [
        (400, post("application/json", "{")),
        (400, post("application/json", "{}")),
        (400, post("application/json", &LAUNCH.replace("\"Explorer IS1\"", "5"))),
        (400, post("application/json", &LAUNCH.replace("2030-12-27", "2030-02-31"))),
        (413, post("application/json", &long)),
        (415, post("text/plain", LAUNCH)),
        (400, get("/launches?page=0")),
        (400, get("/launches?limit=100000")),
        (404, get("/launches/1")),
        (404, get("/launches/0")),
        (404, get("/launches/x")),
        (404, get("/launches/99999999999999999999")),
        (404, get("/launches/1/2")),
        (404, delete("/launches/1")),
        (405, delete("/launches")),
    ];
    for (status, request) in refused {
        let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
        let answer = ask(&running, &request)?;
        expect(&line, &answer.status, &status).with_context(|| String::from_utf8_lossy(&answer.body).into_owned())?;
    }
    expect("launches kept", &json(&ask(&running, &get("/launches"))?)?, &Json::Array(Vec::new()))
}

/// A database that goes away is 503, which `/healthz` says too; once it is back, it serves without a restart.
fn lost_database(server: &Server) -> Result<()> {
    let folder = folder()?;
    let running = start(server, &["--state", &sqlite(&folder)])?;
    let (path, away) = (folder.path().join("launches.db"), folder.path().join("away.db"));
    expect("status of a launch", &add(&mut Client::connect(running.address)?)?.status, &201)?;
    std::fs::rename(&path, &away)?;
    let lost = add(&mut Client::connect(running.address)?)?;
    expect("status without the database", &lost.status, &503)?;
    expect("health without the database", &ask(&running, &get("/healthz"))?.status, &503)?;
    expect("status of the page", &ask(&running, &get("/"))?.status, &200)?;
    std::fs::rename(&away, &path)?;
    let again = add(&mut Client::connect(running.address)?)?;
    expect("status with the database", &again.status, &201)?;
    expect("its number", &json(&again)?["flight_number"], &2.into())
}

fn hits(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for wanted in [1, 2] {
        let counted = json(&ask(&running, &get("/hits"))?)?;
        let numbers = ["process", "shared", "unsynchronized"].map(|name| counted[name].as_i64());
        expect("hits", &numbers, &[Some(wanted); 3])?;
    }
    expect("hits, 1,000 times", &json(&ask(&running, &get("/hits?times=1000"))?)?["shared"].as_i64(), &Some(1002))?;
    expect("too many hits", &ask(&running, &get("/hits?times=1000000"))?.status, &400)
}

/// Several processes number flights without gaps or doubles, and what was answered 201 is there, also if one of them is killed.
fn shared_launches(server: &Server) -> Result<()> {
    let folder = folder()?;
    let running = start(server, &["--processes", "2", "--state", &sqlite(&folder)])?;
    let mut saved = BTreeSet::new();
    for round in 0..60 {
        if round == 30 {
            kill(worker(&running)?, Signal::SIGKILL)?;
        }
        // A connection to the killed worker may end without an answer.
        let Ok(added) = Client::connect(running.address).and_then(|mut client| add(&mut client)) else { continue };
        expect("status of a launch", &added.status, &201)?;
        let flight = json(&added)?["flight_number"].as_i64().context("no flight number")?;
        expect("a number that is given twice", &saved.insert(flight), &true)?;
    }
    let list = flights(&json(&ask(&running, &get("/launches?limit=1000"))?)?);
    expect("the numbers", &list, &(1..=i64::try_from(list.len())?).collect())?;
    match saved.iter().find(|flight| !list.contains(flight)) {
        Some(lost) => bail!("launch {lost} was answered 201 and is not there"),
        None => expect_one_line_at_start(server),
    }
}

/// Of a database that cannot be opened several processes make one line and exit code 1.
fn expect_one_line_at_start(server: &Server) -> Result<()> {
    let refused = start(server, &["--processes", "2", "--state", "sqlite:/nowhere/launches.db"]);
    match refused.err().map(|error| format!("{error:#}")) {
        Some(error) if error.matches("unable to open database file").count() == 1 => Ok(()),
        Some(error) => bail!("a folder that is missing: {error}"),
        None => bail!("it serves with --state sqlite:/nowhere/launches.db"),
    }
}

/// The number in shared memory counts all workers and outlives any of them.
fn shared_hits(server: &Server) -> Result<()> {
    let running = start(server, &["--processes", "2"])?;
    let count = || json(&ask(&running, &get("/hits"))?);
    for wanted in 1..=20 {
        expect("hits", &count()?["shared"].as_i64(), &Some(wanted))?;
    }
    kill(worker(&running)?, Signal::SIGKILL)?;
    let counted = count()?;
    expect("hits after a worker was killed", &counted["shared"].as_i64(), &Some(21))?;
    expect("one process counted all of them", &(counted["process"].as_i64() < Some(21)), &true)
}

fn worker(running: &Running) -> Result<Pid> {
    running.pids().get(1).copied().context("no worker")
}
