//! Signals as something to wait for.

use std::io;
use std::os::unix::net::UnixStream;

/// Returns a stream that becomes readable once one of these signals has come.
///
/// # Errors
/// Fails if no descriptors are left, or a signal cannot be handled.
pub fn readable(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, raised) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, raised.try_clone()?)?;
    }
    read.set_nonblocking(true)?;
    Ok(read)
}
