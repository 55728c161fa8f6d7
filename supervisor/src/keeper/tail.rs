//! The end of what a worker wrote to its standard error, in which the reason of its end often stands.

/// Bytes that are kept: a screen of text, which is more than a stack trace takes.
const KEPT: usize = 4096;
/// Longest line that is shown, in characters.
const LONGEST: usize = 200;
/// How the lines begin that name an error: `Error: no such file`, `OSError: ...`, `Error [ERR_MODULE_NOT_FOUND]: ...`, `java.lang.IllegalStateException: ...`,
/// `ERROR:root:...`, `panic: ...`, `fatal: ...`.
const NAMES: [&str; 8] = ["error", "Error", "Exception", "fatal", "panic", "ERROR", "CRITICAL", "FATAL"];
/// A line that Node writes below every error.
const NODE: &str = "Node.js v";

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
        let last = lines.iter().rposition(|line| names_error(line));
        let last = last.or_else(|| lines.iter().rposition(|line| !line.starts_with(NODE)));
        let last = last.or(lines.len().checked_sub(1))?;
        // Rust writes what happened below where.
        let shown = if lines[last].contains("panicked at ") { lines.get(last + 1).unwrap_or(&lines[last]) } else { &lines[last] };
        Some(shown.trim().chars().filter(|c| !c.is_control()).take(LONGEST).collect())
    }
}

fn names_error(line: &str) -> bool {
    // Python's logging writes no space behind the colon.
    let names = [line.split_once(": "), line.split_once(':')].into_iter().flatten().map(|(name, _)| name);
    // Node writes a code behind the name.
    let mut names = names.flat_map(|name| [Some(name), name.split_once(" [").map(|(name, _)| name)]).flatten();
    line.contains("' panicked at ")
        || line.contains(") panicked at ")
        || names.any(|name| NAMES.iter().any(|end| name.ends_with(end)))
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
        let esm = "node:internal/modules/run_main:129\n    triggerUncaughtException(\n    ^\n\nError [ERR_MODULE_NOT_FOUND]: Cannot find package 'nopkg'\n    at packageResolve (node:internal/modules/esm/resolve:873:9) {\n  code: 'ERR_MODULE_NOT_FOUND'\n}\n\nNode.js v20.20.2\n";
        assert_eq!(telling(esm).unwrap(), "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'nopkg'");
        let uvicorn = "INFO:     Started server process [1]\nERROR:    [Errno 98] error while attempting to bind on address: address already in use\nINFO:     Application shutdown complete.\n";
        assert!(telling(uvicorn).unwrap().starts_with("ERROR:    [Errno 98]"));
        assert_eq!(telling("ERROR:root:cannot connect to db\nbye\n").unwrap(), "ERROR:root:cannot connect to db");
        for line in [
            "ActiveRecord::NoDatabaseError: no such one",
            "2026-01-01 12:00:00 error: full",
            "[12:00:01] Error: x",
            "2026 [app] error: y",
        ] {
            assert_eq!(telling(&format!("{line}\nbye\n")).unwrap(), line);
        }
        assert_eq!(telling("panic: no luck\n\ngoroutine 1 [running]:\nmain.main()\nexit status 2\n").unwrap(), "panic: no luck");
        assert_eq!(telling("bye\n\nNode.js v20.20.2\n").unwrap(), "bye");
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
