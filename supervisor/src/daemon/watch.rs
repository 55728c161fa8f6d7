//! `--watch` reloads an app when its program file changes. The supervisor's own folder is watched too, since nobody could reach it without one.

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

/// What the supervisor's own folder always has, and without which nobody can reach the supervisor.
const NEEDED: [&str; 5] = ["control.sock", "alive", "specs", "notify", "logs"];

/// Watched programs.
#[derive(Default)]
pub struct Watch {
    /// `None` while nothing is watched.
    inotify: Option<OwnedFd>,
    /// The watch number of the supervisor's own folder.
    pub home: Option<i32>,
    /// Time at which that folder is made anew, after something of it was removed.
    pub home_due: Option<Instant>,
    /// App, watch number of the folder, and file name of the program.
    programs: Vec<(String, i32, OsString)>,
    /// Apps whose program has changed, and the time of their reload.
    changed: BTreeMap<String, Instant>,
}

impl Watch {
    /// Returns the time of the next reload.
    pub fn due(&self) -> Option<Instant> {
        self.changed.values().copied().chain(self.home_due).min()
    }

    /// Stops watching the program of an app.
    pub fn forget(&mut self, name: &str) {
        self.changed.remove(name);
        let number = self.programs.iter().find(|(app, ..)| app == name).map(|(_, number, _)| *number);
        self.programs.retain(|(app, ..)| app != name);
        // Two programs in the same folder share its watch.
        if let (Some(number), Some(inotify)) = (number, &self.inotify)
            && !self.programs.iter().any(|(_, other, _)| *other == number)
            && self.home != Some(number)
        {
            let _ = remove_watch(inotify, number);
        }
    }

    /// Notes the apps whose program has changed, and that something of the supervisor's own folder was removed.
    pub fn note_changes(&mut self) {
        for (number, name) in self.changes() {
            // All of the folder may be removed one after the other, or it is moved, which has no name.
            let is_needed = name.is_empty() || NEEDED.iter().any(|own| name == **own);
            if is_needed && self.home == Some(number) {
                self.home_due = Some(Instant::now() + QUIET);
            }
            let meant = self.programs.iter().filter(|(_, watched, file)| *watched == number && *file == name);
            let apps: Vec<String> = meant.map(|(app, ..)| app.clone()).collect();
            self.changed.extend(apps.into_iter().map(|app| (app, Instant::now() + QUIET)));
        }
    }

    /// Looks at the supervisor's own folder again, after a while or, once the keeper has reported what it has made, at once.
    pub fn return_to_home(&mut self) {
        self.home_due = Some(Instant::now() + super::folder::SAVE_AGAIN);
    }

    /// Returns whether the supervisor's own folder is to be made anew now.
    pub fn is_home_lost(&mut self) -> bool {
        self.home_due.take_if(|due| *due <= Instant::now()).is_some()
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
        let mut changes = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            changes.push((event.wd(), name.unwrap_or_default()));
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
        let number = self.add_watch(folder, WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO)?;
        self.watch.programs.push((spec.name.clone(), number, file.to_owned()));
        Ok(())
    }

    pub(super) fn add_watch(&mut self, folder: &Path, events: WatchFlags) -> Result<i32> {
        if self.watch.inotify.is_none() {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("cannot set up inotify")?;
            self.poller.add(&inotify, Source::Programs)?;
            self.watch.inotify = Some(inotify);
        }
        let inotify = self.watch.inotify.as_ref().context("inotify was set up")?;
        // A folder that is watched for something else already has the same number.
        add_watch(inotify, folder, events | WatchFlags::MASK_ADD).with_context(|| format!("cannot watch {}", folder.display()))
    }
}
