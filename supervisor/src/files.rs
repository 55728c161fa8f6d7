//! Ends of files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The last bytes of a file, so many at most.
///
/// # Errors
/// It cannot be read.
pub fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    tail_of(&mut File::open(path)?, bytes)
}

/// The same of an open file, which then stands at its end.
///
/// # Errors
/// As above.
pub fn tail_of(file: &mut File, bytes: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}
