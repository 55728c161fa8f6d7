//! What a worker says: over its notify socket, over the channel of a Node program, and by what it writes.

use super::Worker;
use crate::channel::Report;
use crate::keeper::Source;
use crate::keeper::ipc::{Ipc, Said};
use crate::keeper::lines::Lines;
use crate::poll::Poller;
use crate::proc;
use rustix::io::Errno;
use rustix::process::{Pid, Uid, getpgid};
use std::io;
use std::time::{Duration, Instant};

impl Worker {
    /// Reads its next message, and leaves it in the notify socket; returns the reports that follow from it, or `None` if there is no message.
    /// Ignores messages of processes outside its group, and of other users.
    pub fn read_word(&mut self) -> Option<Vec<Report>> {
        let (word, sender) = self.notify.read()?;
        let mut reports = Vec::new();
        let words = if self.is_of_user(sender.uid) && self.is_of_group(sender.pid) { word.as_str() } else { "" };
        for line in words.lines() {
            if line == "READY=1" && !self.is_ready {
                self.is_ready = true;
                reports.push(Report::Ready(self.key()));
            } else if line == "WATCHDOG=1" {
                reports.extend(self.lives());
            } else if let Some(status) = line.strip_prefix("STATUS=") {
                self.notify.set_status(status);
            }
        }
        reports.extend(self.report_status());
        Some(reports)
    }

    /// Notes a sign of life; returns a report if it is news.
    fn lives(&mut self) -> Option<Report> {
        let is_first = self.life.replace(Instant::now()).is_none();
        (std::mem::take(&mut self.is_stalled) || is_first).then(|| Report::Lives(self.key()))
    }

    /// When it has been silent for too long.
    fn silent_at(&self) -> Option<Instant> {
        let stall = Duration::from_millis(self.job.stall_ms?);
        self.life.filter(|_| self.runs() && !self.is_told_to_end).map(|life| life + stall)
    }

    /// The report that it has given no sign of life for too long, if so.
    pub(super) fn stalled(&self) -> Option<Report> {
        let is_late = self.silent_at().is_some_and(|silent| silent <= Instant::now());
        let silence = self.life.filter(|_| is_late)?.elapsed();
        Some(Report::Stalled(self.key(), u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Notes that it has written these lines; returns whether they tell that it is ready. A line may come in parts.
    pub fn becomes_ready(&mut self, stream: usize, lines: &[u8]) -> bool {
        let Some(text) = self.job.ready_text.as_ref().filter(|_| !self.is_ready) else { return false };
        let begun = &mut self.begun[stream];
        begun.extend_from_slice(lines);
        let is_ready = String::from_utf8_lossy(begun).contains(text.as_str());
        let end = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        // No more than can begin the text.
        let first = if is_ready { begun.len() } else { end.max(begun.len().saturating_sub(text.len())) };
        begun.drain(..first);
        self.is_ready |= is_ready;
        is_ready
    }

    /// The newest status, unless another was reported a moment ago.
    fn report_status(&mut self) -> Option<Report> {
        self.notify.new_status().map(|status| Report::Status(self.key(), status))
    }

    /// Reads what a Node program says over its channel.
    pub fn hear_node(&mut self, poller: &mut Poller<Source>) -> Vec<Report> {
        let key = self.key();
        let said = self.ipc.as_mut().map(|ipc| ipc.read(poller)).unwrap_or_default();
        let mut reports = Vec::new();
        for said in said {
            match said {
                // It says so of each listener, and may say it for ever.
                Said::Ready => {
                    let is_given = self.ipc.as_mut().is_some_and(Ipc::take_given);
                    reports.extend((is_given || !self.is_ready).then_some(Report::Ready(key)));
                    self.is_ready = true;
                }
                Said::Lives => reports.extend(self.lives()),
                Said::Says(status) => self.notify.set_status(&status),
                Said::Wants(wish, address) => reports.push(Report::Wants(key, wish, address)),
                Said::Leaves(address) => {
                    // It may name any.
                    if let Some(number) = self.job.asked.iter().position(|asked| *asked == address) {
                        self.job.asked.remove(number);
                        self.job.has_left = true;
                        reports.push(Report::Leaves(key, address));
                    }
                }
            }
        }
        reports.extend(self.report_status());
        reports
    }

    /// The channel of a Node program.
    pub fn node(&mut self) -> Option<&mut Ipc> {
        self.ipc.as_mut()
    }

    /// Takes the message from the notify socket that was read.
    pub fn drop_word(&self) {
        self.notify.drop_word();
    }

    /// Leaves it alone for a moment, since it floods its notify socket.
    pub fn pause(&mut self, poller: &mut Poller<Source>) {
        self.notify.pause(poller);
    }

    /// When [`Self::tick`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        let silent = self.silent_at().filter(|_| !self.is_stalled);
        let ipc = self.ipc.as_ref().and_then(Ipc::due);
        self.lines.iter().filter_map(Lines::due).chain(self.notify.due()).chain(ipc).chain(silent).min()
    }

    /// Continues to read messages after a pause, reports a status that had to wait, and a silence that is too long.
    ///
    /// # Errors
    /// Fails if a socket cannot be watched.
    pub fn tick(&mut self, poller: &mut Poller<Source>) -> io::Result<Vec<Report>> {
        let key = self.key();
        self.notify.resume(key, poller)?;
        self.ipc.as_mut().map_or(Ok(()), |ipc| ipc.resume(key, poller))?;
        let stalled = self.stalled().filter(|_| !self.is_stalled);
        self.is_stalled |= stalled.is_some();
        Ok(stalled.into_iter().chain(self.report_status()).collect())
    }

    /// Every user can send to a name without a file. Its launcher does so as root.
    fn is_of_user(&self, sender: Uid) -> bool {
        !self.job.has_user || sender.is_root() || proc::user(self.pid()) == Some(sender.as_raw())
    }

    /// A wrapper's child may send messages for it, as may a helper such as `systemd-notify`, which has often ended by now.
    fn is_of_group(&self, sender: Pid) -> bool {
        sender.as_raw_pid() == self.identity.pid
            || getpgid(Some(sender)).map_or_else(|error| error == Errno::SRCH, |group| group.as_raw_pid() == self.identity.pid)
    }
}
