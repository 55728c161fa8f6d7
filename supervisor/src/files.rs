//! Files that others have left or still write.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Number of bytes that are read first to find the last lines.
const BLOCK: u64 = 16 * 1024;

/// Opens a file that has an end: a pipe has none, and opening one would wait for whoever writes to it.
///
/// # Errors
/// Fails if it cannot be opened, or is a pipe or a device.
pub fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() { File::open(path) } else { Err(ErrorKind::NotSeekable.into()) }
}

/// Removes a Unix socket on which nobody listens any more. It does not wait for a server that hangs.
///
/// # Errors
/// Fails if it cannot be removed.
pub fn remove_leftover(socket: &Path) -> io::Result<()> {
    let is_socket = fs::metadata(socket).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let own = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        if connect(&own, &SocketAddrUnix::new(socket)?) == Err(Errno::CONNREFUSED) {
            fs::remove_file(socket)?;
        }
    }
    Ok(())
}

/// Returns the last `bytes` bytes of a file, or the whole file if it is shorter.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    tail_of(&mut open(path)?, bytes)
}

/// Returns the last lines of an open file, whole; leaves the file's position at its end.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn last_lines(file: &mut File, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = BLOCK;
    loop {
        let text = tail_of(file, bytes)?;
        let newlines = text.iter().filter(|byte| **byte == b'\n').count();
        // One newline more stands before the first of them.
        if newlines > count || (text.len() as u64) < bytes {
            let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            lines.drain(..lines.len().saturating_sub(count));
            return Ok(lines.concat());
        }
        bytes *= 4;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn last_lines_are_whole_however_long_they_are() {
        let mut file = tempfile::tempfile().unwrap();
        let long = "x".repeat(3 * BLOCK as usize);
        write!(file, "first\n{long}\nlast without end").unwrap();
        assert_eq!(last_lines(&mut file, 2).unwrap(), format!("{long}\nlast without end").into_bytes());
        assert_eq!(last_lines(&mut file, 1).unwrap(), b"last without end");
        assert_eq!(last_lines(&mut file, 9).unwrap().len(), 6 + long.len() + 1 + 16);
        assert!(last_lines(&mut file, 0).unwrap().is_empty());
    }
}
