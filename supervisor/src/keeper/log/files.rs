//! The files of a log: how they are opened, what they are called, and how they go.

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Most links in links.
const DEEPEST: u32 = 40;

/// Where a log's files are: in a folder that stays open, so that whoever moves it cannot lead them elsewhere.
pub struct Place {
    /// `None` if the path is as good: only root starts processes of other users.
    _folder: Option<OwnedFd>,
    /// The log's path within the folder.
    pub path: PathBuf,
}

impl Place {
    /// Opens the folder of a log, and makes it first if it is missing and `makes` it is.
    ///
    /// # Errors
    /// Fails if there is no folder, or a link that another user owns leads to a folder that is not that user's.
    pub fn of(log: &Path, makes: bool) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else { return Err(Errno::INVAL.into()) };
        if !geteuid().is_root() {
            if makes {
                fs::create_dir_all(folder)?;
            }
            return Ok(Place { _folder: None, path: log.to_owned() });
        }
        let folder = walk(CWD, folder, makes, DEEPEST)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Place { _folder: Some(folder), path })
    }
}

/// Opens a folder by walking its path one component at a time; paths that symbolic links lead to are walked the same way.
fn walk(from: BorrowedFd<'_>, path: &Path, makes: bool, depth: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let start = if path.has_root() { OsStr::new("/") } else { OsStr::new(".") };
    let mut folder = openat(from, start, flags, Mode::empty())?;
    for part in path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)) {
        let part = part.as_os_str();
        let mut next = openat(&folder, part, flags, Mode::empty());
        if makes && next.as_ref().is_err_and(|error| *error == Errno::NOENT) {
            mkdirat(&folder, part, Mode::RWXU | Mode::RWXG | Mode::RWXO)?;
            next = openat(&folder, part, flags, Mode::empty());
        }
        let mut next = next?;
        let link = fstat(&next)?;
        if FileType::from_raw_mode(link.st_mode) == FileType::Symlink {
            let target = OsString::from_vec(readlinkat(&next, "", Vec::new())?.into_bytes());
            let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
            next = walk(folder.as_fd(), Path::new(&target), makes, depth)?;
            // Its owner may run the app, and could let the link lead to any folder.
            if link.st_uid != geteuid().as_raw() && link.st_uid != fstat(&next)?.st_uid {
                return Err(Errno::LOOP);
            }
        }
        folder = next;
    }
    Ok(folder)
}

/// Returns options that open a log without waiting for whoever reads it, and without following a link.
pub fn careful(path: &Path) -> OpenOptions {
    // Whoever may write to the folder could let a link lead to any file of this user. Devices are links at times.
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    let is_device = !goes_up && (path.starts_with("/dev") || path.starts_with("/proc")) && !path.starts_with("/dev/shm");
    let flags = if is_device { OFlags::NONBLOCK } else { OFlags::NONBLOCK | OFlags::NOFOLLOW };
    let mut options = OpenOptions::new();
    options.custom_flags(flags.bits().cast_signed());
    options
}

/// Says of an error what a user can do about it.
pub fn explain(error: &io::Error) -> String {
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return "it is a link, or another user's link is in its path, which is not followed: name the file itself with --log"
            .into();
    }
    error.to_string()
}

/// Empties a log that no worker writes to, and removes its rotated files.
pub fn flush(path: &Path, keep: u32) {
    // Missing files are not an error.
    let Ok(place) = Place::of(path, false) else { return };
    let _ = careful(path).write(true).truncate(true).open(&place.path);
    (1..=keep).for_each(|number| drop(fs::remove_file(rotated(&place.path, number))));
    remove_rotated(&place.path, keep.saturating_add(1));
}

/// Removes the rotated files from this number on, up to the first that is missing.
pub fn remove_rotated(path: &Path, from: u32) {
    (from..=u32::MAX).map(|number| fs::remove_file(rotated(path, number))).take_while(Result::is_ok).for_each(drop);
}

/// Path of the rotated file of this number.
pub fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn a_link_of_another_user_leads_only_to_a_folder_of_that_user() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        let (nobody, other) = (Some(65534), Some(65533));
        for (name, owner) in [("roots", None), ("nobodys", nobody)] {
            fs::create_dir(inside(name)).unwrap();
            lchown(inside(name), owner, None).unwrap();
        }
        for (link, target, owner, is_followed) in [
            ("a", "roots", None, true),
            ("b", "nobodys", None, true),
            ("c", "nobodys", nobody, true),
            ("d", "roots", nobody, false),
            ("e", "nobodys", other, false),
            ("f", "./nobodys/../roots", nobody, false),
            ("g", "d", None, false),
            ("h", "h", None, false),
        ] {
            symlink(target, inside(link)).unwrap();
            lchown(inside(link), owner, None).unwrap();
            assert_eq!(Place::of(&inside(link).join("new/app.log"), true).is_ok(), is_followed, "{link}");
        }
    }
}
