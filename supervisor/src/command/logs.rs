//! `logs` prints the last lines of logs, and new lines with `--follow`.

use super::growing::{Changes, Growing};
use super::{client, patient, stream};
use crate::cli::Logs;
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use supervisor::control::Table;
use supervisor::home::Home;
use supervisor::selector::Selector;
use supervisor::spec::STREAMS;

/// Bytes that are written at once.
const AT_ONCE: usize = 64 * 1024;

/// The logs that were printed so far, and what was said about others: the list changes often.
#[derive(Default)]
struct Printed {
    logs: Vec<Followed>,
    told: BTreeSet<String>,
}

/// A log whose end was printed.
struct Followed {
    label: String,
    log: Growing,
}

/// Which logs are printed, and how.
struct Choice<'a> {
    selector: Selector,
    streams: Vec<&'a str>,
    /// The number of last lines of a log that was there before.
    lines: usize,
    follow: bool,
    /// Control characters are printed as they are.
    is_raw: bool,
    /// Prints lines.
    write: &'a dyn Fn(&[u8]) -> Result<()>,
}

/// Prints the logs.
///
/// # Errors
/// Fails if there is no such instance.
pub fn run(logs: &Logs) -> Result<()> {
    raise_limit();
    let table = client::table()?;
    let is_meant = |stream: &&str| !(logs.out && *stream != STREAMS[0] || logs.err && *stream != STREAMS[1]);
    let choice = Choice {
        selector: Selector::new(&logs.target),
        streams: STREAMS.into_iter().filter(is_meant).collect(),
        lines: logs.lines,
        follow: logs.follow,
        is_raw: logs.raw || !std::io::stdout().is_terminal(),
        write: &stream,
    };
    let mut printed = Printed::default();
    choice.add(&mut printed, &table, |_| choice.lines)?;
    if printed.logs.is_empty() {
        bail!(choice.selector.nothing(table.names()));
    }
    if choice.follow { choice.follow(printed, None) } else { Ok(()) }
}

/// Prints new lines of all logs until the other end of a stream is closed, and then what was written before that.
/// It is told when it can go on: nothing is missed from then on. `printed` counts the bytes.
///
/// # Errors
/// Fails if the logs cannot be watched, or nobody reads what is printed.
pub fn run_until_closed(end: &UnixStream, printed: &AtomicUsize) -> Result<()> {
    raise_limit();
    let is_raw = !std::io::stdout().is_terminal();
    let streams = STREAMS.to_vec();
    let note = |count| {
        printed.fetch_add(count, Ordering::Relaxed);
    };
    let write = |text: &[u8]| patient(text, note);
    Choice { selector: Selector::new("all"), streams, lines: 0, follow: true, is_raw, write: &write }
        .follow(Printed::default(), Some(end))
}

/// Allows as many open files as the system lets this process have: each log is one.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without it, a log beyond the limit is an error.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

