//! What an adopted worker leaves behind. These processes are not children of this keeper, so nobody reports their ends: each is watched.

use crate::channel::Key;
use crate::keeper::Source;
use crate::poll::{Poller, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;

/// Processes that are watched.
#[derive(Default)]
pub struct Remains(Vec<(OwnedFd, Token)>);

impl Remains {
    /// Watches these processes in place of those before; returns whether any of them runs.
    pub fn watch(&mut self, pids: impl Iterator<Item = i32>, key: Key, poller: &mut Poller<Source>) -> bool {
        self.0.drain(..).for_each(|(pidfd, token)| poller.remove(token, pidfd));
        for pid in pids.filter_map(Pid::from_raw) {
            // The end of one that cannot be watched is not waited for.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
                && !has_ended(&pidfd)
                && let Ok(token) = poller.add(&pidfd, Source::End(key))
            {
                self.0.push((pidfd, token));
            }
        }
        !self.0.is_empty()
    }
}

/// Returns whether a process has ended, even if nobody has reaped it.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}
