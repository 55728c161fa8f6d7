//! The one way in which a server says something while it serves: a line on standard error that never blocks, never panics, and comes a limited
//! number of times a second.
//!
//! `eprintln!` does none of that. It panics if the reader has gone away, which ends the thread that speaks, and it waits for a reader that
//! does not read, which freezes the event loop.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use std::fmt::Arguments;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Says a line, at most twenty times a second from one place.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {{
        static LIMIT: $crate::say::Limit = $crate::say::Limit::new(20);
        LIMIT.line(format_args!($($words)*));
    }};
}

/// Says a line that floods would repeat without end: at most once a second from one place.
#[macro_export]
macro_rules! say_once_a_second {
    ($($words:tt)*) => {{
        static LIMIT: $crate::say::Limit = $crate::say::Limit::new(1);
        LIMIT.line(format_args!($($words)*));
    }};
}

/// A line is cut behind this many bytes: a pipe that has room at all has room for them.
const LONGEST: usize = 4096;
/// Attempts to be the only thread that writes. The others take microseconds, so more are not needed.
const ATTEMPTS: usize = 1000;

/// How often one place in the code may speak.
#[derive(Debug)]
pub struct Limit {
    most: u64,
    /// The current second in the upper half, and the lines in it in the lower.
    current: AtomicU64,
    /// Lines left out since the last one that was said.
    left_out: AtomicU64,
}

impl Limit {
    /// At most this many lines a second.
    #[must_use]
    pub const fn new(most: u64) -> Self {
        Limit { most, current: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Says the line, or counts it as left out.
    pub fn line(&self, words: Arguments<'_>) {
        let second = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |now| now.tv_sec().unsigned_abs());
        if !self.admits(second) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.left_out.swap(0, Ordering::Relaxed) {
            0 => write_line(std::io::stderr().as_fd(), words),
            count => write_line(std::io::stderr().as_fd(), format_args!("{words} (and {count} times more before)")),
        }
    }

    fn admits(&self, second: u64) -> bool {
        let next = |current: u64| match current >> 32 == second {
            true if current & 0xffff_ffff >= self.most => None,
            true => Some(current + 1),
            false => Some(second << 32 | 1),
        };
        self.current.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Writes a line if its reader takes it at once; otherwise the line is lost.
pub(crate) fn write_line(to: BorrowedFd<'_>, words: Arguments<'_>) {
    static WRITING: Mutex<()> = Mutex::new(());
    let mut line = Vec::new();
    // Writing to memory does not fail.
    let _ = write!(line, "{words}");
    line.truncate(LONGEST - 1);
    line.push(b'\n');
    // Two threads that find room at the same time might fill it twice, and then the second would wait.
    let guard = (0..ATTEMPTS).find_map(|_| match WRITING.try_lock() {
        Ok(guard) => Some(guard),
        Err(_) => {
            std::thread::yield_now();
            None
        }
    });
    let mut fds = [PollFd::new(to, PollFlags::POLLOUT)];
    let is_ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    if guard.is_some() && is_ready && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
        // Whoever does not read any more does not miss it.
        let _ = nix::unistd::write(to, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_place_speaks_a_limited_number_of_times_a_second() {
        let limit = Limit::new(2);
        assert_eq!([5, 5, 5, 6, 6, 6].map(|second| limit.admits(second)), [true, true, false, true, true, false]);
    }

    #[test]
    fn a_reader_that_does_not_read_or_is_gone_neither_blocks_nor_ends_the_writer() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        (0..100).for_each(|_| write_line(writer.as_fd(), format_args!("{}", "x".repeat(2 * LONGEST))));
        let mut first = vec![0; LONGEST];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(first.iter().position(|byte| *byte == b'\n'), Some(LONGEST - 1));
        drop(reader);
        write_line(writer.as_fd(), format_args!("nobody reads this"));
    }
}
