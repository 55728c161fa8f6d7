//! `logs`: the end of what instances wrote, and what they write from now on.

use super::client;
use crate::cli::Logs;
use anyhow::{Context, Result, bail};
use rustix::fs::inotify;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use supervisor::control::{Table, View};
use supervisor::files::{tail, tail_of};
use supervisor::rotated;

/// Longest line that is expected: so many bytes are looked at for each line wanted.
const LINE: u64 = 1024;

/// A log that is read on.
struct Followed {
    label: String,
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
}

/// Prints them.
///
/// # Errors
/// There is no such instance.
pub fn run(logs: &Logs) -> Result<()> {
    let table = client::table()?;
    let mut followed = Vec::new();
    add(&mut followed, &table, logs)?;
    if table.instances.is_empty() {
        bail!("nothing was started");
    }
    if followed.is_empty() {
        bail!("there is no app or id '{}'", logs.target);
    }
    if logs.follow { follow(&mut followed, logs) } else { Ok(()) }
}

/// Prints the end of each log that is meant and not yet followed.
fn add(followed: &mut Vec<Followed>, table: &Table, logs: &Logs) -> Result<()> {
    let is_meant = |one: &&View| logs.target == "all" || one.name == logs.target || one.id.to_string() == logs.target;
    for one in table.instances.iter().filter(is_meant) {
        for (path, stream) in one.logs.iter().zip(["out", "error"]) {
            if !followed.iter().any(|log| log.path == *path) {
                let label = format!("{}|{} {stream}| ", one.id, one.name);
                let mut log = Followed { label, path: path.clone(), file: None, rest: Vec::new() };
                log.print_end(logs.lines)?;
                followed.push(log);
            }
        }
    }
    Ok(())
}

impl Followed {
    /// The last lines, rotated files before this one included; what comes after them is left for [`Self::print_new`].
    fn print_end(&mut self, lines: usize) -> Result<()> {
        let wanted = (lines as u64).saturating_mul(LINE);
        let (mut text, file) = match File::open(&self.path) {
            Ok(mut file) => (tail_of(&mut file, wanted)?, Some(file)),
            Err(_) => (Vec::new(), None),
        };
        self.file = file;
        for number in 1.. {
            if text.len() as u64 >= wanted || text.iter().filter(|byte| **byte == b'\n').count() > lines {
                break;
            }
            match tail(&rotated(&self.path, number), wanted) {
                Ok(before) => text.splice(..0, before),
                Err(_) => break,
            };
        }
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.rest = text.split_off(end);
        let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        all[all.len().saturating_sub(lines)..].iter().try_for_each(|line| print(&self.label, line))
    }

    /// What has come since the last time, also over rotations.
    fn print_new(&mut self) -> Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                // It was emptied.
                if file.metadata()?.len() < file.stream_position()? {
                    file.seek(SeekFrom::Start(0))?;
                    self.rest.clear();
                }
                file.read_to_end(&mut self.rest)?;
                while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    print(&self.label, &line)?;
                }
            }
            match self.next() {
                Some(path) => self.file = File::open(path).ok(),
                None => return Ok(()),
            }
        }
    }

    /// The file that was begun after the one that is open, if there is one.
    fn next(&self) -> Option<PathBuf> {
        let inode = |path: &Path| fs::metadata(path).map(|metadata| metadata.ino()).ok();
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|metadata| metadata.ino());
        let mut newer = self.path.clone();
        if inode(&newer)? == open.unwrap_or(0) {
            return None;
        }
        for number in 1.. {
            let older = rotated(&self.path, number);
            match inode(&older) {
                Some(found) if Some(found) != open => newer = older,
                // The one before it is ours; or ours is gone, and the oldest that is there comes next.
                _ => break,
            }
        }
        Some(if open.is_some() { newer } else { self.path.clone() })
    }
}

/// Prints what comes, also of instances that come later.
fn follow(followed: &mut Vec<Followed>, logs: &Logs) -> Result<()> {
    let folders: BTreeSet<&Path> = followed.iter().filter_map(|log| log.path.parent()).collect();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("inotify")?;
    for folder in folders {
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, folder, events).with_context(|| folder.display().to_string())?;
    }
    let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut seen = BTreeSet::new();
    loop {
        followed.iter_mut().try_for_each(Followed::print_new)?;
        let mut is_new = false;
        loop {
            let event = events.next()?;
            is_new |= event.file_name().is_some_and(|name| seen.insert(name.to_owned()));
            if events.is_buffer_empty() {
                break;
            }
        }
        // A file that was not seen before may be a new instance's; the daemon knows, if it is there.
        if is_new && let Ok(table) = client::table() {
            add(followed, &table, logs)?;
        }
    }
}

/// Prints a line; where nobody reads any more, this is the end.
fn print(label: &str, line: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(label.as_bytes()).and_then(|()| output.write_all(line)).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}
