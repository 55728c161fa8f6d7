//! The verbs of the command line, a file each.

pub mod bench;
pub mod build;
pub mod check;
pub mod compare;
pub mod drive;
pub mod serve;
pub mod servers;
pub mod tables;

use std::io::{self, Write};

/// Prints to stdout; a reader that has gone away, such as `head`, is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
