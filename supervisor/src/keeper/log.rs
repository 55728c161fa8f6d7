//! A log file that is rotated by size, so that all its files together stay within a bound.

mod files;

pub use files::{Place, flush, rotated};

use crate::channel::{Key, LogPlan};
use files::{careful, explain, remove_rotated};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

/// An open log.
pub struct Log {
    plan: LogPlan,
    file: Option<File>,
    size: u64,
    /// Identifies the open file, which another program may have moved or removed.
    inode: u64,
    /// The log is a device or a pipe: writes never rotate it and never block.
    is_special: bool,
    /// The worker whose line has no end yet.
    open_line: Option<Key>,
    /// Error of the last write, if it failed.
    trouble: Option<String>,
}

impl Log {
    /// Creates a log whose file is opened at the first write.
    pub fn new(plan: LogPlan) -> Self {
        Log { plan, file: None, size: 0, inode: 0, is_special: false, open_line: None, trouble: None }
    }

    /// Applies new settings to the same file.
    pub fn plan(&mut self, plan: LogPlan) {
        self.plan = plan;
    }

    /// Writes the bytes, or drops them if that fails: a full disk must not block the worker. Returns `Some(Some(error))` when
    /// writes begin to fail, `Some(None)` when they work again, and `None` if nothing has changed.
    pub fn write(&mut self, key: Key, bytes: &[u8]) -> Option<Option<String>> {
        let is_open = self.open_line.is_some();
        let continues = self.open_line == Some(key);
        self.open_line = (!bytes.ends_with(b"\n")).then_some(key);
        let mut text = Vec::new();
        // The line of another worker ends here.
        text.extend((is_open && !continues).then_some(b'\n'));
        match &self.plan.date_format {
            Some(format) => dated(bytes, &date(format), continues, &mut text),
            None => text.extend_from_slice(bytes),
        }
        // What belongs to the line that the file ends with.
        let end = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        let error = self.append(&text, if is_open { end } else { 0 }).err().map(|error| explain(&error));
        if error.is_some() {
            self.file = None;
        }
        let is_news = error.is_some() != self.trouble.is_some();
        self.trouble.clone_from(&error);
        is_news.then_some(error)
    }

    /// Returns whether the log ends with a line of this worker that has no end yet.
    pub fn has_begun(&self, key: Key) -> bool {
        self.open_line == Some(key)
    }

    /// The error of the last write, if it failed.
    pub fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    /// Opens the file anew at the next write: another program may have moved it.
    pub fn reopen(&mut self) {
        self.file = None;
    }

    /// Empties the log, and removes its rotated files.
    pub fn flush(&mut self) {
        self.file = None;
        flush(&self.plan.path, self.plan.keep);
    }