impl Choice<'_> {
    /// Prints the last lines of each chosen log that is not followed yet.
    fn add(&self, printed: &mut Printed, table: &Table, lines: impl Fn(&Path) -> usize) -> Result<()> {
        for (app, one) in table.all().filter(|(app, one)| app.is_meant(one, &self.selector)) {
            if let Some(trouble) = &one.log_trouble {
                let text = format!("a log of {} ({}) cannot be written: {trouble}", app.name, one.id);
                if printed.told.insert(text.clone()) {
                    super::remark(&text);
                }
            }
            for (path, stream) in one.logs.iter().zip(STREAMS).filter(|(_, stream)| self.streams.contains(stream)) {
                if !printed.logs.iter().any(|one| one.log.path == *path) {
                    let label = format!("{}|{} {stream}| ", one.id, app.name);
                    let mut one = Followed { label, log: Growing::new(path.clone()) };
                    self.print_end(&mut one, lines(path), self.follow)?;
                    printed.logs.push(one);
                }
            }
        }
        Ok(())
    }

    /// Prints the last lines. One without an end comes later, if new lines do.
    fn print_end(&self, one: &mut Followed, lines: usize, follows: bool) -> Result<()> {
        let text = one.log.last_lines(lines).with_context(|| format!("cannot read {}", one.log.path.display()))?;
        self.print(one, &text)?;
        let rest = if follows { Vec::new() } else { one.log.take_rest() };
        if rest.is_empty() { Ok(()) } else { self.print(one, &[&rest[..], b"\n"].concat()) }
    }

    /// Prints some new lines of each log; returns whether there were any. None keeps the others from being printed, however fast it grows.
    fn print_some(&self, logs: &mut [Followed]) -> Result<bool> {
        let mut has_more = false;
        for one in logs {
            let text = one.log.new_lines()?;
            has_more |= !text.is_empty();
            self.print(one, &text)?;
        }
        Ok(has_more)
    }

    fn print(&self, one: &Followed, text: &[u8]) -> Result<()> {
        let mut shown = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            shown.extend(one.label.as_bytes());
            shown.extend(&*if self.is_raw { Cow::Borrowed(line) } else { Cow::Owned(harmless(line)) });
            if shown.len() > AT_ONCE {
                (self.write)(&shown)?;
                shown.clear();
            }
        }
        if shown.is_empty() { Ok(()) } else { (self.write)(&shown) }
    }

    /// Prints new lines, including those of instances that start later.
    fn follow(&self, mut printed: Printed, end: Option<&UnixStream>) -> Result<()> {
        let home = Home::open()?;
        let usual = home.logs();
        let mut changes = Changes::new().context("cannot set up inotify to follow the logs")?;
        changes.watch(&usual).with_context(|| usual.display().to_string())?;
        // The list of what runs is written anew with every change.
        changes.watch(home.path()).with_context(|| home.path().display().to_string())?;
        let state = home.state();
        let before = files_in(&usual);
        if let Some(mut end) = end {
            end.write_all(b"w")?;
        }
        loop {
            for one in &printed.logs {
                // Without its folder, it has no new lines.
                let _ = one.log.path.parent().map(|folder| changes.watch(folder));
            }
            let has_more = self.print_some(&mut printed.logs)?;
            let Some(names) = changes.wait(end.map(AsFd::as_fd), !has_more)? else {
                while self.print_some(&mut printed.logs)? {}
                return self.print_unlisted(&printed.logs, &usual, &before);
            };
            // Another instance may have logs of its own; the daemon knows, if it answers.
            let is_changed = |name: &OsString| name.is_empty() || state.file_name() == Some(name);
            if names.iter().any(is_changed)
                && let Ok(table) = client::table()
            {
                // Nothing of a log that was not there is missed.
                self.add(&mut printed, &table, |path| if before.contains(path) { self.lines } else { usize::MAX })?;
            }
        }
    }

    /// Prints the logs of instances that have ended, and left the list, before it was looked at.
    fn print_unlisted(&self, followed: &[Followed], folder: &Path, before: &BTreeSet<PathBuf>) -> Result<()> {
        let is_known = |path: &Path| followed.iter().any(|one| one.log.path == path);
        // A rotated one, `.log.1`, is printed with the log that it belongs to.
        let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
        for path in files_in(folder).difference(before).filter(|path| is_log(path) && !is_known(path)) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let mut one = Followed { label: format!("{name}| "), log: Growing::new(path.clone()) };
            self.print_end(&mut one, usize::MAX, false)?;
        }
        Ok(())
    }
}

fn files_in(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A line for a terminal: colours stay, and every other control character is shown instead of obeyed.
fn harmless(line: &[u8]) -> Vec<u8> {
    let mut shown = String::with_capacity(line.len());
    let text = String::from_utf8_lossy(line);
    let mut rest = &*text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = color(rest) {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match first {
            '\n' | '\t' => shown.push(first),
            '\0'..='\x1f' | '\x7f' => shown.extend(['^', char::from((first as u8) ^ 0x40)]),
            first if first.is_control() => shown.push('\u{fffd}'),
            first => shown.push(first),
        }
        rest = &rest[first.len_utf8()..];
    }
    shown.into_bytes()
}

/// The length of the colour sequence that a text begins with: `ESC [`, numbers, `m`.
fn color(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\x1b[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_and_no_commands() {
        let shown = |line: &str| String::from_utf8(harmless(line.as_bytes())).unwrap();
        assert_eq!(shown("\x1b[1;31mred\x1b[0m\tplain\n"), "\x1b[1;31mred\x1b[0m\tplain\n");
        assert_eq!(shown("\x1b]0;title\x07\x1b[2J\r\x7f"), "^[]0;title^G^[[2J^M^?");
        assert_eq!(shown("\u{9b}2J \u{e9}"), "\u{fffd}2J \u{e9}");
        assert_eq!(harmless(b"\xff\n"), "\u{fffd}\n".as_bytes());
    }
}
