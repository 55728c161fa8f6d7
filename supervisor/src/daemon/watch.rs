//! `--watch` reloads an app when its program file changes. The supervisor's own folder is watched too, since nobody could reach it without one.

use super::{Daemon, Source};
use crate::spec::Spec;
use anyhow::{Context, Result};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file may be written in several steps; it counts as complete after this time without a change.
const QUIET: Duration = Duration::from_millis(500);

/// Pause before a folder is looked for again that has gone.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes of a program, and those after which its path may lead to another folder. That a folder was removed is said only once no process is in it any
/// more, so the removal of the program counts.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM);

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
    /// App, watch number of the folder, and path of the program.
    programs: Vec<(String, i32, PathBuf)>,
    /// Programs that have gone, by app.
    lost: BTreeMap<String, PathBuf>,
    /// Time at which it is looked for again.
    lost_due: Option<Instant>,
    /// Apps whose program has changed, and the time of their reload.
    changed: BTreeMap<String, Instant>,
}

impl Watch {
    /// Returns the time of the next reload.
    pub fn due(&self) -> Option<Instant> {
        self.changed.values().copied().chain(self.home_due).chain(self.lost_due).min()
    }

    /// Stops watching the program of an app.
    pub fn forget(&mut self, name: &str) {
        self.changed.remove(name);
        self.lost.remove(name);
        let gone: Vec<_> = self.programs.extract_if(.., |(app, ..)| app == name).collect();
        gone.iter().for_each(|(_, number, _)| self.release(*number));
    }

    /// Watches the program of an app in a folder with this number, and no longer where it was before.
    fn follow(&mut self, name: &str, number: i32, program: &Path) {
        let before: Vec<_> = self.programs.extract_if(.., |(app, ..)| app == name).collect();
        self.programs.push((name.to_owned(), number, program.to_owned()));
        // It is another one than that which was lost.
        if self.lost.remove(name).is_some() {
            self.changed.insert(name.to_owned(), Instant::now() + QUIET);
        }
        before.iter().for_each(|(_, before, _)| self.release(*before));
    }

    /// Looks for a program later.
    fn lose(&mut self, name: &str, program: &Path) {
        self.lost.insert(name.to_owned(), program.to_owned());
        self.lost_due = Some(Instant::now() + AGAIN);
    }

    /// Ends the watch of a folder that nobody needs any more: two programs in the same folder share it.
    fn release(&self, number: i32) {
        if let Some(inotify) = &self.inotify
            && !self.programs.iter().any(|(_, other, _)| *other == number)
            && self.home != Some(number)
        {
            let _ = remove_watch(inotify, number);
        }
    }

    /// Notes the apps whose program has changed, and that something of the supervisor's own folder was removed.
    pub fn note_changes(&mut self) {
        for (number, name, is_gone) in self.changes() {
            // All of the folder may be removed one after the other, or it is moved, which has no name.
            let is_needed = name.is_empty() || NEEDED.iter().any(|own| name == **own);
            if is_needed && self.home == Some(number) {
                self.home_due = Some(Instant::now() + QUIET);
            }
            let is_meant = |watched: i32, program: &Path| watched == number && program.file_name() == Some(&name);
            if is_gone {
                let is_lost = |watched: i32, program: &Path| watched == number && name.is_empty() || is_meant(watched, program);
                let gone: Vec<_> = self.programs.extract_if(.., |(_, watched, program)| is_lost(*watched, program)).collect();
                gone.iter().for_each(|(app, _, program)| self.lose(app, program));
                self.release(number);
            }
            let meant = self.programs.iter().filter(|(_, watched, program)| is_meant(*watched, program));
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

    /// Reads the number and the name of each change, and whether what it names has gone: the folder itself, if it names nothing.
    fn changes(&self) -> Vec<(i32, OsString, bool)> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut changes = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            let gone = ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE | ReadFlags::MOVED_FROM;
            let is_gone = event.events().intersects(gone);
            changes.push((event.wd(), name.unwrap_or_default(), is_gone));
        }
        changes
    }
}

impl Daemon {
    /// Watches the program of an app, if the app has the `watch` option. It may be watched already, and be in another folder now.
    ///
    /// # Errors
    /// Fails if the folder cannot be watched; it is looked for again.
    pub(super) fn watch_program(&mut self, spec: &Spec) -> Result<()> {
        let program = spec.script.as_deref().or_else(|| spec.command.first().map(Path::new)).filter(|_| spec.options.watch);
        let Some((program, folder)) = program.and_then(|program| Some((program, program.parent()?))) else {
            self.watch.forget(&spec.name);
            return Ok(());
        };
        // Without the program, its folder may be one that is about to go.
        let number = if program.exists() { self.add_watch(folder, CHANGES).map(Some) } else { Ok(None) };
        match number {
            Ok(Some(number)) => self.watch.follow(&spec.name, number, program),
            _ => {
                self.watch.forget(&spec.name);
                self.watch.lose(&spec.name, program);
            }
        }
        number.map(drop)
    }

    /// Looks for the programs that have gone: one that is there again has changed.
    pub(super) fn find_programs(&mut self) {
        if self.watch.lost_due.take_if(|due| *due <= Instant::now()).is_none() {
            return;
        }
        for (app, program) in std::mem::take(&mut self.watch.lost) {
            let folder = program.parent().filter(|_| program.exists());
            let number = folder.and_then(|folder| self.add_watch(folder, CHANGES).ok());
            self.watch.lose(&app, &program);
            if let Some(number) = number {
                self.watch.follow(&app, number, &program);
            }
        }
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
