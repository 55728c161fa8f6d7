//! A user's own server as a process: below a guard, and ready once its port accepts.

use super::guard;
use super::running::{Running, UNTIL_READY, how};
use super::words::Words;
use crate::http::Url;
use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The time that it has: some load a virtual machine and a framework first.
const UNTIL_OWN_READY: Duration = Duration::from_secs(30);
/// The time after which its port is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Waits until something accepts at a URL, for as long as a server that is started may take to get there, and returns how long that took, or `None`
/// if it stays down: a service that stallbench did not start may be down for a moment, and `is_down` is told that at once.
///
/// # Errors
/// An interrupt.
pub fn wait_until_up(url: &Url, is_down: impl FnOnce()) -> Result<Option<Duration>> {
    let started = Instant::now();
    let is_up = || url.resolve().is_ok();
    if is_up() {
        return Ok(Some(Duration::ZERO));
    }
    is_down();
    while started.elapsed() < UNTIL_OWN_READY {
        if is_up() {
            return Ok(Some(started.elapsed()));
        }
        crate::console::interrupt::check()?;
        // Nothing tells when a foreign server listens.
        std::thread::sleep(AGAIN);
    }
    Ok(None)
}

impl Running {
    /// Starts a user's own server, in this environment, and waits until it accepts at the port, on either loopback address. Its command may return
    /// before that, as that of a daemon does, if it has succeeded and left a process behind.
    ///
    /// # Errors
    /// One that ends or stays silent instead, with the last lines that it printed.
    pub fn own(mut command: Command, name: &str, port: u16, cores: CpuSet) -> Result<Self> {
        let words = Words::short()?;
        command.stdin(Stdio::null()).stdout(words.stdout()?).stderr(words.stderr()?);
        let hold = guard::put_before(&mut command)?;
        // After the guard, which is not measured, has forked.
        let prepare = move || Ok(sched_setaffinity(Pid::from_raw(0), &cores)?);
        // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
        unsafe { command.pre_exec(prepare) };
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let mut running = Running::new(child, words);
        running.hold = Some(hold);
        running.warms_up_until = Some(started + UNTIL_OWN_READY);
        running.address = running.wait_until_accepting(name, port)?;
        running.until_ready = started.elapsed();
        Ok(running)
    }

    fn wait_until_accepting(&mut self, name: &str, port: u16) -> Result<SocketAddr> {
        let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        loop {
            let is_there = |address: &&SocketAddr| TcpStream::connect_timeout(address, UNTIL_READY).is_ok();
            if let Some(address) = addresses.iter().find(is_there) {
                return Ok(*address);
            }
            crate::console::interrupt::check()?;
            if let Some(status) = self.ended() {
                bail!("'{name}' ended with {} before it was ready{}{}", how(status), advice(status), self.last_words());
            }
            if !self.may_warm_up() {
                let most = UNTIL_OWN_READY.as_secs();
                let words = self.last_words();
                bail!("'{name}' does not accept at port {port} within {most} s: does its command use {{port}}?{words}");
            }
            // Nothing tells when a foreign server listens.
            std::thread::sleep(AGAIN);
        }
    }

    /// Whether a user's own server that says that it is not ready may still become so.
    pub fn may_warm_up(&self) -> bool {
        self.warms_up_until.is_some_and(|until| Instant::now() < until)
    }
}

fn advice(status: ExitStatus) -> &'static str {
    if status.success() { ": the command must not return before its server has ended, unless that runs below it" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;
    use std::fs;
    use std::io::Read;
    use std::net::TcpListener;

    /// A shell that is ready at once, since something listens at its port already.
    fn started(script: &str) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let cores = sched_getaffinity(Pid::from_raw(0)).unwrap();
        Running::own(command, "mine", listener.local_addr().unwrap().port(), cores).unwrap()
    }

    #[test]
    fn a_service_that_is_down_is_waited_for_until_it_is_up_again() {
        let mut listener = TcpListener::bind("127.0.0.1:0").ok();
        let address = listener.as_ref().unwrap().local_addr().unwrap();
        let url = Url::parse(&format!("http://{address}/")).unwrap();
        assert_eq!(wait_until_up(&url, || panic!("it is up")).unwrap(), Some(Duration::ZERO));
        drop(listener.take());
        let waited = wait_until_up(&url, || listener = TcpListener::bind(address).ok()).unwrap();
        assert!(listener.is_some() && waited.is_some_and(|waited| waited > Duration::ZERO));
    }

    #[test]
    fn a_daemon_whose_command_has_returned_is_measured_and_its_guard_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        assert!(Command::new("mkfifo").arg(&told).status().unwrap().success());
        // The grandchild says its number once its parents have ended.
        let daemon = format!("while kill -0 $1 2>&-; do :; done; exec 8>{}; echo $$ >&8; exec sleep 1000", told.display());
        let mut running = started(&format!("setsid sh -c '{daemon}' x $$ &"));
        let mut held = fs::File::open(&told).unwrap();
        let mut number = [0; 16];
        let count = held.read(&mut number).unwrap();
        let number: i32 = String::from_utf8_lossy(&number[..count]).trim().parse().unwrap();
        assert_eq!(running.pids(), [Pid::from_raw(number)]);
        assert!(running.ended().is_none() && running.memory().rss > 0);
        drop(running);
        held.read_to_end(&mut Vec::new()).unwrap();
    }
}
