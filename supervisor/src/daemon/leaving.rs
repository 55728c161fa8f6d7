//! The replacement of this program by another version, which takes everything over.

use super::{Daemon, store};
use crate::control::Answer;
use anyhow::{Result, anyhow};
use std::path::PathBuf;

/// The replacement of this program by another version.
pub struct Leaving {
    /// The client that waits for it.
    pub client: u64,
    /// The new keeper was asked for a sign of life after the last order.
    is_asked: bool,
}

impl Daemon {
    /// Hands everything over to a keeper of another version of this program.
    pub(super) fn update(&mut self, client: u64, program: PathBuf) -> Result<()> {
        let begun = if self.core.is_at_work() {
            Err(anyhow!("another command is in progress: retry when it is done"))
        } else {
            self.repair_all().and_then(|()| self.replace_keeper(program))
        };
        match begun {
            Ok(()) => {
                self.leaving = Some(Leaving { client, is_asked: false });
                // Who comes now is served by the next daemon.
                if let (Some(control), Some(token)) = (&self.control, self.control_token.take()) {
                    self.poller.remove(token, control);
                }
            }
            Err(error) => self.clients.answer(client, &Answer::Error(format!("{error:#}"))),
        }
        Ok(())
    }

    /// Writes the specifications anew whose files are damaged: the next daemon has nothing else to read.
    pub(super) fn repair_all(&self) -> Result<()> {
        self.core.specs().try_for_each(|spec| store::repair(spec, &self.home.spec(&spec.name)).map(drop))
    }

    /// Ends once the keeper of the other version has everything: it starts a daemon of its own then.
    pub(super) fn leave(&mut self) -> Result<()> {
        let Some(leaving) = self.leaving.as_mut().filter(|_| self.keeper.channel.due().is_none()) else { return Ok(()) };
        // What it has answered may have been asked before the last order.
        if !std::mem::replace(&mut leaving.is_asked, true) {
            return Ok(self.keeper.channel.ask()?);
        }
        let done = Answer::Done("the supervisor was replaced; its apps kept running".into());
        self.clients.answer(leaving.client, &done);
        self.clients.flush(&mut self.poller);
        self.is_over = true;
        Ok(())
    }
}
