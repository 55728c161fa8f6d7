//! A process that kills a group of processes once this one has ended, however it ends: a shell that the kernel kills with its parent takes what it has
//! started with it only this way.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The guard of a group. Dropped, it ends without doing anything.
pub struct Guard(Child);

impl Guard {
    /// Guards the group of a process that leads one.
    ///
    /// # Errors
    /// There is no shell, or no process left for it.
    pub fn of(leader: &Child) -> Result<Self> {
        let mut guard = Command::new("/bin/sh");
        // Nobody writes: the read ends when the other end of the pipe is closed, which nobody else has.
        guard.args(["-c", "read _; kill -s KILL -- -$0", &leader.id().to_string()]);
        // Ctrl-C on a terminal is not for it.
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        guard.spawn().map(Guard).context("cannot start the guard of a server")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Its input is still open.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    #[test]
    fn a_group_ends_with_whoever_had_its_guard_and_not_before() {
        let mut leader = Command::new("/bin/sh");
        leader.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped()).process_group(0);
        let mut leader = leader.spawn().unwrap();
        let mut output = BufReader::new(leader.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        drop(Guard::of(&leader).unwrap());
        assert!(leader.try_wait().unwrap().is_none());
        let mut guard = Guard::of(&leader).unwrap();
        // As the kernel closes it when its owner ends.
        drop(guard.0.stdin.take());
        guard.0.wait().unwrap();
        assert!(!leader.wait().unwrap().success());
        // Its end is that of the child, which has it too.
        output.read_to_string(&mut String::new()).unwrap();
    }
}
