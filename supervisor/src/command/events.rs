//! `events` prints what has happened to the apps.

use super::print;
use crate::cli::Events;
use anyhow::{Context, Result};
use humantime::format_rfc3339_millis;
use rustix::fs::inotify;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use supervisor::control::Event;
use supervisor::home::Home;
use supervisor::rotated;

/// Prints the events.
///
/// # Errors
/// Fails if the log cannot be read.
pub fn run(events: &Events) -> Result<()> {
    let path = Home::open()?.events();
    let mut lines = read(&rotated(&path, 1))?;
    lines.extend(read(&path)?);
    lines.retain(|event| is_meant(event, &events.target));
    lines.drain(..lines.len().saturating_sub(events.lines));
    lines.iter().try_for_each(|event| show(event, events.json))?;
    if events.follow { follow(&path, events) } else { Ok(()) }
}

fn read(path: &Path) -> Result<Vec<Event>> {
    let Ok(file) = File::open(path) else { return Ok(Vec::new()) };
    // A line that a full disk has cut is not an event.
    Ok(BufReader::new(file).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect())
}

fn is_meant(event: &Event, target: &str) -> bool {
    target == "all" || event.app == target || event.id.is_some_and(|id| id.to_string() == target)
}

fn show(event: &Event, is_json: bool) -> Result<()> {
    if is_json {
        return print(&(serde_json::to_string(event)? + "\n"));
    }
    let time = format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(event.at_ms));
    let id = event.id.map(|id| format!(" ({id})")).unwrap_or_default();
    let why = event.why.as_ref().map(|why| format!(": {}", why.replace(char::is_control, " "))).unwrap_or_default();
    print(&format!("{time}  {}{id} {}{why}\n", event.app, event.what))
}

/// Prints new events, across the log's new beginnings.
fn follow(path: &Path, events: &Events) -> Result<()> {
    let folder = path.parent().context("the log has a folder")?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("cannot set up inotify for --follow")?;
    let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, folder, kinds).with_context(|| folder.display().to_string())?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut changes = inotify::Reader::new(&watch, &mut buffer);
    let mut at = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut rest = String::new();
    loop {
        changes.next()?;
        let Ok(mut file) = File::open(path) else { continue };
        let length = file.metadata()?.len();
        // It was started anew.
        if length < at {
            (at, rest) = (0, String::new());
        }
        file.seek(SeekFrom::Start(at))?;
        at += file.read_to_string(&mut rest)? as u64;
        while let Some(end) = rest.find('\n') {
            let line: String = rest.drain(..=end).collect();
            if let Ok(event) = serde_json::from_str::<Event>(&line)
                && is_meant(&event, &events.target)
            {
                show(&event, events.json)?;
            }
        }
    }
}
