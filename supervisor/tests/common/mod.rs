//! Shared parts of the supervisor's tests: a supervisor of their own, and waiting.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod load;
pub mod node;

use serde_json::Value;
use std::fs;
use std::iter;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A supervisor that belongs to one test and ends with it.
pub struct Supervisor {
    pub home: TempDir,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.command(&["kill"]).output();
    }
}

impl Supervisor {
    pub fn new() -> Self {
        // A short path, since socket paths have a length limit.
        Supervisor { home: tempfile::Builder::new().prefix("sv").tempdir_in("/tmp").unwrap() }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
        command.args(arguments).env("SUPERVISOR_HOME", self.path());
        command
    }

    pub fn path(&self) -> PathBuf {
        self.home.path().join("h")
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; returns its standard error.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    pub fn listed(&self) -> Value {
        serde_json::from_str(&self.ok(&["list", "--json"])).unwrap()
    }

    pub fn list(&self) -> Vec<Value> {
        self.listed()["instances"].as_array().unwrap().clone()
    }

    pub fn pids(&self) -> Vec<i64> {
        self.list().iter().filter_map(|one| one["pid"].as_i64()).collect()
    }

    /// Writes a shell script beside the supervisor's folder; returns its path.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Process id of the keeper or the daemon.
    pub fn role(&self, role: &str) -> i64 {
        self.listed()["supervisor"][role].as_i64().unwrap()
    }
}

/// Returns whether a test can run; says why if not, since only Rust and a C compiler are promised. Where all that tests need was installed for them, that is
/// an error: a test that is skipped must not look like one that has passed.
pub fn can_run(is_possible: bool, why_not: &str) -> bool {
    assert!(is_possible || std::env::var_os("NO_TEST_IS_SKIPPED").is_none(), "a test is skipped: {why_not}");
    if !is_possible {
        println!("skipped: {why_not}");
    }
    is_possible
}

/// Returns whether there is a program to test with.
pub fn has(program: &str) -> bool {
    let has_one = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    can_run(has_one, &format!("there is no {program}"))
}

/// Returns whether the test belongs to root.
pub fn is_root() -> bool {
    can_run(nix::unistd::geteuid().is_root(), "it takes root")
}

/// Writes a program into the test's folder.
pub fn program(supervisor: &Supervisor, name: &str, text: &str) -> PathBuf {
    let path = supervisor.home.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A port of 127.0.0.1 that is free now and stays so: it is below those that the system gives to clients and to listeners at port 0, and
/// no other test of this process gets it.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let mut ports = iter::from_fn(|| Some(first + TAKEN.fetch_add(1, Ordering::Relaxed)));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// An address that is free now.
pub fn free() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Sends a signal, by name, to a process or, with a minus, to a group.
pub fn signal(name: &str, pid: i64) {
    let status = Command::new("kill").args(["-s", name, "--"]).arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}

/// Returns whether a process has ended with all its threads, even if nobody has reaped it.
pub fn is_gone(pid: i64) -> bool {
    let Ok(status) = fs::read(format!("/proc/{pid}/stat")) else { return true };
    // The name before the state may contain anything.
    let status = String::from_utf8_lossy(&status);
    let fields: Vec<&str> = status.rsplit(") ").next().unwrap().split_whitespace().collect();
    // While other threads are still ending, the first is a zombie and the listeners are open.
    fields[0] == "Z" && fields[17].parse::<u32>().unwrap() <= 1
}

/// The resident memory of a process, in KiB.
pub fn resident_kib(pid: i64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Polls until a condition holds.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "timed out after 20 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server that supports socket activation and readiness messages, built as `stallbench build` does.
pub fn server() -> PathBuf {
    static BUILT: Once = Once::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    BUILT.call_once(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = ["build", "--release", "--quiet", "--package", "runtime-tokio"];
        assert!(Command::new(cargo).current_dir(root).args(build).status().unwrap().success());
    });
    target.join("release/runtime-tokio")
}

/// Starts two instances of the program with this `--listen-timeout`; returns their address.
pub fn start_within(supervisor: &Supervisor, program: &Path, time: &str) -> String {
    let program = program.to_str().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--name", "api", "-i", "2"];
    supervisor
        .ok(&[&["start", program, "--listen-timeout", time], &arguments[..], &["--", "--model", "current-thread"]].concat());
    supervisor.list()[0]["listeners"][0].as_str().unwrap().to_owned()
}

pub fn start(supervisor: &Supervisor, program: &Path) -> String {
    start_within(supervisor, program, "10s")
}
