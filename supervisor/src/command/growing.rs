//! A file that grows, and is replaced by another when it has become long.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::{Errno, retry_on_intr};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use supervisor::files::{self, last_lines};
use supervisor::rotated;

/// Most of a file that is read at once, in bytes.
const PIECE: u64 = 1 << 20;
/// What stands in place of lines that nobody can read any more.
const LOST: &[u8] = b"(lines may have been lost here: the log was rotated faster than it was read)\n";

/// The file.
pub struct Growing {
    /// Its path.
    pub path: PathBuf,
    file: Option<File>,
    /// The beginning of a line that is not complete yet.
    rest: Vec<u8>,
}

impl Growing {
    /// Begins before its first line.
    pub fn new(path: PathBuf) -> Self {
        Growing { path, file: None, rest: Vec::new() }
    }

    /// Returns the last lines, including those in rotated files. A line without an end is left to [`Self::new_lines`].
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub fn last_lines(&mut self, lines: usize) -> io::Result<Vec<u8>> {
        let (mut text, file) = match files::open(&self.path) {
            Ok(mut file) => (last_lines(&mut file, lines)?, Some(file)),
            // It would seem empty.
            Err(error) if [Some(Errno::MFILE), Some(Errno::NFILE)].contains(&Errno::from_io_error(&error)) => return Err(error),
            Err(_) => (Vec::new(), None),
        };
        self.file = file;
        for number in 1.. {
            let there = text.split_inclusive(|byte| *byte == b'\n').count();
            let Some(older) = files::open(&rotated(&self.path, number)).ok().filter(|_| there < lines) else { break };
            text.splice(..0, last_lines(&mut { older }, lines - there)?);
        }
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.rest = text.split_off(end);
        Ok(text)
    }

    /// Takes the beginning of a line that is not complete yet.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// Returns lines that have been added since the last call, even across rotations: some of them, and none if there are no more.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub fn new_lines(&mut self) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        while lines.is_empty() {
            if let Some(file) = &mut self.file {
                // It has been emptied.
                if file.metadata()?.len() < file.stream_position()? {
                    file.seek(SeekFrom::Start(0))?;
                    self.rest.clear();
                }
                let count = file.take(PIECE).read_to_end(&mut self.rest)? as u64;
                let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                lines.extend(self.rest.drain(..end));
                if count == PIECE {
                    continue;
                }
            }
            let Some((path, is_next)) = self.next() else { break };
            // Otherwise it has just been replaced by another, or it is not to be read.
            let Ok(file) = files::open(&path) else { break };
            self.file = Some(file);
            if !is_next {
                lines.extend(LOST);
            }
        }
        Ok(lines)
    }

    /// Returns the next file after the open one, if there is one, and whether there was none between them.
    fn next(&self) -> Option<(PathBuf, bool)> {
        // A pipe or a device has no end to follow.
        let inode = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.ino());
        let known = self.file.as_ref().and_then(|file| file.metadata().ok());
        let open = known.as_ref().map(MetadataExt::ino);
        let is_older = |path: &Path| {
            let own = known.as_ref().and_then(|known| known.modified().ok());
            fs::metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|other| own.is_some_and(|own| other < own))
        };
        let mut newer = self.path.clone();
        if inode(&newer)? == open.unwrap_or(0) {
            return None;
        }
        if open.is_none() {
            return Some((newer, true));
        }
        // Back to ours, or to what was written before it, if ours was removed, or to nothing: then ours is gone, and perhaps others after it.
        let mut number = 1;
        loop {
            let older = rotated(&self.path, number);
            match inode(&older) {
                Some(found) if Some(found) != open && !is_older(&older) => newer = older,
                found => return Some((newer, found.is_some() || number == 1)),
            }
            number += 1;
        }
    }
}

/// Waits for changes in folders.
pub struct Changes {
    watch: OwnedFd,
    folders: BTreeSet<PathBuf>,
    /// The other descriptor was closed when the last changes came.
    has_ended: Cell<bool>,
}

impl Changes {
    /// Watches no folder yet.
    ///
    /// # Errors
    /// Fails if the system has no more watches.
    pub fn new() -> io::Result<Self> {
        Ok(Changes {
            watch: inotify::init(inotify::CreateFlags::CLOEXEC)?,
            folders: BTreeSet::new(),
            has_ended: Cell::new(false),
        })
    }

    /// Watches a folder, unless it is watched already.
    ///
    /// # Errors
    /// Fails if there is no such folder.
    pub fn watch(&mut self, folder: &Path) -> io::Result<()> {
        if !self.folders.contains(folder) {
            let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&self.watch, folder, kinds)?;
            self.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Waits until something has changed, if it is to wait; returns the names of the files, and an empty one if there were too many. `None` once the other
    /// descriptor is closed and what came before that was returned.
    ///
    /// # Errors
    /// Fails if a system call fails.
    pub fn wait(&self, end: Option<BorrowedFd<'_>>, is_patient: bool) -> io::Result<Option<BTreeSet<OsString>>> {
        let sources = std::iter::once(self.watch.as_fd()).chain(end);
        let mut sources: Vec<PollFd<'_>> = sources.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)).collect();
        let limit = (!is_patient).then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
        retry_on_intr(|| poll(&mut sources, limit.as_ref()))?;
        let [has_changed, has_ended] =
            [0, 1].map(|number| sources.get(number).is_some_and(|one: &PollFd<'_>| !one.revents().is_empty()));
        if has_ended && (!has_changed || self.has_ended.replace(true)) {
            return Ok(None);
        }
        if !has_changed {
            return Ok(Some(BTreeSet::new()));
        }
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
        let mut names = BTreeSet::new();
        loop {
            let event = reader.next()?;
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                names.insert(OsString::new());
            }
            names.extend(event.file_name().map(|name| OsString::from(name.to_string_lossy().into_owned())));
            if reader.is_buffer_empty() {
                return Ok(Some(names));
            }
        }
    }
}
