//! Servers that send blocking work away: nobody else waits for it, even while the pool is full, and a full pool can refuse it.

use super::life::wait_until_taken;
use super::{Check, ask, beside, expect, expect_served, slow, until};
use crate::catalog::{Blocking, Server};
use crate::http::{Client, get};
use crate::process::Running;
use anyhow::Result;
use nix::sys::signal::Signal;

pub const CHECKS: &[Check] =
    &[("offload", offload), ("full-pool", full_pool), ("when-full", when_full), ("drain-refuses", drain_refuses)];

const HELD_UP: &str = "others were served only when a blocker was done";

/// More blockers than the server has threads of its own hold nobody up.
fn offload(server: &Server) -> Result<()> {
    if server.blocking == Blocking::Inline {
        return Ok(());
    }
    beside(server, &[], HELD_UP, hold_nobody_up)
}

/// Nor do those that wait for a thread of the pool.
fn full_pool(server: &Server) -> Result<()> {
    if server.blocking != Blocking::Offloaded {
        return Ok(());
    }
    beside(server, &["--blocking-threads", "1"], HELD_UP, hold_nobody_up)
}

/// Others are served before any of four blockers.
fn hold_nobody_up(running: &Running, length_ms: u32) -> Result<bool> {
    let mut blockers = Vec::new();
    for _ in 0..4 {
        let mut blocker = Client::connect(running.address)?;
        blocker.send(&slow(length_ms))?;
        blockers.push(blocker);
    }
    for _ in 0..20 {
        expect_served(running)?;
    }
    if blockers.iter().any(Client::has_more) {
        return Ok(false);
    }
    blockers.iter_mut().try_for_each(|blocker| expect("status of a blocker", &blocker.receive(false)?.status, &200))?;
    Ok(true)
}

/// New connections are refused as soon as the server drains, and not accepted until the last request is answered.
fn drain_refuses(server: &Server) -> Result<()> {
    if server.blocking != Blocking::Offloaded {
        return Ok(());
    }
    beside(server, &[], "connections were accepted until the last request was answered", |running, length_ms| {
        let mut client = Client::connect(running.address)?;
        client.send(&slow(length_ms))?;
        wait_until_taken(running, std::slice::from_ref(&client))?;
        running.signal(Signal::SIGTERM)?;
        until("the server refuses new connections or has answered", || {
            Ok(client.has_more() || Client::connect(running.address).is_err())
        })?;
        let was_refused = !client.has_more();
        expect("status of the request in flight", &client.receive(false)?.status, &200)?;
        Ok(was_refused)
    })
}

/// With `--when-full refuse` a full pool answers 503 and when to come again, and serves again when it has room.
fn when_full(server: &Server) -> Result<()> {
    if server.blocking == Blocking::Inline {
        return Ok(());
    }
    beside(
        server,
        &["--blocking-threads", "1", "--when-full", "refuse"],
        "nobody was refused while the only thread was busy",
        refuses,
    )
}

fn refuses(running: &Running, length_ms: u32) -> Result<bool> {
    let mut first = Client::connect(running.address)?;
    first.send(&slow(length_ms))?;
    // Otherwise another worker may take what comes next before it.
    wait_until_taken(running, std::slice::from_ref(&first))?;
    expect_served(running)?;
    // More than any queue has places for, one after the other until one is refused.
    let mut others = Vec::new();
    let refused = loop {
        let mut other = Client::connect(running.address)?;
        other.send(&get("/sleep?ms=1"))?;
        others.push(other);
        expect_served(running)?;
        if first.has_more() {
            return Ok(false);
        }
        // Whose turn comes first is the server's affair: the answer may be one that was asked for earlier.
        if let Some(answered) = others.iter().position(Client::has_more) {
            break others.swap_remove(answered).receive(false)?;
        }
    };
    expect("status of what is too much, and Retry-After", &(refused.status, refused.header("Retry-After")), &(503, Some("1")))?;
    expect("status of the first", &first.receive(false)?.status, &200)?;
    // Those that had a place in the queue were served, and whose refusal was not seen yet was refused.
    for mut other in others {
        let status = other.receive(false)?.status;
        expect("status of another", &[200, 503].contains(&status), &true)?;
    }
    expect("status once there is room", &ask(running, &get("/sleep?ms=1"))?.status, &200)?;
    Ok(true)
}
