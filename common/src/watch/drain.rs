//! The end of a process: no new connections, then no idle ones, then none.

use super::clients::unread;
use super::{Incoming, Phase, Watch, cut};
use crate::dispatch::{ParentState, WorkerSlot};
use crate::say;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the accept loops' sources are looked at while connections wait in them, or may still come from the parent.
const LOOK: Duration = Duration::from_millis(5);

/// A worker that is told to end waits this long for its parent to say that it ends too. A parent that does not has told the worker nothing: it is
/// the worker alone that ends, and others take the connections to come.
const ALONE: Duration = Duration::from_millis(500);

/// The progress of a drain.
pub(super) struct Drain {
    begin: Instant,
    /// Until then the server still answers requests that arrive on idle connections.
    idle_end: Instant,
    /// At this time the process ends even if connections are still open.
    end: Instant,
    has_stopped: bool,
    has_cut_idle: bool,
}

impl Drain {
    /// The time at which the next thing happens by itself.
    pub fn next_deadline(&self) -> Instant {
        let next = if self.has_cut_idle { self.end } else { self.idle_end.min(self.end) };
        if self.has_stopped { next } else { next.min(Instant::now() + LOOK) }
    }
}

impl Watch {
    pub(super) fn begin_drain(&self) -> Drain {
        self.is_draining.store(true, Ordering::SeqCst);
        let now = Instant::now();
        Drain {
            begin: now,
            idle_end: now + self.limits.drain_idle,
            end: now + self.limits.drain,
            has_stopped: false,
            has_cut_idle: false,
        }
    }

    pub(super) fn continue_drain(&self, drain: &mut Drain) {
        let now = Instant::now();
        // A connection that waits in a listener is reset when that closes, and so is one that the parent holds when its workers end. So the
        // loops accept until none waits, even if they are late because they were blocked.
        if !drain.has_stopped && (now >= drain.end || !self.may_accept_more(now.duration_since(drain.begin))) {
            drain.has_stopped = true;
            let _ = self.stop.write(1);
            // A parent that goes on offers it no more.
            WorkerSlot::here().into_iter().for_each(WorkerSlot::leave);
        }
        if !drain.has_cut_idle && now >= drain.idle_end {
            drain.has_cut_idle = true;
            // From now on a connection closes behind its next answer, and a new one is not kept open.
            self.is_past_idle.store(true, Ordering::SeqCst);
            self.cut_idle();
        }
        let entries = self.entries().len();
        let is_drained = entries == 0 && drain.has_stopped && self.acceptors().is_empty();
        if now >= drain.end && entries > 0 {
            say!("drain: the --drain time is up; {entries} connections are cut off");
        }
        if is_drained || now >= drain.end {
            std::process::exit(0);
        }
    }

    /// Whether connections wait in a listener or a channel, or may still come from the parent, so long after the drain began.
    fn may_accept_more(&self, passed: Duration) -> bool {
        self.acceptors().iter().any(|(_, source)| match source {
            // SAFETY: an acceptor takes its listener out of the list, under the lock, before it closes it.
            Incoming::Listener(fd) => events(unsafe { BorrowedFd::borrow_raw(*fd) }).contains(PollFlags::POLLIN),
            Incoming::Library => false,
            // The channel of a parent that is gone hangs up.
            Incoming::Parent(slot) => {
                let (state, events) = (slot.parent(), events(slot.as_fd()));
                let may_come = state == ParentState::Draining || state == ParentState::Serving && passed < ALONE;
                !events.contains(PollFlags::POLLHUP)
                    && (may_come || state == ParentState::Serving && events.contains(PollFlags::POLLIN))
            }
        })
    }

    /// Ends the receiving side of idle connections: their owners see an end of file and close. A request that is on its way, by
    /// what was read of it or by what lies in the socket, is answered first.
    fn cut_idle(&self) {
        for (_, entry) in self.entries().iter() {
            let phase = Phase::of(entry.marks.phase.load(Ordering::Acquire));
            if phase == Phase::Open && unread(entry.socket) == 0 {
                cut(entry.socket, Shutdown::Read);
            }
        }
    }
}

fn events(fd: BorrowedFd<'_>) -> PollFlags {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].revents().unwrap_or(PollFlags::empty())
}
