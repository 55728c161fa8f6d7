//! The daemon's side of the keeper: orders to the keeper, and its replacement when it dies.

use super::task::Verb;
use super::worker::State;
use super::{Daemon, Source};
use crate::channel::{Channel, Order, Standing, pair};
use crate::keeper::role;
use crate::poll::{Poller, Token};
use anyhow::{Context, Result};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// If a keeper that this daemon started ends within this time, the next one starts only after it.
const PAUSE: Duration = Duration::from_millis(500);

/// The daemon's connection to the keeper.
pub struct Keeper {
    pub channel: Channel,
    /// `None` while no keeper runs.
    token: Option<Token>,
    /// Only set for a keeper that this daemon started.
    child: Option<Child>,
    pub pid: i32,
    started: Instant,
    /// Time at which to start another keeper, if one is to be started.
    pub due: Option<Instant>,
}

impl Keeper {
    /// Connects to the keeper that started this daemon, over standard input.
    pub fn parent(poller: &mut Poller<Source>) -> Result<Self> {
        let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
        let token = Some(poller.add(&channel, Source::Keeper)?);
        let pid = rustix::process::getppid().map_or(0, rustix::process::Pid::as_raw_pid);
        Ok(Keeper { channel, token, child: None, pid, started: Instant::now(), due: None })
    }

    /// Watches for room in the channel if messages are queued.
    pub fn watch(&self, poller: &Poller<Source>) -> Result<()> {
        let Some(token) = self.token else { return Ok(()) };
        Ok(poller.set_writable(token, &self.channel, self.channel.has_unsent())?)
    }
}

impl Daemon {
    pub fn order(&mut self, order: &Order) -> Result<()> {
        // A keeper that is not running gets the order when it takes over.
        Ok(self.keeper.channel.send(order, &[])?)
    }

    /// Handles the death of the keeper: another keeper takes over everything that it held.
    pub fn lose_keeper(&mut self) -> Result<()> {
        if self.recovery.is_some() {
            // The dead keeper will not report the rest.
            self.recover()?;
        }
        self.remark("the keeper died and is being restarted".into());
        if let Some(token) = self.keeper.token.take() {
            self.poller.remove(token, &self.keeper.channel);
        }
        let mut is_in_a_row = false;
        if let Some(mut child) = self.keeper.child.take() {
            // The old keeper must not run beside the new one, whatever made it stop answering.
            let _ = child.kill();
            let _ = child.wait();
            is_in_a_row = self.keeper.started.elapsed() < PAUSE;
        }
        // Without a keeper, the end of this daemon would end everything. So the daemon waits only if the keeper died at once.
        if is_in_a_row {
            self.keeper.due = Some(self.keeper.started + PAUSE);
            return Ok(());
        }
        self.start_keeper()
    }

    /// Starts another keeper. A temporary shortage, such as of memory, must not end the daemon.
    pub fn start_keeper(&mut self) -> Result<()> {
        (self.keeper.started, self.keeper.due) = (Instant::now(), None);
        let (own, other) = pair()?;
        let child = role("adopt").stdin(other).stdout(Stdio::null()).spawn().context("cannot start a keeper");
        match child {
            Ok(child) => {
                self.keeper.pid = child.id() as i32;
                self.keeper.child = Some(child);
                self.keeper.channel = Channel::new(own);
                self.keeper.token = Some(self.poller.add(&self.keeper.channel, Source::Keeper)?);
                self.hand_over()
            }
            Err(error) => {
                self.keeper.due = Some(Instant::now() + PAUSE);
                self.remark(format!("{error:#}"));
                Ok(())
            }
        }
    }

    fn hand_over(&mut self) -> Result<()> {
        if let Some(control) = &self.control {
            self.keeper.channel.send(&Order::AdoptControl, &[control.as_fd()])?;
        }
        for (address, listener) in &self.listeners {
            self.keeper.channel.send(&Order::AdoptListener(address.clone()), &[listener.as_fd()])?;
        }
        for task in &self.tasks {
            if let Verb::Bind { left } = &task.verb {
                left.iter().try_for_each(|address| self.keeper.channel.send(&Order::Bind(address.clone()), &[]))?;
            }
        }
        let mut again = Vec::new();
        for app in &self.table.apps {
            for instance in &app.instances {
                for worker in instance.workers() {
                    let job = app.job(worker.key, instance.number, &self.home);
                    match worker.state {
                        State::Starting { process: None } | State::Stopping { process: None, .. } => again.push(job),
                        state => {
                            let Some(process) = state.process() else { continue };
                            let descriptors: Vec<BorrowedFd<'_>> = worker.descriptors.iter().map(AsFd::as_fd).collect();
                            let is_told_to_end = matches!(state, State::Stopping { .. });
                            let standing = Standing { is_ready: worker.online.is_some(), is_told_to_end };
                            self.keeper.channel.send(&Order::AdoptWorker(job, process, standing), &descriptors)?;
                        }
                    }
                }
            }
        }
        // Start orders that the previous keeper did not answer.
        again.into_iter().try_for_each(|job| self.order(&Order::Spawn(job)))
    }
}
