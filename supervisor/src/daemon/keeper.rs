//! The daemon's side of the keeper: orders to the keeper, and its replacement when it dies.

use super::{Daemon, Source};
use crate::channel::{Channel, Order, Report, pair};
use crate::control::Answer;
use crate::core::Input;
use crate::keeper::role_of;
use crate::poll::{Poller, Token};
use crate::proc;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getppid, kill_process};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
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
    start_due: Option<Instant>,
    /// The program that the next one runs, if not this one.
    program: Option<PathBuf>,
}

impl Keeper {
    /// Connects to the keeper that started this daemon, over standard input.
    pub fn parent(poller: &mut Poller<Source>) -> Result<Self> {
        let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
        let token = Some(poller.add(&channel, Source::Keeper)?);
        let pid = getppid().map_or(0, Pid::as_raw_pid);
        Ok(Keeper { channel, token, child: None, pid, started: Instant::now(), start_due: None, program: None })
    }

    /// The next time at which something has to be done about it.
    pub fn due(&self) -> Option<Instant> {
        self.start_due.into_iter().chain(self.channel.due().filter(|_| self.token.is_some())).min()
    }

    /// Ends it, whatever made it stop answering: it must not run beside the next one.
    fn end(&mut self) {
        match self.child.take() {
            Some(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            // It is the parent, unless it has ended already.
            None => {
                if let Some(parent) = getppid().filter(|parent| parent.as_raw_pid() == self.pid) {
                    let _ = kill_process(parent, Signal::KILL);
                }
            }
        }
    }

    /// Watches for room in the channel if messages are queued.
    pub fn watch(&self, poller: &Poller<Source>) -> Result<()> {
        let Some(token) = self.token else { return Ok(()) };
        Ok(poller.set_interest(token, &self.channel, true, self.channel.has_unsent())?)
    }
}

impl Daemon {
    /// Starts a keeper that is due, and replaces one that does not answer any more.
    pub(super) fn check_keeper(&mut self) -> Result<()> {
        if self.keeper.start_due.is_some_and(|due| due <= Instant::now()) {
            return self.start_keeper();
        }
        if self.keeper.token.is_none() || !self.keeper.channel.is_silent() || proc::waits_for_disk(self.keeper.pid) {
            return Ok(());
        }
        if self.is_over {
            // It was told to end, and does not.
            self.keeper.end();
            self.keeper.channel.discard();
            return Ok(());
        }
        self.lose_keeper()
    }

    /// Handles the death of the keeper: another keeper takes over everything that it held.
    pub(super) fn lose_keeper(&mut self) -> Result<()> {
        if let Some(token) = self.keeper.token.take() {
            self.poller.remove(token, &self.keeper.channel);
        }
        if let Some(leaving) = self.leaving.take() {
            self.keeper.program = None;
            let why = "the new version has ended while it took over; this one goes on, and its apps kept running";
            self.clients.answer(leaving.client, &Answer::Error(why.into()));
        }
        let is_in_a_row = self.keeper.child.is_some() && self.keeper.started.elapsed() < PAUSE;
        self.keeper.end();
        self.handle(Input::KeeperDied)?;
        // Without a keeper, the end of this daemon would end everything. So the daemon waits only if the keeper died at once.
        if is_in_a_row {
            self.keeper.start_due = Some(self.keeper.started + PAUSE);
            return Ok(());
        }
        self.start_keeper()
    }

    /// Replaces the keeper with one of another program.
    ///
    /// # Errors
    /// Fails if the program cannot be run; the old keeper then goes on.
    pub(super) fn replace_keeper(&mut self, program: PathBuf) -> Result<()> {
        // It says what it is, and that it can run here.
        let said = Command::new(&program).arg("version").output().with_context(|| format!("cannot run {}", program.display()))?;
        if !said.status.success() || !said.stdout.starts_with(b"supervisor-keeper ") {
            bail!("{} is not a supervisor", program.display());
        }
        self.keeper.program = Some(program);
        if let Some(token) = self.keeper.token.take() {
            self.poller.remove(token, &self.keeper.channel);
        }
        self.keeper.end();
        self.start_keeper()?;
        if self.keeper.start_due.is_some() {
            self.keeper.program = None;
            self.start_keeper()?;
            bail!("cannot run the new version; this one goes on");
        }
        Ok(self.keeper.channel.send(&Order::Leave, &[])?)
    }

    /// Starts another keeper. A temporary shortage, such as of memory, must not end the daemon.
    fn start_keeper(&mut self) -> Result<()> {
        (self.keeper.started, self.keeper.start_due) = (Instant::now(), None);
        // What the last one has said as it ended must not fill the disk, if each does so.
        let _ = self.home.open_own_log();
        let (own, other) = pair()?;
        let child = role_of(self.keeper.program.as_deref(), "adopt")
            .stdin(other)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a keeper");
        match child {
            Ok(child) => {
                self.keeper.pid = child.id() as i32;
                self.keeper.child = Some(child);
                self.keeper.channel = Channel::new(own);
                self.keeper.token = Some(self.poller.add(&self.keeper.channel, Source::Keeper)?);
                self.hand_over()
            }
            Err(error) => {
                self.keeper.start_due = Some(Instant::now() + PAUSE);
                self.handle(Input::Remark(format!("{error:#}")))
            }
        }
    }

    /// Hands everything over that the last keeper held, with the copies of its descriptors.
    fn hand_over(&mut self) -> Result<()> {
        for order in self.core.handover() {
            let descriptors: Vec<BorrowedFd<'_>> = match &order {
                Order::AdoptControl => self.control.iter().map(AsFd::as_fd).chain(self.lock.iter().map(AsFd::as_fd)).collect(),
                Order::AdoptListener(address) => self.listeners.get(address).map(AsFd::as_fd).into_iter().collect(),
                Order::AdoptWorker(job, ..) => self.workers.get(&job.key).into_iter().flatten().map(AsFd::as_fd).collect(),
                _ => Vec::new(),
            };
            self.keeper.channel.send(&order, &descriptors)?;
        }
        Ok(())
    }
}

/// What follows from an order that is too long for a message.
pub fn too_long(order: &Order) -> Input {
    match order {
        Order::Spawn(job) => {
            let why = "cannot be started: its listeners and the paths of its logs are too long for a message to the keeper";
            Input::Report(Box::new(Report::CannotSpawn(job.key, why.into())))
        }
        _ => Input::Remark("an order was not carried out: it is too long for a message to the keeper".into()),
    }
}
