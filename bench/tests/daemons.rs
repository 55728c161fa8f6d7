//! The processes of a user's own server: all of them are measured and ended, whatever the command does, and a start that failed is explained.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn bench(command: &str, more: &[&str]) -> Command {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    bench.args(["bench", "--alone", "--quick", "--command", command]).args(more);
    bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    bench
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that is built once, as a user would start it.
fn server() -> String {
    let built = Command::new(env!("CARGO_BIN_EXE_stallbench")).args(["build", "tokio-current-thread"]).output().unwrap();
    assert!(built.status.success(), "{}", words(&built));
    let binary = Path::new(env!("CARGO_BIN_EXE_stallbench")).parent().unwrap().join("../release/runtime-tokio");
    format!("{} --model current-thread --listen 127.0.0.1:{{port}}", binary.display())
}

/// A named pipe: its reader sees the end once no process has its other end.
fn fifo() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("held");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    (folder, path)
}

#[test]
fn a_server_that_leaves_its_shell_and_its_group_is_asked_and_ended() {
    let (_folder, held) = fifo();
    let command = format!("exec 9>{}; setsid nohup {} >/dev/null 2>&1 &", held.display(), server());
    let running = bench(&command, &["--blocker", "/no-such-path"]).spawn().unwrap();
    // Both ends: what holds the pipe has ended when this returns.
    let mut nothing = String::new();
    let reader = std::thread::spawn(move || fs::File::open(held).unwrap().read_to_string(&mut nothing));
    let output = running.wait_with_output().unwrap();
    assert!(words(&output).contains("/no-such-path is answered 404"), "{}", words(&output));
    reader.join().unwrap().unwrap();
}

#[test]
fn a_server_in_a_session_of_its_own_ends_though_stallbench_is_killed() {
    let (_folder, held) = fifo();
    let command = format!("exec 9>{}; echo up >&9; exec setsid --wait {}", held.display(), server());
    let mut running = bench(&command, &["--blocker", "/sleep?ms=2000"]).spawn().unwrap();
    let mut held = BufReader::new(fs::File::open(held).unwrap());
    held.read_line(&mut String::new()).unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    held.read_to_string(&mut String::new()).unwrap();
}

#[test]
fn a_command_may_tidy_up_when_it_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (tidied, cut) = (folder.path().join("tidied"), folder.path().join("cut"));
    // The second one does not heed the signal, and is ended all the same.
    let command = format!(
        "trap 'echo done > {}; exit' TERM; sh -c 'trap \"\" TERM; sleep 1000; echo > {}' & {} & wait",
        tidied.display(),
        cut.display(),
        server()
    );
    let output = bench(&command, &["--blocker", "/no-such-path"]).output().unwrap();
    assert!(words(&output).contains("/no-such-path is answered 404"), "{}", words(&output));
    assert_eq!(fs::read_to_string(tidied).unwrap(), "done\n");
    assert!(!cut.exists());
}

#[test]
fn a_start_that_fails_says_how_it_ended_and_quotes_what_it_printed() {
    for (script, wanted) in [
        (
            "echo out; echo no such table >&2; exit 3",
            "ended with exit status 3 before it was ready; its stderr ends: no such table",
        ),
        ("echo no such module; exit 1", "ended with exit status 1 before it was ready; its stdout ends: no such module"),
        (
            "printf 'caf\\351 is closed\\n' >&2; exit 4",
            "ended with exit status 4 before it was ready; its stderr ends: caf\u{fffd} is closed",
        ),
        ("kill -9 $$", "ended with signal 9 (SIGKILL) before it was ready"),
        ("true", "ended with exit status 0 before it was ready: the command must not return before its server has ended"),
        (
            "yes something | head -c 30000000; echo the end; exit 5",
            "ended with exit status 5 before it was ready; its stdout ends: something",
        ),
    ] {
        let output = bench(&format!("{script} # {{port}}"), &["--blocker", "/slow"]).output().unwrap();
        let words = words(&output);
        assert!(output.status.code() == Some(1) && words.contains(wanted), "{script}: {words}");
        // Before it, that the service is asked.
        let errors = words.lines().filter(|line| !line.starts_with("yours: asks "));
        assert!(errors.count() == 1 && words.len() < 5000, "{script}: {words}");
    }
}
