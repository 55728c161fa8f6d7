//! The contract of a server, line by line, on real processes: the same table is run by `stallbench check` and by `cargo test`.

mod http;
mod life;
mod limits;
mod offload;
mod postgres;
mod soak;
mod state;
mod strict;
mod workers;

use crate::catalog::Server;
use crate::console::interrupt;
use crate::host::placement::{cores, set_of};
use crate::http::{Client, Response, get};
use crate::process::deploy::package;
use crate::process::{Running, Start};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use postgres::CHECKS as ON_POSTGRES;
pub use soak::{Soaked, soak};

/// What came of one check.
#[derive(Debug)]
pub enum Verdict {
    /// The server keeps this line.
    Kept,
    /// Its `servers.toml` says that it cannot, and why.
    Unsupported(String),
    /// It does not, and how that showed.
    Broken(String),
}

/// Longer than any server here takes to end.
const SOON: Duration = Duration::from_secs(15);

/// The start of a request with a body.
const POST: &str = "POST /json/parse HTTP/1.1\r\nHost: a\r\n";

/// A line of the contract: its name, as `unsupported` knows it, and what to try.
type Check = (&'static str, fn(&Server) -> Result<()>);

/// Runs all checks on one server.
///
/// # Errors
/// Only an interrupt.
pub fn all(server: &Server) -> Result<Vec<(&'static str, Verdict)>> {
    let checks = http::CHECKS
        .iter()
        .chain(strict::CHECKS)
        .chain(life::CHECKS)
        .chain(limits::CHECKS)
        .chain(workers::CHECKS)
        .chain(offload::CHECKS)
        .chain(state::CHECKS)
        .chain(state::OF_WORKERS)
        .chain(soak::CHECKS);
    checks.map(|check| Ok((check.0, run(server, *check)?))).collect()
}

fn run(server: &Server, (name, check): Check) -> Result<Verdict> {
    interrupt::check()?;
    if let Some(reason) = server.unsupported.get(name) {
        return Ok(Verdict::Unsupported(reason.clone()));
    }
    let is_about_state = state::CHECKS.iter().chain(state::OF_WORKERS).any(|check| check.0 == name);
    if let Some(reason) = server.unsupported.get("launches").filter(|_| is_about_state) {
        return Ok(Verdict::Unsupported(reason.clone()));
    }
    if server.is_one_process && workers::CHECKS.iter().chain(state::OF_WORKERS).any(|check| check.0 == name) {
        return Ok(Verdict::Unsupported("one process, whose threads are the cluster".into()));
    }
    Ok(check(server).map_or_else(|error| Verdict::Broken(format!("{error:#}")), |()| Verdict::Kept))
}

fn start(server: &Server, more: &[&str]) -> Result<Running> {
    let more = more.iter().map(ToString::to_string).collect();
    Running::start(server, &Start { threads: 2, more, cores: set_of(&cores()) })
}

/// Starts a server that may open so many descriptors.
fn limited(server: &Server, descriptors: u32) -> Result<Running> {
    let mut command = Command::new("/bin/sh");
    // The shell keeps its process and so its id.
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    let plain = package::command(server, 2, &[]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(plain.get_current_dir().unwrap_or(Path::new(".")));
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::null());
    Running::spawn_with_stdin(command)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<()> {
    if found != wanted {
        bail!("{what}: {found:?} instead of {wanted:?}");
    }
    Ok(())
}

/// Lengths of a slow request, in ms, that a check tries one after the other.
const LENGTHS_MS: [u32; 3] = [400, 2_000, 8_000];

/// Starts a server and checks what it answers while slow requests of a length are in flight. On a busy machine these may be done too soon, which the check
/// returns as `false`: then it is repeated on a new server with longer ones. A server that answers too late does so with each.
fn beside(server: &Server, more: &[&str], too_late: &str, check: impl Fn(&Running, u32) -> Result<bool>) -> Result<()> {
    for length_ms in LENGTHS_MS {
        if check(&start(server, more)?, length_ms)? {
            return Ok(());
        }
    }
    bail!("{too_late}")
}

/// A slow request of this length.
fn slow(length_ms: u32) -> Vec<u8> {
    get(&format!("/sleep?ms={length_ms}"))
}

/// Pause between two polls of a state that no event announces.
const LOOK: Duration = Duration::from_millis(1);

/// Polls until a condition holds that no event announces.
///
/// # Errors
/// It is not within the time that any server here takes, or it cannot be found out.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        if begin.elapsed() > SOON {
            bail!("gave up after {} s: not yet so: {what}", SOON.as_secs());
        }
        interrupt::check()?;
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks on a connection of its own.
fn ask(running: &Running, request: &[u8]) -> Result<Response> {
    Client::connect(running.address)?.ask(request)
}

fn expect_page(answer: &Response) -> Result<()> {
    expect("status", &answer.status, &200)?;
    expect("body", &String::from_utf8_lossy(&answer.body).as_ref(), &common::routes::PAGE)
}

/// A fresh connection gets the regular page.
fn expect_served(running: &Running) -> Result<Response> {
    let answer = ask(running, &get("/"))?;
    expect_page(&answer)?;
    Ok(answer)
}
