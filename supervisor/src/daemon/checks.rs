//! Checks of processes, each on a thread beside the daemon's loop.

mod answers;
mod listens;
mod passes;

use super::{Daemon, Source};
use crate::channel::Key;
use crate::core::{Checked, Checks, Input, Test};
use crate::poll::Poller;
use crate::proc::Identity;
use anyhow::Result;
use passes::Commands;
use rustix::fs::fstat;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// The stack size of a thread, in bytes.
const STACK_SIZE: usize = 256 * 1024;

/// The checks that go on.
pub struct Checking {
    sender: Sender<Checked>,
    results: Receiver<Checked>,
    /// Readable once a result has come.
    wake: UnixStream,
    waker: UnixStream,
    pub commands: Arc<Commands>,
}

impl Checking {
    pub fn new(poller: &mut Poller<Source>) -> Result<Self> {
        let (sender, results) = channel();
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        // A full one is readable already.
        waker.set_nonblocking(true)?;
        poller.add(&wake, Source::Checks)?;
        Ok(Checking { sender, results, wake, waker, commands: Arc::default() })
    }

    /// Takes the results that have come.
    pub fn take(&mut self) -> Vec<Input> {
        let _ = self.wake.read(&mut [0; 64]);
        self.results.try_iter().map(Input::Checked).collect()
    }
}

impl Daemon {
    /// Begins a check; returns its result if it cannot be begun.
    pub(super) fn check(&self, checks: Checks) -> Option<Input> {
        let nothing = Checked { app: checks.spec.name.clone(), purpose: checks.purpose, processes: Vec::new() };
        let sender = self.checking.sender.clone();
        let held = checks.listeners.iter().filter_map(|address| self.listeners.get(address));
        let sockets: Vec<u64> = held.filter_map(|listener| Some(fstat(listener).ok()?.st_ino)).collect();
        let Ok(mut waker) = self.checking.waker.try_clone() else { return Some(Input::Checked(nothing)) };
        let (home, commands) = (self.home.clone(), self.checking.commands.clone());
        let work = move || {
            let processes = match &checks.test {
                Test::Passes(command) => passes::run(&checks, command, &home, &commands),
                Test::Listens => listening(&checks, &sockets),
                Test::Answers(address, target) => answers::ask(&checks, address, target, &sockets),
            };
            let _ = sender.send(Checked { app: checks.spec.name.clone(), purpose: checks.purpose, processes });
            let _ = waker.write(&[1]);
        };
        let begun = thread::Builder::new().name("check".into()).stack_size(STACK_SIZE).spawn(work);
        begun.err().map(|_| Input::Checked(nothing))
    }
}

/// Looks whether processes listen; returns each with the reason if it does not. `sockets` are the inodes of the listeners that they were given.
fn listening(checks: &Checks, sockets: &[u64]) -> Vec<(Key, Option<String>)> {
    let look = |process: &Identity| listens::look(process.pid, sockets).err();
    checks.processes.iter().map(|(key, process)| (*key, look(process))).collect()
}
