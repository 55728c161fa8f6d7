//! `logs`: the end of what instances wrote, and what they write from now on.

use super::client;
use crate::cli::Logs;
use crate::keeper::rotated;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    let mut seen = BTreeSet::new();
    let mut followed = Vec::new();
    for one in &table.instances {
        if logs.target != "all" && one.name != logs.target && one.id.to_string() != logs.target {
            continue;
        }
        for (path, stream) in one.logs.iter().zip(["out", "error"]) {
            if seen.insert(path.clone()) {
                let label = format!("{}|{} {stream}| ", one.id, one.name);
                followed.push(Followed { label, path: path.clone(), file: None, rest: Vec::new() });
            }
        }
    }
    if followed.is_empty() {
        bail!("there is no app or id '{}'", logs.target);
    }
    for log in &mut followed {
        log.print_end(logs.lines)?;
    }
    if logs.follow { follow(&mut followed) } else { Ok(()) }
}

impl Followed {
    /// The last lines, the rotated file before this one included.
    fn print_end(&mut self, lines: usize) -> Result<()> {
        let wanted = lines as u64 * LINE;
        let own = end_of(&self.path, wanted)?;
        let before = if (own.len() as u64) < wanted { end_of(&rotated(&self.path, 1), wanted)? } else { Vec::new() };
        let text = [before, own].concat();
        let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for line in &all[all.len().saturating_sub(lines)..] {
            print(&self.label, line)?;
        }
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::End(0))?;
            self.file = Some(file);
        }
        Ok(())
    }

    /// What has come since the last time, also over a rotation.
    fn print_new(&mut self) -> Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                // It was emptied.
                if file.metadata()?.len() < file.stream_position()? {
                    file.seek(SeekFrom::Start(0))?;
                }
                file.read_to_end(&mut self.rest)?;
                while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    print(&self.label, &line)?;
                }
            }
            let inode = |metadata: fs::Metadata| metadata.ino();
            let there = fs::metadata(&self.path).map(inode).ok();
            let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(inode);
            if there.is_none() || there == open {
                return Ok(());
            }
            self.file = File::open(&self.path).ok();
        }
    }
}

fn follow(followed: &mut [Followed]) -> Result<()> {
    let folders: BTreeSet<&Path> = followed.iter().filter_map(|log| log.path.parent()).collect();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("inotify")?;
    for folder in folders {
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, folder, events).with_context(|| folder.display().to_string())?;
    }
    let mut buffer = [0; 64 * 1024];
    loop {
        followed.iter_mut().try_for_each(Followed::print_new)?;
        poll(&mut [PollFd::new(&watch, PollFlags::IN)], None)?;
        rustix::io::read(&watch, &mut buffer)?;
    }
}

fn end_of(path: &Path, bytes: u64) -> Result<Vec<u8>> {
    let Ok(mut file) = File::open(path) else { return Ok(Vec::new()) };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn print(label: &str, line: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(label.as_bytes())?;
    output.write_all(line)?;
    if !line.ends_with(b"\n") {
        output.write_all(b"\n")?;
    }
    Ok(output.flush()?)
}
