//! Where one user's supervisor keeps what it needs: a folder that nobody else may enter.

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket on Linux, less its final zero.
const LONGEST_SOCKET: usize = 107;
/// What the longest name of a notify socket adds to the folder's path.
const LONGEST_NAME: usize = "/notify/4294967295-4294967295".len();

/// The folder, `SUPERVISOR_HOME` or `~/.supervisor`.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// Finds the folder, and makes it if there is none.
    ///
    /// # Errors
    /// It cannot be made, belongs to somebody else, or its path is too long for a socket.
    pub fn open() -> Result<Self> {
        let path = match (std::env::var_os("SUPERVISOR_HOME"), std::env::var_os("HOME")) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(home)) => Path::new(&home).join(".supervisor"),
            (None, None) => {
                bail!("neither SUPERVISOR_HOME nor HOME is set: set one, so that there is a place for sockets and logs")
            }
        };
        let path = std::path::absolute(&path).with_context(|| path.display().to_string())?;
        if path.as_os_str().len() + LONGEST_NAME > LONGEST_SOCKET {
            bail!("{} is too long a path for sockets: set SUPERVISOR_HOME to a shorter one", path.display());
        }
        let home = Home(path);
        make(home.path())?;
        home.check_owner()?;
        for folder in [home.specs(), home.logs(), home.0.join("notify")] {
            make(&folder)?;
        }
        Ok(home)
    }

    fn check_owner(&self) -> Result<()> {
        let metadata = fs::metadata(&self.0).with_context(|| self.0.display().to_string())?;
        if metadata.uid() != geteuid().as_raw() {
            bail!(
                "{} belongs to user {}, not to you: set SUPERVISOR_HOME to a folder of yours",
                self.0.display(),
                metadata.uid()
            );
        }
        if metadata.mode() & 0o077 != 0 {
            bail!("others may enter {}: chmod 700 it", self.0.display());
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket on which the daemon is asked.
    pub fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Held while a supervisor is being started, so that two commands do not start two.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// What the supervisor itself has to say.
    pub fn own_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    /// The table of what runs.
    pub fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// What `save` wrote and `resurrect` starts.
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

    /// The folder of log files.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Where a worker says that it is ready.
    pub fn notify(&self, instance: u32, generation: u32) -> PathBuf {
        self.0.join("notify").join(format!("{instance}-{generation}"))
    }
}

/// Makes a folder, if it is not there. What it holds is secret: environments, sockets that start programs.
fn make(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes a file that only its owner may read, so that a reader sees the old one or the new one and nothing between.
///
/// # Errors
/// A disk that refuses.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    written
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The file mode creation mask of this process.
pub fn current_umask() -> u32 {
    // There is no way to read it without setting it; nothing else runs at that moment.
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}
