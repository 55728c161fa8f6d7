//! `logs` prints the last lines of logs, and new lines with `--follow`.

use super::client;
use crate::cli::Logs;
use anyhow::{Context, Result, bail};
use rustix::fs::inotify;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, IsTerminal, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use supervisor::control::{Table, View};
use supervisor::files::last_lines;
use supervisor::home::Home;
use supervisor::rotated;
use supervisor::spec::STREAMS;

/// A log that is being followed.
struct Followed {
    label: String,
    /// Control characters are printed as they are.
    is_raw: bool,
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line that is not complete yet.
    rest: Vec<u8>,
}

/// Prints the logs.
///
/// # Errors
/// Fails if there is no such instance.
pub fn run(logs: &Logs) -> Result<()> {
    let table = client::table()?;
    let mut followed = Vec::new();
    add(&mut followed, &table, logs, |_| logs.lines)?;
    if table.instances.is_empty() && logs.wait {
        return follow(&mut followed, logs);
    }
    if table.instances.is_empty() {
        bail!("no apps yet: run `supervisor start`");
    }
    if followed.is_empty() {
        bail!("there is no app or id '{}'", logs.target);
    }
    if logs.follow { follow(&mut followed, logs) } else { Ok(()) }
}

/// Prints the last lines of each requested log that is not followed yet.
fn add(followed: &mut Vec<Followed>, table: &Table, logs: &Logs, lines: impl Fn(&Path) -> usize) -> Result<()> {
    let is_meant = |one: &&View| logs.target == "all" || one.name == logs.target || one.id.to_string() == logs.target;
    for one in table.instances.iter().filter(is_meant) {
        for (path, stream) in one.logs.iter().zip(STREAMS) {
            if !followed.iter().any(|log| log.path == *path) {
                let label = format!("{}|{} {stream}| ", one.id, one.name);
                let is_raw = logs.raw || !std::io::stdout().is_terminal();
                let mut log = Followed { label, is_raw, path: path.clone(), file: None, rest: Vec::new() };
                log.print_end(lines(path), logs.follow)?;
                followed.push(log);
            }
        }
    }
    Ok(())
}

impl Followed {
    /// Prints the last lines, including those in rotated files. A line without an end is left to [`Self::print_new`], if that follows.
    fn print_end(&mut self, lines: usize, follows: bool) -> Result<()> {
        let (mut text, file) = match File::open(&self.path) {
            Ok(mut file) => (last_lines(&mut file, lines)?, Some(file)),
            Err(_) => (Vec::new(), None),
        };
        self.file = file;
        for number in 1.. {
            let there = text.split_inclusive(|byte| *byte == b'\n').count();
            let Some(older) = File::open(rotated(&self.path, number)).ok().filter(|_| there < lines) else { break };
            text.splice(..0, last_lines(&mut { older }, lines - there)?);
        }
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = text.split_off(end);
        text.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| print(&self.label, line, self.is_raw))?;
        if follows {
            self.rest = rest;
        } else if !rest.is_empty() {
            print(&self.label, &[&rest[..], b"\n"].concat(), self.is_raw)?;
        }
        Ok(())
    }

    /// Prints lines that have been added since the last call, even across rotations.
    fn print_new(&mut self) -> Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                // The log has been emptied.
                if file.metadata()?.len() < file.stream_position()? {
                    file.seek(SeekFrom::Start(0))?;
                    self.rest.clear();
                }
                file.read_to_end(&mut self.rest)?;
                while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    print(&self.label, &line, self.is_raw)?;
                }
            }
            match self.next() {
                Some(path) => self.file = File::open(path).ok(),
                None => return Ok(()),
            }
        }
    }

    /// Returns the next file after the open one, if there is one.
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
                // The previous candidate follows ours, or ours is gone and the oldest existing file comes next.
                _ => break,
            }
        }
        Some(if open.is_some() { newer } else { self.path.clone() })
    }
}

/// Prints new lines, including those of instances that start later.
fn follow(followed: &mut Vec<Followed>, logs: &Logs) -> Result<()> {
    let usual = Home::open()?.logs();
    let folders: BTreeSet<&Path> = followed.iter().filter_map(|log| log.path.parent()).chain([usual.as_path()]).collect();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("cannot set up inotify for --follow")?;
    for folder in folders {
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, folder, events).with_context(|| folder.display().to_string())?;
    }
    let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let before: BTreeSet<PathBuf> = fs::read_dir(&usual).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
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
        // A new file may belong to a new instance; the daemon knows, if it answers.
        if is_new && let Ok(table) = client::table() {
            // Nothing of a log that was not there is missed.
            add(followed, &table, logs, |path| if before.contains(path) { logs.lines } else { usize::MAX })?;
        }
    }
}

/// Prints a line, and exits if the reader has gone away.
fn print(label: &str, line: &[u8], is_raw: bool) -> Result<()> {
    let mut output = std::io::stdout().lock();
    let shown = if is_raw { Cow::Borrowed(line) } else { Cow::Owned(harmless(line)) };
    let line = &*shown;
    match output.write_all(label.as_bytes()).and_then(|()| output.write_all(line)).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// A line for a terminal: colours stay, and every other control character is shown instead of obeyed.
fn harmless(line: &[u8]) -> Vec<u8> {
    let mut shown = String::with_capacity(line.len());
    let text = String::from_utf8_lossy(line);
    let mut rest = &*text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = color(rest) {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match first {
            '\n' | '\t' => shown.push(first),
            '\0'..='\x1f' | '\x7f' => shown.extend(['^', char::from((first as u8) ^ 0x40)]),
            first if first.is_control() => shown.push('\u{fffd}'),
            first => shown.push(first),
        }
        rest = &rest[first.len_utf8()..];
    }
    shown.into_bytes()
}

/// The length of the colour sequence that a text begins with: `ESC [`, numbers, `m`.
fn color(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\x1b[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_and_no_commands() {
        let shown = |line: &str| String::from_utf8(harmless(line.as_bytes())).unwrap();
        assert_eq!(shown("\x1b[1;31mred\x1b[0m\tplain\n"), "\x1b[1;31mred\x1b[0m\tplain\n");
        assert_eq!(shown("\x1b]0;title\x07\x1b[2J\r\x7f"), "^[]0;title^G^[[2J^M^?");
        assert_eq!(shown("\u{9b}2J \u{e9}"), "\u{fffd}2J \u{e9}");
        assert_eq!(harmless(b"\xff\n"), "\u{fffd}\n".as_bytes());
    }
}
