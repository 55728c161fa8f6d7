//! `--watch` reloads an app when its program file changes.

use super::{Daemon, Source};
use crate::spec::Spec;
use anyhow::{Context, Result};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A file may be written in several steps; it counts as complete after this time without a change.
const QUIET: Duration = Duration::from_millis(500);

/// Watched programs.
#[derive(Default)]
pub struct Watch {
    /// `None` while nothing is watched.
    inotify: Option<OwnedFd>,
    /// App, watch number of the folder, and file name of the program.
    programs: Vec<(String, i32, OsString)>,
    /// Apps whose program has changed, and the time of their reload.
    changed: BTreeMap<String, Instant>,
}

impl Watch {
    /// Returns the time of the next reload.
    pub fn due(&self) -> Option<Instant> {
        self.changed.values().min().copied()
    }

    /// Stops watching the program of an app.
    pub fn forget(&mut self, name: &str) {
        self.changed.remove(name);
        let number = self.programs.iter().find(|(app, ..)| app == name).map(|(_, number, _)| *number);
        self.programs.retain(|(app, ..)| app != name);
        // Two programs in the same folder share its watch.
        if let (Some(number), Some(inotify)) = (number, &self.inotify)
            && !self.programs.iter().any(|(_, other, _)| *other == number)
        {
            let _ = remove_watch(inotify, number);
        }
    }

    /// Notes the apps whose program has changed.
    pub fn note_changes(&mut self) {
        for (number, name) in self.changes() {
            let meant = self.programs.iter().filter(|(_, watched, file)| *watched == number && *file == name);
            let apps: Vec<String> = meant.map(|(app, ..)| app.clone()).collect();
            self.changed.extend(apps.into_iter().map(|app| (app, Instant::now() + QUIET)));
        }
    }

    /// Returns the apps whose program has changed and is complete.
    pub fn take_changed(&mut self) -> Vec<String> {
        let now = Instant::now();
        let due: Vec<String> = self.changed.iter().filter(|(_, due)| **due <= now).map(|(app, _)| app.clone()).collect();
        self.changed.retain(|name, _| !due.contains(name));
        due
    }

    fn changes(&self) -> Vec<(i32, OsString)> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut changes = Vec::new();
        while let Ok(event) = reader.next() {
            changes.extend(event.file_name().map(|name| (event.wd(), OsStr::from_bytes(name.to_bytes()).to_owned())));
        }
        changes
    }
}

impl Daemon {
    /// Watches the program of an app, if the app has the `watch` option.
    ///
    /// # Errors
    /// Fails if the folder cannot be watched.
    pub(super) fn watch_program(&mut self, spec: &Spec) -> Result<()> {
        // It may be watched already, and ask for something else now.
        let changed = self.watch.changed.remove(&spec.name);
        self.watch.forget(&spec.name);
        self.watch.changed.extend(changed.map(|due| (spec.name.clone(), due)));
        let program = spec.script.as_deref().or_else(|| spec.command.first().map(Path::new));
        let program = program.filter(|_| spec.options.watch).unwrap_or(Path::new(""));
        let (Some(folder), Some(file)) = (program.parent(), program.file_name()) else { return Ok(()) };
        if self.watch.inotify.is_none() {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot set up inotify for --watch")?;
            self.poller.add(&inotify, Source::Programs)?;
            self.watch.inotify = Some(inotify);
        }
        let Some(inotify) = &self.watch.inotify else { return Ok(()) };
        let events = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
        let number = add_watch(inotify, folder, events).with_context(|| format!("cannot watch {}", folder.display()))?;
        self.watch.programs.push((spec.name.clone(), number, file.to_owned()));
        Ok(())
    }
}
