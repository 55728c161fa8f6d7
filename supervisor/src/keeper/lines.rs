//! A worker's output, line by line: in a log that several write to, a line comes from one of them.

use std::borrow::Cow;
use std::time::{Duration, Instant};

/// Time after which the beginning of a line is written, although its end has not come.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest beginning of a line that is kept, in bytes.
const LONGEST: usize = 64 * 1024;

/// The beginning of a line whose end has not come.
#[derive(Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// When its first byte came.
    since: Option<Instant>,
}

impl Lines {
    /// Adds output; returns the lines that are complete, or everything if no line ends for long.
    pub fn push<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (whole, rest) = bytes.split_at(end);
        let since = self.since.filter(|_| whole.is_empty());
        let whole = if self.begun.is_empty() || whole.is_empty() {
            Cow::Borrowed(whole)
        } else {
            Cow::Owned([&std::mem::take(&mut self.begun)[..], whole].concat())
        };
        self.begun.extend_from_slice(rest);
        if self.begun.len() > LONGEST {
            return Cow::Owned([&whole[..], &self.take()].concat());
        }
        self.since = (!self.begun.is_empty()).then(|| since.unwrap_or_else(Instant::now));
        whole
    }

    /// Returns the beginning of the last line.
    pub fn take(&mut self) -> Vec<u8> {
        self.since = None;
        std::mem::take(&mut self.begun)
    }

    /// When the beginning of a line is to be written.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_come_out_until_the_rest_is_taken() {
        let mut lines = Lines::default();
        assert_eq!(&*lines.push(b"one\ntw"), b"one\n");
        assert!(lines.due().is_some());
        assert_eq!(&*lines.push(b"o"), b"");
        assert_eq!(&*lines.push(b"\nthree\n"), b"two\nthree\n");
        assert_eq!(lines.due(), None);
        assert_eq!(&*lines.push(b"rest"), b"");
        assert_eq!((lines.take(), lines.due()), (b"rest".to_vec(), None));
    }

    #[test]
    fn a_line_that_grows_slowly_waits_no_longer_than_its_beginning() {
        let mut lines = Lines::default();
        lines.push(b".");
        let due = lines.due();
        lines.push(b".");
        assert_eq!(lines.due(), due);
        // As if it had begun long ago.
        lines.since = lines.since.map(|since| since - PATIENCE);
        lines.push(b"\n.");
        assert!(lines.due() >= due, "the next line waits by itself");
    }

    #[test]
    fn a_line_without_end_comes_out_in_pieces() {
        let mut lines = Lines::default();
        let long = vec![b'x'; LONGEST];
        assert_eq!(lines.push(&long).len(), 0);
        assert_eq!(lines.push(b"y").len(), LONGEST + 1);
    }
}