    /// Writes bytes, the first `end` of which belong to the file's last line.
    fn append(&mut self, mut bytes: &[u8], mut end: usize) -> io::Result<()> {
        let is_there = || fs::metadata(&self.plan.path).is_ok_and(|metadata| metadata.ino() == self.inode);
        if self.file.is_some() && !self.is_special && !is_there() {
            self.file = None;
        }
        // Bytes that do not fit into one file are split across several.
        while !bytes.is_empty() {
            if self.file.is_none() {
                self.open()?;
            }
            let Some(file) = &mut self.file else { return Ok(()) };
            if self.is_special {
                return file.write_all(bytes);
            }
            let room = |size: u64| usize::try_from(size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            // The file runs over for the end of a line, but a line without an end must not fill the disk.
            let end = std::mem::take(&mut end);
            let runs_over = 0 < end && end <= room(self.plan.max_size.saturating_mul(2));
            let count = if runs_over { end } else { fitting(bytes, room(self.plan.max_size), self.size == 0) };
            if count == 0 {
                self.rotate()?;
                continue;
            }
            let (now, later) = bytes.split_at(count);
            file.write_all(now)?;
            self.size += count as u64;
            bytes = later;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        // Its folder may have been removed.
        let place = Place::of(&self.plan.path, true)?;
        let is_new = !place.path.exists();
        let file = careful(&self.plan.path).append(true).create(true).mode(self.plan.mode).open(&place.path)?;
        let metadata = file.metadata()?;
        if is_new && metadata.is_file() {
            // The keeper's umask leaves nothing to others, and has taken that from the mode. Some file systems have no modes.
            let _ = file.set_permissions(fs::Permissions::from_mode(self.plan.mode));
        }
        (self.size, self.inode, self.is_special) = (metadata.len(), metadata.ino(), !metadata.is_file());
        self.file = Some(file);
        Ok(())
    }

    /// Renames the log: the newest rotated file ends with `.1`, and the oldest is removed.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let (place, keep) = (Place::of(&self.plan.path, false)?, self.plan.keep);
        let path = &place.path;
        for number in (1..keep).rev() {
            let _ = fs::rename(rotated(path, number), rotated(path, number + 1));
        }
        if keep == 0 {
            fs::remove_file(path)?;
        } else {
            fs::rename(path, rotated(path, 1))?;
        }
        // More may have been kept before.
        remove_rotated(path, keep.saturating_add(1));
        self.open()
    }
}

/// Returns how many bytes go into a file with this much room: whole lines. Only a line that is longer than a file is cut.
fn fitting(bytes: &[u8], room: usize, is_empty: bool) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    let whole = bytes[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == 0 && is_empty { room } else { whole }
}

/// Adds lines, each with the date before it, except for the first one if it has begun already.
fn dated(bytes: &[u8], date: &str, mut continues: bool, text: &mut Vec<u8>) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !std::mem::take(&mut continues) {
            text.extend_from_slice(date.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line);
    }
}

