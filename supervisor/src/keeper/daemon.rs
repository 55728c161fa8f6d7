//! The keeper's side of the daemon: its start, its orders, and its replacement when it dies or hangs.

use super::{Keeper, Source, role, start, tell};
use crate::channel::{Channel, Order, Report, pair};
use crate::poll::Token;
use crate::proc;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getppid, kill_process};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// If a daemon ends within this time, the next one starts only after it.
const PAUSE: Duration = Duration::from_millis(500);

/// The daemon, as the keeper sees it.
pub struct Daemon {
    pub channel: Channel,
    pub token: Token,
    pub pid: i32,
    /// `None` if the daemon started this keeper.
    child: Option<Child>,
    started: Instant,
}

impl Daemon {
    /// Ends it, whatever made it stop answering: it must not run beside the next one.
    fn end(&mut self) -> Result<String> {
        match &mut self.child {
            Some(child) => {
                let _ = child.kill();
                Ok(child.wait()?.to_string())
            }
            // It is the parent, unless it has ended already.
            None => {
                if let Some(parent) = getppid().filter(|parent| parent.as_raw_pid() == self.pid) {
                    let _ = kill_process(parent, Signal::KILL);
                }
                Ok("it was this keeper's parent".into())
            }
        }
    }

    /// Returns whether it is this child.
    pub fn is(&self, pid: Pid) -> bool {
        self.child.is_some() && self.pid == pid.as_raw_pid()
    }
}

impl Keeper {
    pub(super) fn take_daemon(&mut self, channel: Channel, child: Option<Child>) -> Result<()> {
        let token = self.poller.add(&channel, Source::Daemon)?;
        let parent = || getppid().map_or(0, Pid::as_raw_pid);
        let pid = child.as_ref().map_or_else(parent, |child| child.id() as i32);
        self.daemon = Some(Daemon { channel, token, pid, child, started: Instant::now() });
        self.daemon_due = None;
        Ok(())
    }

    pub(super) fn start_daemon(&mut self) -> Result<()> {
        // Those of the last one, however it has ended.
        self.end_checks();
        let (own, other) = pair()?;
        let child = role("daemon").stdin(other).stdout(Stdio::null()).spawn().context("cannot start the daemon")?;
        self.take_daemon(Channel::new(own), Some(child))?;
        self.tell_everything()?;
        self.watch_control()
    }

    fn tell_everything(&mut self) -> Result<()> {
        let Some(Daemon { channel, .. }) = &mut self.daemon else { return Ok(()) };
        if let (Some(control), Some(lock)) = (&self.control, &self.lock) {
            channel.send(&Report::Control, &[control.as_fd(), lock.as_fd()])?;
        }
        for (address, listener) in &self.listeners {
            channel.send(&Report::Bound(address.clone(), listener.actual.clone()), &[listener.socket.as_fd()])?;
        }
        for worker in self.workers.values() {
            worker.tell(channel)?;
        }
        for (path, trouble) in self.logs.iter().filter_map(|(path, log)| Some((path, log.trouble()?))) {
            channel.send(&Report::LogTrouble(path.clone(), Some(trouble.clone())), &[])?;
        }
        if let Some(remark) = self.remark.take() {
            channel.send(&Report::Remark(remark), &[])?;
        }
        channel.send(&Report::Told, &[])?;
        if self.is_asked_to_end {
            // Only now: a daemon can end the apps once it knows them.
            channel.send(&Report::Terminate, &[])?;
        }
        Ok(())
    }

    /// Executes the daemon's orders, or replaces the daemon if it has died.
    pub(super) fn obey(&mut self) -> Result<()> {
        loop {
            let Some(daemon) = &mut self.daemon else { return Ok(()) };
            daemon.channel.flush();
            match daemon.channel.receive::<Order>() {
                Ok(None) => return self.watch_control(),
                Ok(Some((order, descriptors))) => self.execute(order, descriptors)?,
                Err(_) if self.is_over => return Ok(()),
                Err(_) => return self.replace_daemon("ended"),
            }
        }
    }

