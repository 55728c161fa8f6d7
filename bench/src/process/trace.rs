//! What a server asks of the system: its system calls, counted by strace, and the context switches of its threads.

use super::Running;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use tempfile::NamedTempFile;

/// Context switches of all threads so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Switches {
    /// A thread waited.
    pub voluntary: u64,
    /// A thread was preempted.
    pub involuntary: u64,
}

impl Switches {
    /// Those of all threads of a server that live.
    pub fn of(running: &Running) -> Self {
        let mut switches = Switches::default();
        for pid in running.pids() {
            for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                let field = |name: &str| {
                    let value = status.lines().find_map(|line| line.strip_prefix(name));
                    value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_default()
                };
                switches.voluntary += field("voluntary_ctxt_switches:");
                switches.involuntary += field("nonvoluntary_ctxt_switches:");
            }
        }
        switches
    }

    /// Those since `earlier`.
    pub fn since(self, earlier: Switches) -> Switches {
        Switches {
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// Why system calls cannot be counted here.
pub fn missing() -> Option<String> {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    there.is_err().then(|| "needs strace".into())
}

/// An strace that is attached to every thread of a server.
pub struct Strace {
    child: Child,
    counts: NamedTempFile,
}

impl Strace {
    /// Attaches it; returns once it counts.
    ///
    /// # Errors
    /// It cannot be started, or may not attach.
    pub fn attach(running: &Running) -> Result<Self> {
        let counts = NamedTempFile::new().context("cannot make a temporary file")?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(counts.path());
        let pids = running.pids();
        command.args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("strace")?;
        let mut words = BufReader::new(child.stderr.take().context("strace has no stderr")?);
        let mut attached = 0;
        let mut line = String::new();
        while attached < pids.len() {
            line.clear();
            if words.read_line(&mut line).context("strace")? == 0 {
                let _ = child.wait();
                bail!("strace cannot attach to {}", running.address);
            }
            attached += usize::from(line.contains(" attached"));
            if line.contains("attach:") {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{}", line.trim());
            }
        }
        // What it says later is read by nobody, and it must not wait for that.
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
        Ok(Strace { child, counts })
    }

    /// Detaches it: how often each system call was made, by name.
    ///
    /// # Errors
    /// It cannot be ended, or says something else.
    pub fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).context("strace")?;
        self.child.wait().context("strace")?;
        let text = fs::read_to_string(self.counts.path()).context("cannot read what strace counted")?;
        Ok(parse(&text))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It has ended unless an error came first; then it would go on counting.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a number and a name; the heads, the rules and the sum are none.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        let name = name.trim();
        let is_name =
            name != "total" && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        Some((name.to_owned(), calls.parse().ok()?)).filter(|_| is_name)
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_strace_is_read_without_its_heads_rules_and_sum() {
        let text = "    calls syscall\n--------- ----------------\n    40008 epoll_wait\n        1 io_uring_enter\n--------- ----------------\n    40009 total\n";
        let counts = parse(text);
        assert_eq!(counts.len(), 2);
        assert_eq!((counts["epoll_wait"], counts["io_uring_enter"]), (40_008, 1));
    }
}
