//! Several processes: replaced when they die, ended with their parent, and what each way of dispatching promises.

use super::life::wait_until_taken;
use super::{Check, SOON, ask, beside, expect, expect_page, expect_served, slow, start, until};
use crate::catalog::Server;
use crate::http::{Client, Unanswered, get};
use crate::process::Running;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::thread;

pub const CHECKS: &[Check] = &[
    ("processes", processes),
    ("round-robin", round_robin_promise),
    ("drain-round-robin", drain_round_robin),
    ("dies-at-once", dies_at_once),
    ("parent-dies", parent_dies),
];

const DISPATCHES: [&str; 3] = ["shared", "reuseport", "round-robin"];

/// A worker that is killed is replaced, and everybody is served meanwhile.
fn processes(server: &Server) -> Result<()> {
    each_dispatch(|dispatch| {
        killed_worker(server, dispatch)?;
        worker_told_to_end(server, dispatch)?;
        all_told_to_end(server, dispatch)
    })
}

/// Checks all ways of dispatching at once, each on servers of its own, since such checks mostly wait.
fn each_dispatch(check: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let checks = DISPATCHES.map(|dispatch| (dispatch, scope.spawn(|| check(dispatch))));
        checks.into_iter().try_for_each(|(dispatch, check)| {
            let result = check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.with_context(|| format!("--dispatch {dispatch}"))
        })
    })
}

fn killed_worker(server: &Server, dispatch: &str) -> Result<()> {
    let mut running = start(server, &["--processes", "2", "--dispatch", dispatch])?;
    let before = workers(&running);
    expect("workers", &before.len(), &2)?;
    let killed = before[0];
    kill(killed, Signal::SIGKILL)?;
    // Requests that nobody has read yet are answered by whoever is there.
    for _ in 0..20 {
        let worker = expect_served(&running)?.header("X-Worker").and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
        expect("answered by the killed worker", &(worker == Some(killed)), &false)?;
    }
    let mut now = Vec::new();
    until("a worker that was killed is replaced", || {
        now = workers(&running);
        Ok(now.len() >= 2 && !now.contains(&killed))
    })?;
    running.signal(Signal::SIGTERM)?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))?;
    for worker in now {
        expect("a worker lives on after its parent", &kill(worker, None).is_ok(), &false)?;
    }
    Ok(())
}

/// A worker that alone is told to end does so, long before its time to drain is up, and is replaced.
fn worker_told_to_end(server: &Server, dispatch: &str) -> Result<()> {
    let running = start(server, &["--processes", "2", "--dispatch", dispatch, "--drain", "1m", "--drain-idle", "100ms"])?;
    let told = workers(&running)[0];
    kill(told, Signal::SIGTERM)?;
    until("a worker that was told to end is replaced", || {
        let now = workers(&running);
        Ok(now.len() == 2 && !now.contains(&told))
    })?;
    expect_served(&running).map(drop)
}

