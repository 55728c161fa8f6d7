//! Commands that only read: targets, logs, events and metrics, as their readers come and go.

mod common;

use common::{Supervisor, free, signal, until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

#[test]
fn logs_have_the_mode_that_was_asked_for() {
    let supervisor = Supervisor::new();
    for (name, options, mode) in [("plain", &[][..], 0o600), ("shared", &["--log-mode", "640"], 0o640)] {
        let words =
            [&["start", "sh", "--name", name, "--min-uptime", "10ms"], options, &["--", "-c", "echo it; exec sleep 1000"]];
        supervisor.ok(&words.concat());
        let log = supervisor.path().join(format!("logs/{name}-0-out.log"));
        until("it has written", || log.exists());
        assert_eq!(fs::metadata(log).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn every_command_with_a_target_takes_patterns_and_namespaces() {
    let supervisor = Supervisor::new();
    for (name, namespace) in [("api-1", "web"), ("api-2", "web"), ("job", "work")] {
        let program = format!("echo {name} writes; exec sleep 1000");
        let words = ["start", "sh", "--name", name, "--namespace", namespace, "--min-uptime", "50ms", "--", "-c"];
        supervisor.ok(&[&words[..], &[&program]].concat());
    }
    for target in ["api-*", "web"] {
        assert_eq!(supervisor.ok(&["pid", target]).lines().count(), 2, "{target}");
        let logs = supervisor.ok(&["logs", target]);
        assert!(logs.contains("api-1 writes") && logs.contains("api-2 writes") && !logs.contains("job"), "{logs}");
        let events = supervisor.ok(&["events", target]);
        assert!(events.contains("api-2") && !events.contains("job"), "{events}");
        let shown = supervisor.ok(&["show", target]);
        assert!(shown.contains("api-1") && !shown.contains("job"), "{shown}");
        supervisor.ok(&["stop", target]);
        supervisor.ok(&["start", target]);
    }
    assert_eq!(supervisor.pids().len(), 3);
    for command in ["logs", "show", "pid", "env", "events", "stop"] {
        let said = supervisor.fails(&[command, "jop"]);
        assert!(said.contains("did you mean job?") && said.lines().count() == 1, "{command}: {said}");
    }
}

/// Reads a line of a command that goes on, and leaves.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn what_is_followed_ends_with_its_reader() {
    let supervisor = Supervisor::new();
    let program = "while :; do echo line; sleep 0.01; done";
    supervisor.ok(&["start", "sh", "--name", "app", "--min-uptime", "50ms", "--", "-c", program]);
    for command in ["logs", "events"] {
        let mut follows = supervisor.command(&[command, "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
        assert!(first_line(&mut follows).contains("app"));
        until("it has ended", || {
            supervisor.ok(&["reset", "app"]);
            supervisor.ok(&["restart", "app"]);
            follows.try_wait().unwrap().is_some()
        });
        assert!(follows.wait().unwrap().success(), "{command}");
    }
}

/// Asks for the metrics on a connection.
fn ask(mut stream: impl Read + Write) -> String {
    let mut text = String::new();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn slow_clients_of_the_metrics_hold_up_nobody_else() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let address = free();
    let mut served = supervisor.command(&["metrics", "--listen", &address]).spawn().unwrap();
    until("it listens", || TcpStream::connect(&address).is_ok());
    let mut slow: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&address).unwrap()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET").unwrap());
    assert!(ask(TcpStream::connect(&address).unwrap()).contains("supervisor_instance_online{app=\"app\""));
    // None of them has been let go instead.
    for stream in slow {
        stream.set_nonblocking(true).unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
    served.kill().unwrap();
    served.wait().unwrap();
}

#[test]
fn a_file_in_place_of_the_socket_of_the_metrics_stays() {
    let supervisor = Supervisor::new();
    let path = supervisor.home.path().join("notes");
    fs::write(&path, "precious").unwrap();
    let said = supervisor.fails(&["metrics", "--socket", path.to_str().unwrap()]);
    assert!(said.contains("is not a socket") && said.lines().count() == 1, "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    // The socket of an earlier run is replaced.
    fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut served = supervisor.command(&["metrics", "--socket", path.to_str().unwrap()]).spawn().unwrap();
    until("it listens", || UnixStream::connect(&path).is_ok());
    assert!(ask(UnixStream::connect(&path).unwrap()).starts_with("HTTP/1.1 200 OK"));
    served.kill().unwrap();
    served.wait().unwrap();
}

#[test]
fn the_log_of_a_process_is_the_one_that_it_writes_to_though_another_version_would_name_another() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sh", "--name", "api-0", "--ready-when", "log:up", "--", "-c", "echo up; exec sleep 1000"]);
    let log = || supervisor.list()[0]["logs"][0].as_str().unwrap().to_owned();
    let before = log();
    // What decides about names changes, as it may with another version.
    let path = supervisor.path().join("specs/api-0.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["options"]["merge_logs"] = true.into();
    fs::write(&path, spec.to_string()).unwrap();
    let daemon = supervisor.role("daemon");
    signal("KILL", daemon);
    until("there is another daemon", || supervisor.role("daemon") != daemon);
    assert_eq!(log(), before);
    assert!(supervisor.ok(&["logs", "api-0"]).contains("up"));
    supervisor.ok(&["flush", "api-0"]);
    until("the log is empty", || fs::read(&before).unwrap_or_default().is_empty());
    supervisor.ok(&["restart", "api-0"]);
    assert_ne!(log(), before);
}

#[test]
fn apps_that_name_one_log_share_it_and_that_is_said() {
    let supervisor = Supervisor::new();
    let log = supervisor.home.path().join("all.log");
    let start = |name: &str, log: &str| {
        let line = format!("echo of {name}; exec sleep 1000");
        supervisor.ok(&["start", "sh", "--name", name, "--ready-when", "log:of", "--log", log, "--", "-c", &line])
    };
    let shared = log.to_str().unwrap();
    assert_eq!(start("api", shared), "api is online\n");
    assert_eq!(start("worker", shared), format!("worker is online; api writes to the same log, {shared}\n"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "of api\nof worker\n");
    assert_eq!(start("silent", "/dev/null"), "silent is online\n");
    assert_eq!(start("other", "/dev/null"), "other is online\n", "there is nothing to share");
}

#[test]
fn no_two_apps_share_a_log_that_nobody_has_named() {
    let supervisor = Supervisor::new();
    let start = |name: &str, more: &[&str]| {
        let line = format!("echo of {name}; exec sleep 1000");
        let words = ["start", "sh", "--name", name, "--ready-when", "log:of"];
        supervisor.ok(&[&words[..], more, &["--", "-c", &line]].concat());
    };
    start("api", &[]);
    start("api-0", &["--merge-logs"]);
    start("api-00", &["--merge-logs"]);
    let list = supervisor.list();
    for one in &list {
        let log = fs::read_to_string(one["logs"][0].as_str().unwrap()).unwrap();
        assert_eq!(log, format!("of {}\n", one["name"].as_str().unwrap()));
    }
    assert!(list[2]["logs"][0].as_str().unwrap().contains("api-00"), "{list:?}");
}

#[test]
fn a_line_that_a_process_has_left_without_an_end_is_not_continued_by_the_next_one() {
    let supervisor = Supervisor::new();
    // What has no end is written after a while.
    let script = supervisor.script("app.sh", "echo first; printf begun; sleep 1; exit 1");
    supervisor.run(&["start", &script, "--time", "--min-uptime", "100ms", "--restart-delay", "1ms"]);
    let text = || supervisor.ok(&["logs", "app", "--out"]);
    until("it has been started three times", || text().matches("first").count() >= 3);
    assert!(!text().lines().any(|line| line.contains("first") && line.contains("begun")), "{}", text());
    assert!(!text().lines().any(|line| line.matches("Z ").count() + line.matches("T").count() > 1), "{}", text());
}
