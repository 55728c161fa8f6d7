//! What a server has printed, of which the end is quoted in error messages.

use anyhow::{Context, Result};
use nix::libc;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

/// The part at the end that is read, and the lines of it that are quoted.
const LAST_BYTES: usize = 4096;
const LAST_LINES: usize = 5;

/// The outputs of a server that are kept.
#[derive(Default)]
pub struct Words {
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Words {
    /// Both outputs, in memory, for a server whose guard keeps them short.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn short() -> Result<Self> {
        Ok(Words { stdout: Some(in_memory()?), stderr: Some(in_memory()?) })
    }

    /// stderr alone, in a file that has no name.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn of_stderr() -> Result<Self> {
        let stderr = tempfile::tempfile().context("cannot make a file for the server's stderr")?;
        Ok(Words { stdout: None, stderr: Some(stderr) })
    }

    /// The file that a command prints to.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn stdout(&self) -> Result<Stdio> {
        given(self.stdout.as_ref())
    }

    /// The same for stderr.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn stderr(&self) -> Result<Stdio> {
        given(self.stderr.as_ref())
    }

    /// The end of stderr, or of stdout where that is empty, as part of an error message; empty if both are.
    pub fn last(&self) -> String {
        let outputs = [("stderr", &self.stderr), ("stdout", &self.stdout)];
        let mut quoted = outputs.into_iter().filter_map(|(name, file)| {
            let last = last_lines(file.as_ref()?).ok().filter(|last| !last.is_empty())?;
            Some(format!("; its {name} ends: {last}"))
        });
        quoted.next().unwrap_or_default()
    }

    /// The space that both take.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        [&self.stdout, &self.stderr].into_iter().flatten().map(|file| file.metadata().unwrap().blocks() * 512).sum()
    }
}

fn given(file: Option<&File>) -> Result<Stdio> {
    Ok(match file {
        Some(file) => file.try_clone().context("cannot share a file with a server")?.into(),
        None => Stdio::null(),
    })
}

fn in_memory() -> Result<File> {
    // SAFETY: a plain system call with a name that ends; the descriptor it returns is new and owned by nobody else.
    match unsafe { libc::memfd_create(c"output".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(std::io::Error::last_os_error()).context("cannot make a file for a server's output"),
        // SAFETY: the descriptor has just been made, and nobody else owns it.
        descriptor => Ok(unsafe { File::from_raw_fd(descriptor) }),
    }
}

/// In one line, whatever bytes they are.
fn last_lines(file: &File) -> std::io::Result<String> {
    let mut bytes = [0; LAST_BYTES];
    let count = file.read_at(&mut bytes, file.metadata()?.len().saturating_sub(LAST_BYTES as u64))?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    let lines: Vec<String> = text.lines().map(|line| line.replace(char::is_control, " ")).collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_stderr_is_quoted_or_that_of_stdout_where_it_is_empty_whatever_bytes_they_hold() {
        let words = Words::short().unwrap();
        assert_eq!(words.last(), "");
        words.stdout.as_ref().unwrap().write_all(b"no such module\n").unwrap();
        assert_eq!(words.last(), "; its stdout ends: no such module");
        words.stderr.as_ref().unwrap().write_all(b"1\n2\n3\n4\ncaf\xe9\tis\rclosed\n6\n").unwrap();
        assert_eq!(words.last(), "; its stderr ends: 2 | 3 | 4 | caf\u{fffd} is closed | 6");
        assert_eq!(Words::default().last(), "");
    }

    #[test]
    fn of_a_line_without_an_end_only_the_last_part_is_quoted() {
        let words = Words::of_stderr().unwrap();
        words.stderr.as_ref().unwrap().write_all(&[b'x'; 1 << 20]).unwrap();
        assert_eq!(words.last().len(), "; its stderr ends: ".len() + LAST_BYTES);
    }
}
