//! `logs` prints the last lines of logs, and new lines with `--follow`.

use super::growing::{Changes, Growing};
use super::{client, stream};
use crate::cli::Logs;
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use supervisor::control::Table;
use supervisor::home::Home;
use supervisor::selector::Selector;
use supervisor::spec::STREAMS;

/// A log whose end was printed.
struct Followed {
    label: String,
    /// Control characters are printed as they are.
    is_raw: bool,
    log: Growing,
}

/// Prints the logs.
///
/// # Errors
/// Fails if there is no such instance.
pub fn run(logs: &Logs) -> Result<()> {
    raise_limit();
    let table = client::table()?;
    let mut followed = Vec::new();
    add(&mut followed, &table, logs, |_| logs.lines)?;
    if table.apps.is_empty() && logs.wait {
        return follow(&mut followed, logs);
    }
    if followed.is_empty() {
        bail!(Selector::new(&logs.target).nothing(table.names()));
    }
    if logs.follow { follow(&mut followed, logs) } else { Ok(()) }
}

/// Allows as many open files as the system lets this process have: each log is one.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without it, a log beyond the limit is an error.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Prints the last lines of each requested log that is not followed yet.
fn add(followed: &mut Vec<Followed>, table: &Table, logs: &Logs, lines: impl Fn(&Path) -> usize) -> Result<()> {
    let selector = Selector::new(&logs.target);
    for (app, one) in table.all().filter(|(app, one)| app.is_meant(one, &selector)) {
        if let Some(trouble) = &one.log_trouble {
            super::remark(&format!("a log of {} ({}) cannot be written: {trouble}", app.name, one.id));
        }
        for (path, stream) in one.logs.iter().zip(STREAMS) {
            if logs.out && stream != STREAMS[0] || logs.err && stream != STREAMS[1] {
                continue;
            }
            if !followed.iter().any(|one| one.log.path == *path) {
                let label = format!("{}|{} {stream}| ", one.id, app.name);
                let mut one = Followed::new(label, path.clone(), logs);
                one.print_end(lines(path), logs.follow).with_context(|| format!("cannot read {}", path.display()))?;
                followed.push(one);
            }
        }
    }
    Ok(())
}

impl Followed {
    fn new(label: String, path: PathBuf, logs: &Logs) -> Self {
        Followed { label, is_raw: logs.raw || !std::io::stdout().is_terminal(), log: Growing::new(path) }
    }

    /// Prints the last lines. One without an end comes later, if new lines do.
    fn print_end(&mut self, lines: usize, follows: bool) -> Result<()> {
        let text = self.log.last_lines(lines)?;
        self.print(&text)?;
        let rest = if follows { Vec::new() } else { self.log.take_rest() };
        if rest.is_empty() { Ok(()) } else { self.print(&[&rest[..], b"\n"].concat()) }
    }

    fn print_new(&mut self) -> Result<()> {
        let text = self.log.new_lines()?;
        self.print(&text)
    }

    fn print(&self, text: &[u8]) -> Result<()> {
        text.split_inclusive(|byte| *byte == b'\n').try_for_each(|line| {
            let shown = if self.is_raw { Cow::Borrowed(line) } else { Cow::Owned(harmless(line)) };
            stream(&[self.label.as_bytes(), &shown].concat())
        })
    }
}

/// Prints new lines, including those of instances that start later.
fn follow(followed: &mut Vec<Followed>, logs: &Logs) -> Result<()> {
    let home = Home::open()?;
    let usual = home.logs();
    let mut changes = Changes::new().context("cannot set up inotify for --follow")?;
    changes.watch(&usual).with_context(|| usual.display().to_string())?;
    // The list of what runs is written anew with every change.
    changes.watch(home.path()).with_context(|| home.path().display().to_string())?;
    let state = home.state();
    let before = files_in(&usual);
    let input = std::io::stdin();
    if logs.wait {
        // Whoever waits for it can go on: nothing is missed from now on.
        let _ = rustix::io::write(&input, b"w");
    }
    let end = logs.wait.then(|| input.as_fd());
    loop {
        for one in followed.iter_mut() {
            // Without its folder, it has no new lines.
            let _ = one.log.path.parent().map(|folder| changes.watch(folder));
            one.print_new()?;
        }
        let Some(names) = changes.wait(end)? else {
            followed.iter_mut().try_for_each(Followed::print_new)?;
            return print_unlisted(followed, &usual, &before, logs);
        };
        // Another instance may have logs of its own; the daemon knows, if it answers.
        if state.file_name().is_some_and(|state| names.contains(state))
            && let Ok(table) = client::table()
        {
            // Nothing of a log that was not there is missed.
            add(followed, &table, logs, |path| if before.contains(path) { logs.lines } else { usize::MAX })?;
        }
    }
}

/// Prints the logs of instances that have ended, and left the list, before it was looked at.
fn print_unlisted(followed: &[Followed], folder: &Path, before: &BTreeSet<PathBuf>, logs: &Logs) -> Result<()> {
    let is_known = |path: &Path| followed.iter().any(|one| one.log.path == path);
    // A rotated one, `.log.1`, is printed with the log that it belongs to.
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    for path in files_in(folder).difference(before).filter(|path| is_log(path) && !is_known(path)) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Followed::new(format!("{name}| "), path.clone(), logs).print_end(usize::MAX, false)?;
    }
    Ok(())
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
