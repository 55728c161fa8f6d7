//! The supervisor's own folder: it is made anew where something of it was removed, since nobody could reach the supervisor without it, and what its disk has
//! no room for is refused.

use super::{Daemon, store};
use crate::channel::Order;
use crate::control::Answer;
use crate::core::{Input, Saved};
use anyhow::Result;
use rustix::fs::inotify::WatchFlags;
use std::time::{Duration, Instant};

/// Pause before the state is saved again, after it could not be.
pub const SAVE_AGAIN: Duration = Duration::from_secs(1);

impl Daemon {
    /// Whether the folder is this supervisor's. Whoever has removed it may have started another supervisor there.
    pub(super) fn owns_home(&self) -> bool {
        self.lock.as_ref().is_none_or(|lock| self.home.is_locked_by(lock))
    }

    /// Why nothing is started or written meanwhile.
    pub(super) fn lost(&self) -> String {
        format!("{} was removed: retry in a moment", self.home.path().display())
    }

    /// Refuses a request that could not be written to the disk: the next daemon would undo it. Returns whether it has.
    pub(super) fn refuse_without_room(&mut self, id: u64) -> bool {
        let result = self.home.check_room();
        result.as_ref().err().into_iter().for_each(|error| self.clients.answer(id, &Answer::Error(format!("{error:#}"))));
        result.is_err()
    }

    /// Writes the list for the next daemon.
    pub(super) fn save(&mut self, saved: Saved) -> Result<()> {
        if self.is_over || !self.owns_home() {
            // It is saved again once the folder is there.
            self.save_due = None;
            return Ok(());
        }
        match store::save(saved, &self.home) {
            Ok(()) => {
                self.save_due = None;
                // It is not so any more.
                self.save_trouble.take().into_iter().for_each(|trouble| self.core.retract(&trouble));
                Ok(())
            }
            // A full disk must not stop the apps; `list` shows the error, and it is tried again.
            Err(error) => {
                self.save_due = Some(Instant::now() + SAVE_AGAIN);
                let trouble = format!("{error:#}");
                let before = self.save_trouble.replace(trouble.clone());
                before.filter(|before| *before != trouble).iter().for_each(|before| self.core.retract(before));
                self.handle(Input::Remark(trouble))
            }
        }
    }

    /// Watches the folder. Where that cannot be, nobody notices its end.
    pub(super) fn watch_home(&mut self) -> Result<()> {
        let path = self.home.path().to_owned();
        match self.add_watch(&path, WatchFlags::DELETE | WatchFlags::MOVE_SELF) {
            Ok(number) => self.watch.home = Some(number),
            Err(error) => self.handle(Input::Remark(format!("{error:#}")))?,
        }
        Ok(())
    }

    /// Makes the folder anew; returns to it later until all of it is there.
    pub(super) fn restore_home(&mut self) -> Result<()> {
        let path = self.home.path().display().to_string();
        self.watch.return_to_home();
        let remark = if let Err(error) = self.home.make() {
            Some(format!("{path} was removed, and cannot be made anew: {error:#}"))
        } else if !self.owns_home() || !self.home.control().exists() {
            // The keeper takes the lock and listens, and reports both. Or it finds another supervisor there, and ends.
            match self.order(&Order::Reopen)? {
                Some(input) => return self.handle(input),
                None => None,
            }
        } else if let Err(error) = self.repair_all() {
            Some(format!("{error:#}"))
        } else {
            self.watch.home_due = None;
            self.core.note_unsaved();
            self.watch_home()?;
            Some(format!(
                "{path} was removed, and was made anew: old logs and what `save` had saved may be lost, and processes that run report no status until they are restarted"
            ))
        };
        remark.map_or(Ok(()), |remark| self.handle(Input::Remark(remark)))
    }
}
