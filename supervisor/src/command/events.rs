//! `events` prints what has happened to the apps.

use super::growing::{Changes, Growing};
use super::stream;
use crate::cli::Events;
use anyhow::{Context, Result, bail};
use humantime::format_rfc3339_millis;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use supervisor::control::Event;
use supervisor::home::Home;
use supervisor::selector::Selector;

/// Prints the events.
///
/// # Errors
/// Fails if the log cannot be read, or nothing has ever happened to the target.
pub fn run(events: &Events) -> Result<()> {
    let path = Home::open()?.events();
    let folder = path.parent().context("the log has a folder")?.to_owned();
    // Before it is read, so that nothing is missed in between.
    let changes = if events.follow { Some(changes(&folder)?) } else { None };
    let mut log = Growing::new(path);
    let selector = Selector::new(&events.target);
    let all = read(&log.last_lines(usize::MAX)?);
    let mut meant: Vec<&Event> = all.iter().filter(|event| is_meant(event, &selector)).collect();
    if meant.is_empty() && events.target != "all" && !events.follow {
        let names: BTreeSet<&str> = all.iter().map(|event| event.app.as_str()).collect();
        bail!("{} (nothing has happened to it)", selector.nothing(names));
    }
    meant.drain(..meant.len().saturating_sub(events.lines));
    meant.into_iter().try_for_each(|event| show(event, events.json))?;
    let Some(changes) = changes else { return Ok(()) };
    loop {
        let new = log.new_lines()?;
        read(&new).iter().filter(|event| is_meant(event, &selector)).try_for_each(|event| show(event, events.json))?;
        if new.is_empty() {
            changes.wait(None, true)?;
        }
    }
}

fn changes(folder: &Path) -> Result<Changes> {
    let mut changes = Changes::new().context("cannot set up inotify for --follow")?;
    changes.watch(folder).with_context(|| folder.display().to_string())?;
    Ok(changes)
}

/// Reads events. A line that a full disk has cut is not one.
fn read(text: &[u8]) -> Vec<Event> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn is_meant(event: &Event, selector: &Selector) -> bool {
    selector.means(&event.app, event.namespace.as_deref(), event.id)
}

fn show(event: &Event, is_json: bool) -> Result<()> {
    if is_json {
        return stream((serde_json::to_string(event)? + "\n").as_bytes());
    }
    let time = format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(event.at_ms));
    let id = event.id.map(|id| format!(" ({id})")).unwrap_or_default();
    let why = event.why.as_ref().map(|why| format!(": {}", why.replace(char::is_control, " "))).unwrap_or_default();
    stream(format!("{time}  {}{id} {}{why}\n", event.app, event.what).as_bytes())
}
