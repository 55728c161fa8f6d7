//! Launches in PostgreSQL, which servers of several machines share. One server stands for all: what they do with a database is the same code.

use super::state::{add, flights, four_requests, json, save_and_look};
use super::{Check, ask, expect, start};
use crate::catalog::Server;
use crate::http::{Client, get};
use crate::process::{Database, Running};
use anyhow::{Result, bail};

/// The checks: each takes a server that was built for PostgreSQL.
pub const CHECKS: &[Check] = &[
    ("launches", launches),
    ("two-hosts", two_hosts),
    ("restarted-database", restarted_database),
    ("refused-at-start", refused_at_start),
];

fn started(server: &Server, database: &Database) -> Result<Running> {
    start(server, &["--state", &database.state()])
}

fn launches(server: &Server) -> Result<()> {
    let database = Database::start()?;
    four_requests(&started(server, &database)?)
}

/// Two servers with several processes each number flights without gaps or doubles, also if a worker is killed.
fn two_hosts(server: &Server) -> Result<()> {
    let database = Database::start()?;
    let hosts = [started(server, &database)?, started(server, &database)?];
    save_and_look(&hosts)
}

/// Without its database a server says 503, which `/healthz` does too; once it is back, it serves without a restart.
fn restarted_database(server: &Server) -> Result<()> {
    let mut database = Database::start()?;
    let running = started(server, &database)?;
    let mut client = Client::connect(running.address)?;
    expect("status of a launch", &add(&mut client)?.status, &201)?;
    database.stop();
    expect("status without the database", &add(&mut client)?.status, &503)?;
    expect("health without the database", &ask(&running, &get("/healthz"))?.status, &503)?;
    expect("status of the page", &ask(&running, &get("/"))?.status, &200)?;
    database.start_again()?;
    // Connections that were opened before learn of it one by one.
    let mut tries = 0;
    while add(&mut client)?.status != 201 {
        tries += 1;
        expect("still 503 with the database", &(tries < 20), &true)?;
    }
    let list = flights(&json(&ask(&running, &get("/launches"))?)?);
    expect("the numbers", &list, &vec![1, 2])
}

/// A database that cannot be used is one line and exit code 1, and no password is ever printed.
fn refused_at_start(server: &Server) -> Result<()> {
    let nobody = "postgres://someone:sesame@127.0.0.1:1/launches";
    expect_refused(server, nobody, "Connection refused")?;
    expect_refused(server, "postgres://someone:sesame@/launches?port=x", "invalid value for option `port`")?;
    let database = Database::start()?;
    drop(started(server, &database)?);
    database.run("UPDATE stallbench SET schema = 99")?;
    expect_refused(server, &database.state(), "schema 99 is newer than this program's 1")?;
    let more = ["--state".to_owned(), nobody.to_owned()];
    let receipt = serde_json::to_string(&crate::process::deploy::package::receipt(server, 2, &more)?)?;
    expect("the receipt names the database", &receipt.contains("postgres://127.0.0.1:1/launches"), &true)?;
    expect("the receipt holds the password", &receipt.contains("sesame"), &false)
}

fn expect_refused(server: &Server, state: &str, reason: &str) -> Result<()> {
    match start(server, &["--state", state]).err().map(|error| format!("{error:#}")) {
        Some(error) if error.contains("sesame") => bail!("the password is printed: {error}"),
        Some(error) if error.matches(reason).count() == 1 => Ok(()),
        Some(error) => bail!("not '{reason}': {error}"),
        None => bail!("it serves with --state {state}"),
    }
}