/// A terminal's Ctrl-C goes to parent and workers alike, and the parent tells the workers too: that does not cut off what is in flight.
fn all_told_to_end(server: &Server, dispatch: &str) -> Result<()> {
    let mut running = start(server, &["--processes", "2", "--dispatch", dispatch, "--drain-idle", "100ms"])?;
    let mut client = Client::connect(running.address)?;
    client.send(&get("/sleep?ms=500"))?;
    wait_until_taken(&running, std::slice::from_ref(&client))?;
    // The parent last: when it is told, workers that have nothing to do end at once, and could not be signalled any more.
    running.pids().into_iter().rev().try_for_each(|pid| kill(pid, Signal::SIGINT))?;
    expect("status of a request in flight", &client.receive(false).context("a request in flight")?.status, &200)?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

/// With `round-robin` a blocked worker never holds a fresh connection while another is idle, nor does a stopped one.
fn round_robin_promise(server: &Server) -> Result<()> {
    stopped_worker(server).context("beside a worker that is stopped")?;
    let waited = "fresh connections waited until the blocked worker was free";
    beside(server, &["--processes", "2", "--dispatch", "round-robin"], waited, |running, length_ms| {
        let mut blocker = Client::connect(running.address)?;
        blocker.send(&slow(length_ms))?;
        for _ in 0..20 {
            expect_served(running)?;
        }
        if blocker.has_more() {
            return Ok(false);
        }
        expect("status of the blocker", &blocker.receive(false)?.status, &200)?;
        Ok(true)
    })
}

/// Clients that wait for the end of their connection see it, though a worker that is stopped was offered it too.
fn stopped_worker(server: &Server) -> Result<()> {
    let running = start(server, &["--processes", "2", "--dispatch", "round-robin"])?;
    let stopped = workers(&running)[0];
    kill(stopped, Signal::SIGSTOP)?;
    // One of its threads may still run, and take a connection with it.
    until("the worker is stopped", || Ok(is_stopped(stopped)))?;
    let served = (0..20).try_for_each(|_| {
        let mut client = Client::connect(running.address)?;
        client.send(&get("/"))?;
        client.end()?;
        match client.receive(false) {
            Ok(answer) => expect_page(&answer)?,
            // hyper may drop the request of a client that has ended.
            Err(error) if error.is::<Unanswered>() => return Ok(()),
            Err(error) => return Err(error),
        }
        client.expect_close()
    });
    kill(stopped, Signal::SIGCONT)?;
    served
}

/// A silent connection does not keep the workers from hearing of the drain, and the parent hands it over if it asks after all.
fn drain_round_robin(server: &Server) -> Result<()> {
    if server.unsupported.contains_key("round-robin") || server.unsupported.contains_key("drain-idle") {
        return Ok(());
    }
    let limits = ["--drain", "1m", "--drain-idle", "1m"];
    let mut running = start(server, &[&["--processes", "2", "--dispatch", "round-robin"], limits.as_slice()].concat())?;
    let mut kept = Client::connect(running.address)?;
    expect_page(&kept.ask(&get("/"))?)?;
    let mut silent = Client::connect(running.address)?;
    running.signal(Signal::SIGTERM)?;
    ask_until_it_closes(&mut kept).context("while the parent holds a silent connection")?;
    // The other worker may hear of it a moment later.
    ask_until_it_closes(&mut silent).context("a connection that was silent")?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

fn ask_until_it_closes(client: &mut Client) -> Result<()> {
    until("an answer says that it is the last one, since the server drains", || {
        let answer = client.ask(&get("/"))?;
        expect_page(&answer)?;
        Ok(answer.closes)
    })
}

/// A worker that dies again and again is given up, and the parent with the last one. A worker that cannot even start does that.
fn dies_at_once(server: &Server) -> Result<()> {
    let mut running = start(server, &["--processes", "2"])?;
    let parent = running.pids()[0];
    until("the parent of workers that die at once ends", || {
        for worker in workers(&running) {
            if worker != parent {
                // It may have been reaped between the look and the signal.
                let _ = kill(worker, Signal::SIGKILL);
            }
        }
        Ok(running.ended().is_some())
    })?;
    expect("exit code", &running.wait(std::time::Duration::from_secs(1))?.code(), &Some(1))?;
    expect("still served", &ask(&running, &get("/")).is_ok(), &false)
}

/// Workers whose parent is killed answer what they have, and end.
fn parent_dies(server: &Server) -> Result<()> {
    // Others have one way to distribute connections.
    if server.unsupported.contains_key("processes") {
        return orphaned_workers(server, &[]);
    }
    each_dispatch(|dispatch| orphaned_workers(server, &["--dispatch", dispatch]))
}

fn orphaned_workers(server: &Server, more: &[&str]) -> Result<()> {
    let limits = ["--processes", "2", "--drain", "1m", "--drain-idle", "100ms"];
    let mut running = start(server, &[&limits, more].concat())?;
    let orphans = workers(&running);
    let mut client = Client::connect(running.address)?;
    client.send(&get("/sleep?ms=500"))?;
    wait_until_taken(&running, std::slice::from_ref(&client))?;
    running.signal(Signal::SIGKILL)?;
    running.wait(SOON)?;
    expect("status of a request in flight", &client.receive(false).context("a request in flight")?.status, &200)?;
    // The command line of a process that has ended is empty, even where nobody has reaped it.
    let is_there = |pid: &Pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    until("workers end with their parent", || Ok(!orphans.iter().any(is_there)))
}

fn workers(running: &Running) -> Vec<Pid> {
    running.pids().into_iter().skip(1).collect()
}

/// Whether all threads of a process are stopped.
fn is_stopped(pid: Pid) -> bool {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().collect();
    let state = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("status")).unwrap_or_default();
    !threads.is_empty() && threads.iter().all(|thread| state(thread).lines().any(|line| line.starts_with("State:\tT")))
}