fn date(format: &str) -> String {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).unwrap_or_else(|_| format.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const KEY: Key = Key { instance: 0, generation: 1 };
    const OTHER: Key = Key { instance: 1, generation: 1 };

    fn plan(folder: &Path, max_size: u64, keep: u32) -> LogPlan {
        LogPlan { path: folder.join("app.log"), max_size, keep, date_format: None, mode: 0o600 }
    }

    fn log(folder: &Path, max_size: u64, keep: u32) -> Log {
        Log::new(plan(folder, max_size, keep))
    }

    fn sizes(folder: &Path) -> Vec<(String, u64)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut sizes: Vec<(String, u64)> =
            entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect();
        sizes.sort();
        sizes
    }

    #[test]
    fn files_stay_within_their_size_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100, 2);
        for _ in 0..50 {
            assert_eq!(log.write(KEY, b"a line of some length\n"), None);
        }
        let sizes = sizes(folder.path());
        assert_eq!(sizes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["app.log", "app.log.1", "app.log.2"]);
        assert!(sizes.iter().all(|(_, size)| *size <= 100), "{sizes:?}");
    }

    #[test]
    fn a_chunk_longer_than_a_file_is_split() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100, 3);
        log.write(KEY, &[b'x'; 250]);
        let sizes: Vec<u64> = sizes(folder.path()).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [50, 100, 100]);
    }

    #[test]
    fn a_line_in_parts_stays_in_one_file_unless_it_is_longer_than_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 20, 9);
        for part in [&b"before it\nbegun"[..], b", continued", b" and ended\nafter\n"] {
            log.write(KEY, part);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("app.log.1").as_str(), read("app.log").as_str()),
            ("before it\nbegun, continued and ended\n", "after\n")
        );
        log.write(KEY, b"twenty characters, 1");
        log.write(OTHER, b"other\n");
        assert_eq!((read("app.log.1").as_str(), read("app.log").as_str()), ("twenty characters, 1\n", "other\n"));
        (0..100).for_each(|_| drop(log.write(KEY, b"no end")));
        assert!(sizes(folder.path()).iter().all(|(_, size)| *size <= 40), "{:?}", sizes(folder.path()));
    }

    #[test]
    fn fewer_rotated_files_are_kept_once_fewer_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 10, 5);
        (0..7).for_each(|_| drop(log.write(KEY, b"nine and\n")));
        assert_eq!(sizes(folder.path()).len(), 6);
        log.plan(plan(folder.path(), 10, 2));
        log.write(KEY, b"nine and\n");
        assert_eq!(sizes(folder.path()).len(), 3);
    }

    #[test]
    fn an_existing_log_is_appended_to_and_a_flushed_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 100, 1).write(KEY, b"before\n");
        let mut log = log(folder.path(), 100, 1);
        log.write(KEY, b"after\n");
        assert_eq!(fs::read_to_string(folder.path().join("app.log")).unwrap(), "before\nafter\n");
        log.flush();
        assert_eq!(sizes(folder.path()), [("app.log".to_owned(), 0)]);
        log.write(KEY, b"again\n");
        assert_eq!(fs::read_to_string(folder.path().join("app.log")).unwrap(), "again\n");
    }

    #[test]
    fn a_device_is_written_to_and_never_rotated() {
        let mut log = Log::new(LogPlan { path: "/dev/null".into(), ..plan(Path::new("/"), 10, 1) });
        assert_eq!(log.write(KEY, &[b'x'; 100]), None);
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file() && !Path::new("/dev/null.1").exists());
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100, 1);
        rustix::fs::mkfifoat(rustix::fs::CWD, &log.plan.path, rustix::fs::Mode::RWXU).unwrap();
        assert!(log.write(KEY, b"one\n").unwrap().is_some());
        log.flush();
    }

    #[test]
    fn a_failing_log_is_reported_once_and_so_is_its_recovery() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in-the-way");
        fs::write(&path, "").unwrap();
        let mut log = log(&path, 100, 1);
        assert!(log.write(KEY, b"one\n").unwrap().is_some());
        assert_eq!(log.write(KEY, b"two\n"), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(log.write(KEY, b"three\n"), Some(None));
        assert_eq!(fs::read_to_string(path.join("app.log")).unwrap(), "three\n");
    }

    #[test]
    fn a_folder_that_was_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs");
        let mut log = log(&path, 100, 1);
        assert_eq!(log.write(KEY, b"one\n"), None);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(log.write(KEY, b"two\n"), None);
        assert_eq!(fs::read_to_string(path.join("app.log")).unwrap(), "two\n");
    }

    #[test]
    fn each_line_is_prefixed_with_the_date_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(LogPlan { date_format: Some("[%Y]".into()), ..plan(folder.path(), 1000, 1) });
        log.write(KEY, b"half ");
        log.write(KEY, b"a line\nthe next\n");
        let text = fs::read_to_string(folder.path().join("app.log")).unwrap();
        let year = date("[%Y]");
        assert_eq!(text, format!("{year} half a line\n{year} the next\n"));
    }

    #[test]
    fn a_line_of_another_worker_begins_on_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(LogPlan { date_format: Some("-".into()), ..plan(folder.path(), 1000, 1) });
        log.write(KEY, b"begun");
        log.write(OTHER, b"other\n");
        log.write(KEY, b" and ended\n");
        assert_eq!(fs::read_to_string(folder.path().join("app.log")).unwrap(), "- begun\n- other\n-  and ended\n");
    }

    #[test]
    fn files_are_cut_between_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100, 9);
        (0..20).for_each(|_| drop(log.write(KEY, b"seventeen letters\neleven more\n")));
        for entry in fs::read_dir(folder.path()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(text.ends_with('\n') && text.len() <= 100, "{text}");
            assert!(text.lines().all(|line| ["seventeen letters", "eleven more"].contains(&line)), "{text}");
        }
    }

    #[test]
    fn a_log_that_was_moved_or_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let mut log = log(folder.path(), 1000, 1);
        log.write(KEY, b"one\n");
        fs::rename(&path, folder.path().join("moved")).unwrap();
        log.write(KEY, b"two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_file(&path).unwrap();
        log.write(KEY, b"three\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "precious\n").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join("app.log")).unwrap();
        let mut log = log(folder.path(), 1000, 1);
        let trouble = log.write(KEY, b"one\n").unwrap().unwrap();
        assert!(trouble.contains("is not followed"), "{trouble}");
        log.flush();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious\n");
    }
}
