//! What workers write, on its way to their logs.

use super::Keeper;
use super::log::Log;
use crate::channel::{Key, Report};
use anyhow::Result;

impl Keeper {
    pub(super) fn reopen_logs(&mut self) {
        self.logs.values_mut().for_each(Log::reopen);
    }

    /// Moves a worker's new output to its log, as far as its lines are complete.
    pub(super) fn log(&mut self, key: Key, stream: usize) -> Result<()> {
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        let Some(count) = worker.read(stream, &mut self.buffer, &mut self.poller) else { return Ok(()) };
        let lines = worker.lines[stream].push(&self.buffer[..count]).into_owned();
        self.write(key, stream, &lines)
    }

    /// Writes the beginning of a line whose end has not come; at the end of the worker, it is the last line.
    pub(super) fn log_rest(&mut self, key: Key, stream: usize, is_last: bool) -> Result<()> {
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        let mut rest = worker.lines[stream].take();
        // The next process begins a line of its own.
        let has_begun = self.logs.get(&worker.job.logs[stream].path).is_some_and(|log| log.has_begun(key));
        rest.extend((is_last && (has_begun || !rest.is_empty())).then_some(b'\n'));
        self.write(key, stream, &rest)
    }

    pub(super) fn write(&mut self, key: Key, stream: usize, lines: &[u8]) -> Result<()> {
        let Some(worker) = self.workers.get_mut(&key).filter(|_| !lines.is_empty()) else { return Ok(()) };
        let path = worker.job.logs[stream].path.clone();
        if worker.becomes_ready(stream, lines) {
            self.report(&Report::Ready(key))?;
        }
        let Some(log) = self.logs.get_mut(&path) else { return Ok(()) };
        match log.write(key, lines) {
            Some(trouble) => self.report(&Report::LogTrouble(path, trouble)),
            None => Ok(()),
        }
    }
}
