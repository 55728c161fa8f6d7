//! What the user is told: events, which are kept in a log, and remarks, which `list` shows.

use super::{Core, Output};
use crate::control;
use std::time::SystemTime;

/// Number of remarks to keep.
const MOST_REMARKS: usize = 10;

impl Core {
    /// Notes what has happened to an app.
    pub(super) fn note(&mut self, app: &str, id: Option<u32>, what: &str, why: Option<String>) {
        let since = self.now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let namespace = match self.table.app(app) {
            Some(app) => app.spec.options.namespace.clone(),
            None => self.gone.remove(app),
        };
        self.out.push(Output::Event(control::Event { at_ms, app: app.to_owned(), namespace, id, what: what.to_owned(), why }));
    }

    /// Adds a remark, unless it is there already: what recurs must not push the others out.
    pub(super) fn remark(&mut self, remark: String) {
        // The name of a process, or what it has written, must not do anything on the reader's terminal.
        let remark = if remark.contains(char::is_control) { remark.replace(char::is_control, " ") } else { remark };
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
            // Drops the oldest remark, so that a recurring error does not fill the memory.
            self.remarks.drain(..self.remarks.len().saturating_sub(MOST_REMARKS));
        }
    }

    /// Takes back a remark that is not true any more.
    pub fn retract(&mut self, remark: &str) {
        self.remarks.retain(|one| one != remark);
    }
}
