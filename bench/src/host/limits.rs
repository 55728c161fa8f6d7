//! Limits of this process, and so of the servers that it starts.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the number of open files as far as the system allows: once, at the start, so that everything that is measured has the same.
/// Where the system refuses, whatever needs more says so.
pub fn raise() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The limits of open files: soft and hard.
pub fn open_files() -> String {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    format!("{soft} of {hard}")
}
