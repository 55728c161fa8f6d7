//! Output that never panics: a reader that has gone away, such as `head`, is not an error, and a full disk is.

use anyhow::{Context, Result};
use std::io::{self, ErrorKind, Write};

/// Prints to standard output.
///
/// # Errors
/// It cannot be written, for another reason than that nobody reads it.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.or_else(or_nobody_reads).context("cannot write to standard output")
}

/// Lets an error of output pass that only says that the reader has gone away.
///
/// # Errors
/// Any other.
pub fn or_nobody_reads(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Prints a line to standard error; where that is closed, nobody wants to know.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
