//! Requirements of a server on the kernel and its limits, checked before it is measured, so that the table says why it is unavailable.

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use serde::Deserialize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Memory that a user may lock, where a ring is counted as locked: 512 KiB.
const LOCKED: u64 = 512 * 1024;

/// A need, as `servers.toml` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The kernel gives rings to this user.
    IoUring,
    /// The limit of locked memory is 512 KiB at least.
    LockedMemory,
}

impl Need {
    /// The reason why it is not met here; `None` if it is.
    pub fn missing(self) -> Option<String> {
        match self {
            Need::IoUring => io_uring().err().map(|error| format!("io_uring: {}", error.desc())),
            Need::LockedMemory => {
                let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
                (limit < LOCKED).then(|| format!("locked memory: {} KiB where 512 are needed; see ulimit -l", limit / 1024))
            }
        }
    }
}

/// The path of a program: as it is given, or in one of the folders of `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Path::new(name).exists().then(|| name.into());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Sets up the smallest ring, and gives it back.
fn io_uring() -> Result<(), Errno> {
    // `struct io_uring_params`, all of which may be zero.
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel reads and writes the structure, which is of its size; the descriptor it returns is owned by nobody else.
    unsafe {
        let ring = Errno::result(libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()))?;
        drop(OwnedFd::from_raw_fd(ring as i32));
    }
    Ok(())
}
