//! The supervisor's folder: it belongs to one user, and no other user may enter it.

use crate::spec::LONGEST_SOCKET;
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, fstat};
use rustix::process::{geteuid, umask};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Length that the longest name of a notify socket adds to the folder's path.
const LONGEST_NAME: usize = "/notify/4294967295-4294967295".len();

/// Folder of what programs of all users may read.
const SHARED: &str = "/run/stallbench-supervisor";
/// The variable that marks the command of a check: the notify socket of the worker that it checks.
pub const CHECK: &str = "SUPERVISOR_CHECK";
/// Bytes of a specification, an event and a few lines of the supervisor's own.
const LEAST_ROOM: u64 = 16 << 10;
/// Size in bytes at which a log of the supervisor's own is started anew.
pub const LONGEST_LOG: u64 = 1 << 20;

/// The folder, `SUPERVISOR_HOME` or `~/.supervisor`.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// Opens the folder, and creates it if it does not exist.
    ///
    /// # Errors
    /// Fails if the folder cannot be created, belongs to another user, is open to other users, or has too long a path for a
    /// socket.
    pub fn open() -> Result<Self> {
        // Unit files and containers may set it to nothing.
        let own = std::env::var_os("SUPERVISOR_HOME").filter(|path| !path.is_empty());
        let path = match (own, std::env::var_os("HOME")) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(home)) => Path::new(&home).join(".supervisor"),
            (None, None) => {
                bail!("neither SUPERVISOR_HOME nor HOME is set: set one of them, since sockets and logs need a folder")
            }
        };
        if !path.is_absolute() {
            bail!("SUPERVISOR_HOME is {}, which depends on the current directory: set it to an absolute path", path.display());
        }
        // Lists and messages are JSON, which has no other paths.
        if path.to_str().is_none() {
            bail!("the path {} is not valid UTF-8: set SUPERVISOR_HOME to another one", path.display());
        }
        if path.as_os_str().len() + LONGEST_NAME > LONGEST_SOCKET {
            bail!("the path {} is too long for sockets: set SUPERVISOR_HOME to a shorter one", path.display());
        }
        let home = Home(path);
        home.make()?;
        Ok(home)
    }

    /// Creates the folder and those in it, as far as they do not exist.
    ///
    /// # Errors
    /// Fails if that cannot be done, or the folder belongs to another user or is open to other users.
    pub fn make(&self) -> Result<()> {
        make(self.path())?;
        self.check_owner()?;
        [self.specs(), self.logs(), self.0.join("notify")].iter().try_for_each(|folder| make(folder))
    }

    /// Makes sure that the disk has room for what is about to be written.
    ///
    /// # Errors
    /// Fails if the folder cannot hold a file of twice the list's size.
    pub fn check_room(&self) -> Result<()> {
        let path = self.0.join("room");
        let size = fs::metadata(self.state()).map_or(0, |state| state.len()) * 2 + LEAST_ROOM;
        let written =
            File::create(&path).and_then(|mut file| file.write_all(&vec![0; usize::try_from(size).unwrap_or_default()]));
        let _ = fs::remove_file(&path);
        let is_full = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let advice = if written.as_ref().is_err_and(is_full) { ": make room on its disk, and retry" } else { "" };
        written.with_context(|| format!("cannot write to {}{advice}", self.0.display()))
    }

    /// The folder at a path, which is not looked at.
    #[cfg(test)]
    pub fn at(path: &str) -> Self {
        Home(path.into())
    }

    fn check_owner(&self) -> Result<()> {
        let metadata = fs::metadata(&self.0).with_context(|| self.0.display().to_string())?;
        if metadata.uid() != geteuid().as_raw() {
            bail!(
                "{} belongs to user {}, not to you: set SUPERVISOR_HOME to a folder that you own",
                self.0.display(),
                metadata.uid()
            );
        }
        if metadata.mode() & 0o077 != 0 {
            bail!("{} is open to other users: run chmod 700 on it", self.0.display());
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The control socket, on which the daemon accepts requests.
    pub fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Lock file, held while a supervisor starts, so that two commands do not start two supervisors.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Lock file, held as long as a supervisor runs; it contains the process id of the keeper.
    pub fn alive(&self) -> PathBuf {
        self.0.join("alive")
    }

    /// A file that is there if systemd has started the supervisor, and will again once it has died.
    pub fn systemd(&self) -> PathBuf {
        self.0.join("systemd")
    }

    /// Whether a lock is the one that stands in the folder: the folder may have been removed, and another supervisor may have made it anew.
    pub fn is_locked_by(&self, lock: impl AsFd) -> bool {
        let (own, there) = (fstat(lock), fs::metadata(self.alive()));
        matches!((own, there), (Ok(own), Ok(there)) if (own.st_dev, own.st_ino) == (there.dev(), there.ino()))
    }

    /// The supervisor's own log.
    pub fn own_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    /// Adds a line to the supervisor's own log: whatever repeats for ever must not fill the disk.
    ///
    /// # Errors
    /// Fails if the file cannot be written, for example because the disk is full.
    pub fn tell(&self, text: &str) -> io::Result<()> {
        let mut log = self.open_own_log()?;
        writeln!(log, "{} {text}", humantime::format_rfc3339_seconds(std::time::SystemTime::now()))
    }

    /// Opens the supervisor's own log, which is started anew when it has become long.
    ///
    /// # Errors
    /// Fails if the file cannot be opened.
    pub fn open_own_log(&self) -> io::Result<File> {
        let path = self.own_log();
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        // Of several processes at once, one does it.
        let is_long = |file: &File| file.metadata().is_ok_and(|known| known.len() > LONGEST_LOG);
        let turn = File::open(&path)?;
        if is_long(&turn) && turn.try_lock().is_ok() && is_long(&turn) {
            // Emptied, not renamed: it is the standard error of processes that run, which would go on writing to the old file. If its end cannot be
            // kept, the disk is full.
            let _ = fs::copy(&path, path.with_extension("log.1"));
            log.set_len(0)?;
        }
        Ok(log)
    }

    /// What the last commands have measured.
    pub fn readings(&self) -> PathBuf {
        self.0.join("readings.json")
    }

    /// What has happened to the apps, a line of JSON each.
    pub fn events(&self) -> PathBuf {
        self.0.join("events.log")
    }

    /// A file that was written when the times of `--cron` were last looked at.
    pub fn looked(&self) -> PathBuf {
        self.0.join("looked")
    }

    /// The state file: the table of apps and their instances.
    pub fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// A file that has room for another state.
    pub fn spare(&self) -> PathBuf {
        self.0.join("state.spare")
    }

    /// The file that `save` writes and `resurrect` reads.
    pub fn dump(&self) -> PathBuf {
        self.0.join("dump.json")
    }

    /// The folder of specifications.
    pub fn specs(&self) -> PathBuf {
        self.0.join("specs")
    }

    /// The specification of an app.
    pub fn spec(&self, name: &str) -> PathBuf {
        self.specs().join(format!("{name}.json"))
    }

    /// The specification that a reload of an app tries out.
    pub fn next_spec(&self, name: &str) -> PathBuf {
        self.specs().join(format!("{name}.next"))
    }

    /// What Node programs load before themselves.
    pub fn preload(&self) -> PathBuf {
        self.0.join("preload.cjs")
    }

    /// The same for programs that run as another user, who may not enter this folder. Each supervisor has its own.
    pub fn shared_preload(&self) -> PathBuf {
        let name = self.0.to_string_lossy().replace('-', "-h").replace('/', "-s");
        Path::new(SHARED).join(format!("preload{name}.cjs"))
    }

    /// The folder of log files.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The notify socket on which a worker reports that it is ready. Where every user can take the name, something random is added to it.
    pub fn notify(&self, instance: u32, generation: u32) -> PathBuf {
        self.0.join("notify").join(format!("{instance}-{generation}"))
    }

    /// The instance and the generation of the worker whose notify socket this is; `None` for a path that is not one.
    pub fn key_of(&self, socket: &Path) -> Option<(u32, u32)> {
        // Without a file, its name begins with @ and ends with something random.
        let path = socket.to_str().and_then(|path| path.strip_prefix('@')).map_or(socket, Path::new);
        let name = path.strip_prefix(self.0.join("notify")).ok()?.to_str()?;
        let mut parts = name.splitn(3, '-');
        let (instance, generation) = (parts.next()?, parts.next()?);
        Some((instance.parse().ok()?, generation.parse().ok()?))
    }
}

/// Creates a folder if it does not exist. Its content is secret: environments, and sockets that start programs.
fn make(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot create {}", folder.display()))
}

/// Writes a file that only its owner may read. A reader sees either the old content or the new, never a mixture.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = temporary(path);
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    written
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Like [`replace`], for a file that everybody may read, in a folder that everybody may enter.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn publish(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    replace(path, content)?;
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(folder, 0o755).and_then(|()| open(path, 0o644)).with_context(|| format!("cannot open {} to all", path.display()))
}

/// Like [`replace`], for a file that has to survive a power loss.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn replace_durably(path: &Path, content: &[u8]) -> Result<()> {
    let new = temporary(path);
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    written
        // The content first, or the name could outlive it; the folder last, or the name could be lost.
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| rename_durably(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Renames a file whose content has been written, so that its new name survives a power loss.
///
/// # Errors
/// Fails if it cannot be renamed.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A path beside another, which no app's name leads to.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The file mode creation mask of this process.
pub fn current_umask() -> u32 {
    // The mask cannot be read without setting it; no other code runs at that moment.
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_socket_tells_whose_it_is() {
        let home = Home::at("/h");
        assert_eq!(home.key_of(&home.notify(1, 20)), Some((1, 20)));
        assert_eq!(home.key_of(Path::new("@/h/notify/1-20-0a1b2c3d4e5f")), Some((1, 20)));
        for other in ["/h/notify/1", "/other/notify/1-20", "/run/systemd/notify"] {
            assert_eq!(home.key_of(Path::new(other)), None);
        }
    }
}