    /// Replaces a daemon that does not answer any more.
    pub(super) fn check_daemon(&mut self) -> Result<()> {
        let is_silent =
            self.daemon.as_mut().is_some_and(|daemon| daemon.channel.is_silent() && !proc::waits_for_disk(daemon.pid));
        if is_silent { self.replace_daemon("did not answer") } else { Ok(()) }
    }

    /// Watches for clients, unless the daemon still owes a sign of life: one that hangs is noticed when somebody needs it.
    fn watch_control(&mut self) -> Result<()> {
        let is_answered = self.daemon.as_ref().is_some_and(|daemon| daemon.channel.due().is_none());
        if let Some(control) = &self.control
            && self.control_token.is_none()
            && is_answered
        {
            self.control_token = Some(self.poller.add(control, Source::Control)?);
        }
        Ok(())
    }

    /// Whether the folder is this supervisor's. Whoever has removed it may have started another supervisor there.
    pub(super) fn owns_home(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| self.home.is_locked_by(lock))
    }

    /// Makes what is needed of the folder anew, if somebody has removed it; says why that cannot be done.
    pub(super) fn restore(&mut self) -> Result<()> {
        match self.restore_control() {
            Ok(()) => Ok(()),
            Err(error) => self.report(&Report::Remark(format!("{error:#}"))),
        }
    }

    fn restore_control(&mut self) -> Result<()> {
        let path = self.home.control();
        let has_lock = self.owns_home();
        if path.exists() && has_lock {
            return Ok(());
        }
        self.home.make()?;
        if !has_lock {
            let Some(lock) = start::lock(&self.home)? else {
                // Whoever has removed the folder has started another one there. The two would fight over it, and nobody could reach this one.
                let home = self.home.path().display();
                tell(
                    &self.home,
                    &format!("another supervisor runs in {home} by now: the one that was there before ends its apps"),
                );
                self.is_asked_to_end = true;
                return self.report(&Report::Terminate);
            };
            self.lock = Some(lock);
        }
        if !self.home.preload().exists() {
            start::write_preload(&self.home);
        }
        if std::env::var_os("NOTIFY_SOCKET").is_some() && !self.home.systemd().exists() {
            fs::write(self.home.systemd(), "")?;
        }
        let _ = fs::remove_file(&path);
        let control = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        if let (Some(before), Some(token)) = (&self.control, self.control_token.take()) {
            self.poller.remove(token, before);
        }
        self.control = Some(control.into());
        if let (Some(daemon), Some(control), Some(lock)) = (&mut self.daemon, &self.control, &self.lock) {
            daemon.channel.send(&Report::Control, &[control.as_fd(), lock.as_fd()])?;
        }
        self.watch_control()
    }

    /// Asks the daemon for a sign of life, since a client has come.
    pub(super) fn check_for_client(&mut self) -> Result<()> {
        if let (Some(control), Some(token)) = (&self.control, self.control_token.take()) {
            self.poller.remove(token, control);
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.channel.ask()?;
        }
        Ok(())
    }

    fn replace_daemon(&mut self, why: &str) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        self.poller.remove(daemon.token, &daemon.channel);
        let status = daemon.end()?;
        tell(&self.home, &format!("the daemon {why} ({status}) and is being replaced"));
        if !std::mem::take(&mut self.is_left) {
            self.remark = Some(format!("the daemon {why} and was replaced"));
        }
        if daemon.started.elapsed() < PAUSE {
            self.daemon_due = Some(Instant::now() + PAUSE);
        } else {
            self.try_daemon();
        }
        Ok(())
    }

    /// Starts a daemon, or retries later: a temporary shortage, such as of memory, must not end the workers.
    pub(super) fn try_daemon(&mut self) {
        let Err(error) = self.start_daemon() else { return };
        tell(&self.home, &format!("{error:#}"));
        if let Some(mut daemon) = self.daemon.take() {
            self.poller.remove(daemon.token, &daemon.channel);
            let _ = daemon.end();
        }
        self.daemon_due = Some(Instant::now() + PAUSE);
    }
}
