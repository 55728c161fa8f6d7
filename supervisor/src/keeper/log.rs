//! A log file that is rotated by size, so that all its files together stay within a bound.

use crate::channel::LogPlan;
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An open log.
pub struct Log {
    plan: LogPlan,
    file: Option<File>,
    size: u64,
    /// The log is a device or a pipe: writes never rotate it and never block.
    is_special: bool,
    is_at_line_start: bool,
    /// Error of the last write, if it failed.
    trouble: Option<String>,
}

impl Log {
    /// Creates a log whose file is opened at the first write.
    pub fn new(plan: LogPlan) -> Self {
        Log { plan, file: None, size: 0, is_special: false, is_at_line_start: true, trouble: None }
    }

    /// Applies new settings to the same file.
    pub fn plan(&mut self, plan: LogPlan) {
        self.plan = plan;
    }

    /// Writes the bytes, or drops them if that fails: a full disk must not block the worker. Returns `Some(Some(error))` when
    /// writes begin to fail, `Some(None)` when they work again, and `None` if nothing has changed.
    pub fn write(&mut self, bytes: &[u8]) -> Option<Option<String>> {
        let dated = self.plan.date_format.clone().map(|format| self.dated(bytes, &format));
        let error = self.append(dated.as_deref().unwrap_or(bytes)).err().map(|error| error.to_string());
        if error.is_some() {
            self.file = None;
        }
        let is_news = error.is_some() != self.trouble.is_some();
        self.trouble.clone_from(&error);
        is_news.then_some(error)
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

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        // Bytes that do not fit into one file are split across several.
        while !bytes.is_empty() {
            if self.file.is_none() {
                self.open()?;
            }
            if let (true, Some(file)) = (self.is_special, &mut self.file) {
                return file.write_all(bytes);
            }
            if self.size >= self.plan.max_size || self.size > 0 && self.size + bytes.len() as u64 > self.plan.max_size {
                self.rotate()?;
            }
            let room = usize::try_from(self.plan.max_size - self.size).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(file) = &mut self.file {
                file.write_all(now)?;
            }
            self.size += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let file = options.open(&self.plan.path)?;
        let metadata = file.metadata()?;
        (self.size, self.is_special) = (metadata.len(), !metadata.is_file());
        self.file = Some(file);
        Ok(())
    }

    /// Renames the log: the newest rotated file ends with `.1`, and the oldest is removed.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.plan.keep).rev() {
            let _ = fs::rename(rotated(&self.plan.path, number), rotated(&self.plan.path, number + 1));
        }
        if self.plan.keep == 0 {
            fs::remove_file(&self.plan.path)?;
        } else {
            fs::rename(&self.plan.path, rotated(&self.plan.path, 1))?;
        }
        self.open()
    }

    fn dated(&mut self, bytes: &[u8], format: &str) -> Vec<u8> {
        let now = date(format);
        let mut dated = Vec::with_capacity(bytes.len() + now.len() + 2);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_at_line_start {
                dated.extend_from_slice(now.as_bytes());
                dated.push(b' ');
            }
            dated.extend_from_slice(line);
            self.is_at_line_start = line.ends_with(b"\n");
        }
        dated
    }
}

/// Empties a log that no worker writes to, and removes its rotated files.
pub fn flush(path: &Path, keep: u32) {
    // Missing files are not an error.
    let _ = OpenOptions::new().write(true).truncate(true).open(path);
    for number in 1..=keep {
        let _ = fs::remove_file(rotated(path, number));
    }
}

/// Path of the rotated file of this number.
pub fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn date(format: &str) -> String {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).unwrap_or_else(|_| format.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, max_size: u64, keep: u32) -> Log {
        Log::new(LogPlan { path: folder.join("app.log"), max_size, keep, date_format: None })
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
            assert_eq!(log.write(b"a line of some length\n"), None);
        }
        let sizes = sizes(folder.path());
        assert_eq!(sizes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["app.log", "app.log.1", "app.log.2"]);
        assert!(sizes.iter().all(|(_, size)| *size <= 100), "{sizes:?}");
    }

    #[test]
    fn a_chunk_longer_than_a_file_is_split() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100, 3);
        log.write(&[b'x'; 250]);
        let sizes: Vec<u64> = sizes(folder.path()).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [50, 100, 100]);
    }

    #[test]
    fn an_existing_log_is_appended_to_and_a_flushed_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 100, 1).write(b"before\n");
        let mut log = log(folder.path(), 100, 1);
        log.write(b"after\n");
        assert_eq!(fs::read_to_string(folder.path().join("app.log")).unwrap(), "before\nafter\n");
        log.flush();
        assert_eq!(sizes(folder.path()), [("app.log".to_owned(), 0)]);
        log.write(b"again\n");
        assert_eq!(fs::read_to_string(folder.path().join("app.log")).unwrap(), "again\n");
    }

    #[test]
    fn a_device_is_written_to_and_never_rotated() {
        let mut log = Log::new(LogPlan { path: "/dev/null".into(), max_size: 10, keep: 1, date_format: None });
        assert_eq!(log.write(&[b'x'; 100]), None);
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file() && !Path::new("/dev/null.1").exists());
    }

    #[test]
    fn a_failing_log_is_reported_once_and_so_is_its_recovery() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not-there-yet");
        let mut log = log(&path, 100, 1);
        assert!(log.write(b"one\n").unwrap().is_some());
        assert_eq!(log.write(b"two\n"), None);
        fs::create_dir(&path).unwrap();
        assert_eq!(log.write(b"three\n"), Some(None));
        assert_eq!(fs::read_to_string(path.join("app.log")).unwrap(), "three\n");
    }

    #[test]
    fn each_line_is_prefixed_with_the_date_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let mut log = Log::new(LogPlan { path: path.clone(), max_size: 1000, keep: 1, date_format: Some("[%Y]".into()) });
        log.write(b"half ");
        log.write(b"a line\nthe next\n");
        let text = fs::read_to_string(path).unwrap();
        let year = date("[%Y]");
        assert_eq!(text, format!("{year} half a line\n{year} the next\n"));
    }
}
