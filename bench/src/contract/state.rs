//! Launches and hits: what requests change, and who sees it.

use super::{Check, ask, expect, start, until};
use crate::catalog::Server;
use crate::http::{Client, Response, at_once, get};
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

pub(super) fn add(client: &mut Client) -> Result<Response> {
    client.ask(&post("application/json", LAUNCH))
}

pub(super) fn json(answer: &Response) -> Result<Json> {
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

pub(super) fn flights(list: &Json) -> Vec<i64> {
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

pub(super) fn four_requests(running: &Running) -> Result<()> {
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
        // One after another they lose nothing. Each may be answered by another process.
        let numbers = ["shared", "unsynchronized"].map(|name| counted[name].as_i64());
        expect("hits", &numbers, &[Some(wanted); 2])?;
        expect("hits of a process", &counted["process"].as_i64().is_some_and(|own| (1..=wanted).contains(&own)), &true)?;
    }
    expect("hits, 1,000 times", &json(&ask(&running, &get("/hits?times=1000"))?)?["shared"].as_i64(), &Some(1002))?;
    expect("too many hits", &ask(&running, &get("/hits?times=1000000"))?.status, &400)
}

/// Several processes number flights without gaps or doubles, and what was answered 201 is there, also if one of them is killed.
fn shared_launches(server: &Server) -> Result<()> {
    let folder = folder()?;
    save_and_look(&[start(server, &["--processes", "2", "--state", &sqlite(&folder)])?])?;
    expect_one_line_at_start(server)
}

/// How much is saved: at once, in all, and how many workers are killed meanwhile. `STALLBENCH_SAVES=100000` makes it a long test.
fn amount() -> Result<(usize, usize, usize)> {
    match std::env::var("STALLBENCH_SAVES") {
        Ok(saves) => Ok((32, saves.parse().with_context(|| format!("STALLBENCH_SAVES: takes a number, not '{saves}'"))?, 10)),
        Err(_) => Ok((4, 100, 1)),
    }
}

/// Saves launches on all hosts at once, which share a database, kills workers of the first meanwhile, and looks at the whole list.
pub(super) fn save_and_look(hosts: &[Running]) -> Result<()> {
    let (clients, saves, kills) = amount()?;
    let each = saves / clients;
    let save = |client: usize| -> Result<Vec<i64>> {
        let address = hosts[client % hosts.len()].address;
        let (mut connection, mut saved) = (Client::connect(address)?, Vec::new());
        for number in 1..=each {
            crate::console::interrupt::check()?;
            if client == 0 && kills > 0 && number % (each / (kills + 1)).max(1) == 0 {
                kill_worker(&hosts[0])?;
            }
            match add(&mut connection) {
                Ok(answer) => {
                    expect("status of a launch", &answer.status, &201)?;
                    saved.push(json(&answer)?["flight_number"].as_i64().context("no flight number")?);
                }
                // A connection to the worker that was killed may end without an answer.
                Err(_) => connection = Client::connect(address)?,
            }
        }
        Ok(saved)
    };
    let saved = at_once(clients, save)?.concat();
    let unique: BTreeSet<i64> = saved.iter().copied().collect();
    expect("different numbers", &unique.len(), &saved.len())?;
    expect("most are saved", &(saved.len() > saves / 2), &true)?;
    hosts.iter().try_for_each(|host| expect_all(host, &unique))
}

/// The whole list is numbered in turn, and holds all that was saved.
fn expect_all(host: &Running, saved: &BTreeSet<i64>) -> Result<()> {
    let mut list = Vec::new();
    for page in 1.. {
        let flights = flights(&json(&ask(host, &get(&format!("/launches?limit=1000&page={page}")))?)?);
        list.extend_from_slice(&flights);
        if flights.len() < 1000 {
            break;
        }
    }
    expect("the numbers in turn", &list.iter().copied().eq(1..=i64::try_from(list.len())?), &true)?;
    match saved.last().filter(|last| **last > list.len() as i64) {
        Some(lost) => bail!("launch {lost} was answered 201 and is not there"),
        None => Ok(()),
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
    let count = || ask(&running, &get("/hits"));
    let mut last = count()?;
    for wanted in 2..=20 {
        last = count()?;
        expect("hits", &json(&last)?["shared"].as_i64(), &Some(wanted))?;
    }
    // The process that answered last has counted that in its own memory at least, which ends with it.
    let killed = last.header("X-Worker").and_then(|pid| pid.parse().ok()).context("no X-Worker")?;
    kill(Pid::from_raw(killed), Signal::SIGKILL)?;
    let counted = json(&count()?)?;
    expect("hits after a worker was killed", &counted["shared"].as_i64(), &Some(21))?;
    expect("another process has counted fewer", &(counted["process"].as_i64() < Some(21)), &true)
}

/// Kills a worker, once two live. The one that was killed before may not have been replaced yet, and it is listed until its parent has noticed.
fn kill_worker(running: &Running) -> Result<()> {
    let lives = |pid: &Pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let mut workers: Vec<Pid> = Vec::new();
    until("two workers live", || {
        workers = running.pids().into_iter().skip(1).filter(lives).collect();
        Ok(workers.len() >= 2)
    })?;
    Ok(kill(workers[0], Signal::SIGKILL)?)
}
