//! Disks that take long, and a daemon that dies while it writes: strace holds up its calls, or lets it die in one.

mod common;

use common::{Supervisor, has, is_gone, is_root, until};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

/// A strace that does something to each `fsync` of a process, with its messages.
struct Strace(Child, #[expect(dead_code)] BufReader<ChildStderr>);

impl Strace {
    fn of(pid: i64, what: &str) -> Self {
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-o",
            "/dev/null",
            "-p",
            &pid.to_string(),
            "-e",
            "trace=fsync",
            "-e",
            &format!("inject=fsync:{what}"),
        ]);
        let mut child = strace.stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        errors.read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        Strace(child, errors)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_app_whose_specification_was_never_written_can_be_started_again() {
    // Others may attach to nothing.
    if !is_root() || !has("strace") {
        return;
    }
    let supervisor = Supervisor::new();
    let start = |name: &str| supervisor.run(&["start", "sleep 1000", "--name", name, "--min-uptime", "10ms"]);
    assert!(start("first").status.success());
    let daemon = supervisor.role("daemon");
    let strace = Strace::of(daemon, "signal=SIGKILL:when=1");
    assert!(!start("second").status.success());
    drop(strace);
    until("the daemon has died", || is_gone(daemon));
    let again = start("second");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(supervisor.list().iter().all(|one| one["status"] == "online"));
}

#[test]
fn a_slow_disk_is_no_hang() {
    // Others may attach to nothing.
    if !is_root() || !has("strace") {
        return;
    }
    let supervisor = Supervisor::new();
    let names = ["a", "b", "c"];
    for name in names {
        supervisor.ok(&["start", "sleep 1000", "--name", name, "--min-uptime", "10ms"]);
    }
    supervisor.ok(&["save"]);
    supervisor.ok(&["delete", "all"]);
    let daemon = supervisor.role("daemon");
    // Two for each app, and far longer together than a daemon may be silent.
    let strace = Strace::of(daemon, "delay_exit=1500000");
    let mut resurrect = supervisor.command(&["resurrect"]).stdout(Stdio::null()).spawn().unwrap();
    // Its client lets the keeper ask whether the daemon lives.
    assert!(supervisor.run(&["list"]).status.success());
    assert!(resurrect.wait().unwrap().success());
    drop(strace);
    assert_eq!((supervisor.role("daemon"), supervisor.list().len()), (daemon, names.len()));
}
