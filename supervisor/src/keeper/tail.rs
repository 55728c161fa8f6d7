//! The end of what a worker wrote to its standard error, in which the reason of its end often stands.

/// Bytes that are kept: a screen of text, which is more than a stack trace takes.
const KEPT: usize = 4096;
/// Longest line that is shown, in characters.
const LONGEST: usize = 200;
/// How the lines begin that name an error: `Error: no such file`, `OSError: ...`, `java.lang.IllegalStateException: ...`, `fatal: ...`.
const NAMES: [&str; 4] = ["error", "Error", "Exception", "fatal"];

/// The last bytes of a stream.
#[derive(Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Adds bytes, and drops old ones.
    pub fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(KEPT)..];
        let surplus = (self.0.len() + new.len()).saturating_sub(KEPT);
        self.0.drain(..surplus.min(self.0.len()));
        self.0.extend_from_slice(new);
    }

    /// Returns the line that tells most: the last one that names an error, or else the last one.
    pub fn telling_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().rposition(|line| names_error(line)).or(lines.len().checked_sub(1))?;
        // Rust writes what happened below where.
        let shown = if lines[last].contains("panicked at ") { lines.get(last + 1).unwrap_or(&lines[last]) } else { &lines[last] };
        Some(shown.trim().chars().filter(|c| !c.is_control()).take(LONGEST).collect())
    }
}

fn names_error(line: &str) -> bool {
    let name = line.split_once(": ").map(|(name, _)| name);
    line.contains("' panicked at ")
        || line.contains(") panicked at ")
        || name.is_some_and(|name| NAMES.iter().any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(text: &str) -> Option<String> {
        let mut tail = Tail::default();
        // In pieces, as a pipe delivers it.
        text.as_bytes().chunks(7).for_each(|bytes| tail.push(bytes));
        tail.telling_line()
    }

    #[test]
    fn an_error_is_found_above_what_is_written_after_it() {
        let node = "node:events:495\n      throw er; // Unhandled 'error' event\n      ^\n\n\
                    Error: listen EADDRINUSE: address already in use :::3000\n    at Server.listen (node:net:1463:16)\n\
                    Emitted 'error' event on Server instance at:\n    at emitErrorNT (node:net:1490:8) {\n  code: 'EADDRINUSE'\n}\n\nNode.js v20.11.0\n";
        assert_eq!(telling(node).unwrap(), "Error: listen EADDRINUSE: address already in use :::3000");
        let python = "Traceback (most recent call last):\n  File \"app.py\", line 1, in <module>\nOSError: [Errno 98] Address already in use\n";
        assert_eq!(telling(python).unwrap(), "OSError: [Errno 98] Address already in use");
        let rust = "thread 'main' panicked at src/main.rs:2:5:\nno luck\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(telling(rust).unwrap(), "no luck");
    }

    #[test]
    fn without_an_error_it_is_the_last_line() {
        assert_eq!(telling("one\nout of \x1b[31mluck\n\n").unwrap(), "out of [31mluck");
        assert_eq!(telling("\n \n"), None);
        assert_eq!(telling(&"x".repeat(9000)).unwrap().len(), LONGEST);
    }
}
