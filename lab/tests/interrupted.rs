//! A lab that is interrupted while it builds ends the build, and everything that the build has started.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The end of a build that nobody ends: some of its processes do not heed a polite request. Both hold the pipe `held`.
const SLOW: &str =
    "exec 9>held; echo builds >&9; sh -c 'trap \"\" INT TERM; sleep 30; echo built >&9' & sleep 30; echo built >&9; exit 1";
/// Builds everything at once until the supervisor is built, which comes last.
const SECOND_TIME: &str = "if ! [ -e built ]; then case $* in *supervisor*) : > built;; esac; exit 0; fi";

/// A lab with a compiler of its own, and the folder in which the compiler runs.
fn lab(script: &str) -> (Child, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    assert!(Command::new("mkfifo").arg(folder.path().join("held")).status().unwrap().success());
    let cargo = folder.path().join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display())).unwrap();
    fs::set_permissions(&cargo, Permissions::from_mode(0o755)).unwrap();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_stallbench-lab"));
    lab.args(["--port", "0", "tokio-current-thread"]).env("CARGO", cargo).env("CARGO_TARGET_DIR", folder.path().join("target"));
    (lab.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), folder)
}

/// Interrupts the lab once it builds, and waits until nothing that the build has started is left.
fn interrupt_the_build(lab: Child, folder: &TempDir) {
    let mut held = BufReader::new(File::open(folder.path().join("held")).unwrap());
    let mut words = String::new();
    held.read_line(&mut words).unwrap();
    kill(Pid::from_raw(lab.id().cast_signed()), Signal::SIGINT).unwrap();
    // The pipe ends with the last process that holds it.
    held.read_to_string(&mut words).unwrap();
    assert_eq!(words, "builds\n", "the build was ended");
    let output = lab.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.ends_with("stallbench lab: interrupted\n"), "{stderr}");
}

#[test]
fn an_interrupt_ends_the_build_before_the_page_is_there() {
    let (lab, folder) = lab(SLOW);
    interrupt_the_build(lab, &folder);
}

#[test]
fn an_interrupt_ends_the_build_of_a_pane() {
    let (mut lab, folder) = lab(&format!("{SECOND_TIME}\n{SLOW}"));
    let mut address = String::new();
    BufReader::new(lab.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let (host, token) = address.trim().strip_prefix("http://").and_then(|rest| rest.split_once("/?token=")).unwrap();
    // The panes build once somebody looks.
    let mut page = TcpStream::connect(host).unwrap();
    write!(page, "GET /events?token={token} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    interrupt_the_build(lab, &folder);
}

#[test]
fn a_build_does_not_outlive_a_lab_that_is_killed() {
    let (mut lab, folder) = lab("exec 9>held; echo builds >&9; sleep 5 9>&-; echo built >&9");
    let mut held = BufReader::new(File::open(folder.path().join("held")).unwrap());
    let mut words = String::new();
    held.read_line(&mut words).unwrap();
    lab.kill().unwrap();
    held.read_to_string(&mut words).unwrap();
    assert_eq!(words, "builds\n", "the build was ended");
    lab.wait().unwrap();
}
