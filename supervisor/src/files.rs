//! Reading the ends of files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Returns the last `bytes` bytes of a file, or the whole file if it is shorter.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    tail_of(&mut File::open(path)?, bytes)
}

/// Like [`tail`], for an open file; leaves the file's position at its end.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn tail_of(file: &mut File, bytes: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}
