//! Output that never panics: a reader that has gone away, such as `head`, is not an error, and a full disk is.

use anyhow::{Context, Result};
use std::io::{self, ErrorKind, Write};

/// Prints to standard output.
///
/// # Errors
/// It cannot be written, for another reason than that nobody reads it.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Prints a line to standard error; where that is closed, nobody wants to know.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
