//! `drive`: what it says of answers, of files, and of a load that it cannot put on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A server whose answers have this status and take this time; also the number of requests that it got.
fn server(status: u16, takes: Duration) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, asked) = (format!("http://{}/", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                while lines.by_ref().any(|line| line.is_empty()) {
                    count.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(takes);
                    if stream.write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, asked)
}

fn drive(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    command.arg("drive").args(arguments).stdin(Stdio::null()).output().expect("stallbench runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_log_that_cannot_be_opened_is_refused_before_any_request() {
    let (url, asked) = server(200, Duration::ZERO);
    let output = drive(&[&url, "--closed", "--duration", "0.1", "--hlog", "/no-such-folder/x.hlog"]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    assert!(words.contains("cannot write /no-such-folder/x.hlog") && words.lines().count() == 1, "{words}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_log_that_cannot_be_written_costs_the_log_and_not_the_result() {
    let (url, _) = server(200, Duration::ZERO);
    let output = drive(&[&url, "--closed", "--duration", "0.1", "--hlog", "/dev/full"]);
    assert!(text(&output.stdout).contains("answers/s over"), "{}", text(&output.stdout));
    let words = text(&output.stderr);
    assert!(output.status.code() == Some(1) && words.contains("cannot write /dev/full: "), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
}

#[test]
fn a_run_that_does_not_begin_leaves_the_log_of_an_earlier_one_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.hlog"), folder.path().join("new.hlog"));
    fs::write(&old, "of yesterday").unwrap();
    for path in [&old, &new] {
        let output = drive(&["http://127.0.0.1:1/", "--closed", "--hlog", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(1));
    }
    assert_eq!(fs::read_to_string(old).unwrap(), "of yesterday");
    assert!(!new.exists());
}

#[test]
fn connections_that_cannot_carry_the_rate_are_named() {
    let (url, _) = server(200, Duration::from_millis(20));
    let shown = |connections| text(&drive(&[&url, "--rate", "100", "--duration", "1", "--connections", connections]).stdout);
    let few = shown("1");
    assert!(few.contains("the connections could not carry the rate: each answer took about "), "{few}");
    assert!(few.contains(" ms, so 1 connection carries at most ") && few.contains("raise --connections"), "{few}");
    assert!(!shown("50").contains("could not carry"));
}

#[test]
fn a_p99_that_is_mostly_a_wait_for_a_connection_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (connection, mut stream) in listener.incoming().flatten().enumerate() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let mut asked = 0;
                while lines.by_ref().any(|line| line.is_empty()) {
                    asked += 1;
                    if connection > 0 && asked == 100 {
                        // The server's one stall: requests that are due meanwhile wait for the only connection.
                        std::thread::sleep(Duration::from_millis(300));
                    }
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    let shown = text(&drive(&[&url, "--rate", "200", "--duration", "2", "--connections", "1"]).stdout);
    assert!(shown.contains("service time ms, from the send: p50 "), "{shown}");
    assert!(shown.contains("some requests waited for their connection") && shown.contains("raise --connections"), "{shown}");
}

#[test]
fn each_status_at_the_first_question_has_its_own_advice() {
    for (status, wanted) in [
        (401, "pass --header 'Authorization: ...'"),
        (403, "pass --header 'Authorization: ...'"),
        (404, "check the path"),
        (429, "the server limits or refuses requests"),
        (503, "the server limits or refuses requests"),
    ] {
        let output = drive(&[&server(status, Duration::ZERO).0, "--closed"]);
        let words = text(&output.stderr);
        assert!(words.contains(wanted) && words.contains(&format!("--expect-status {status}")), "{words}");
    }
}

#[test]
fn a_file_without_an_end_is_not_read_until_the_memory_is_full() {
    let (url, _) = server(200, Duration::ZERO);
    let stallbench = |arguments: &[&str]| {
        // In a gigabyte of addresses, so that a failure of this test does not take the machine with it.
        let limited = ["-c", "ulimit -v 1000000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_stallbench")];
        let output = Command::new("/bin/sh").args(limited).args(arguments).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for arguments in [
        &["drive", &url, "--closed", "--body", "/dev/zero"][..],
        &["bench", "--servers-file", "/dev/full"],
        &["merge", "/dev/zero"],
        &["import", "/dev/zero"],
    ] {
        let (code, words) = stallbench(arguments);
        assert!(matches!(code, Some(1 | 2)) && words.lines().count() == 1, "{arguments:?}: {code:?} {words}");
        assert!(words.contains(arguments.last().unwrap()), "{arguments:?}: {words}");
    }
}

#[test]
fn a_closed_loop_whose_answers_come_too_late_has_no_rate() {
    let (url, _) = server(200, Duration::from_secs(1));
    let output = drive(&[&url, "--closed", "--duration", "0.2"]);
    let words = text(&output.stdout);
    assert!(output.status.code() == Some(3) && words.contains("answered in the window"), "{words}");
}

#[test]
fn bytes_behind_an_answer_are_told_apart_from_requests_that_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            while lines.by_ref().any(|line| line.is_empty()) {
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nstray").is_err() {
                    break;
                }
            }
        }
    });
    let output = drive(&[&url, "--rate", "50", "--duration", "0.5"]);
    let words = text(&output.stdout);
    assert!(words.contains("that nobody had asked for") && !words.contains("requests failed"), "{words}");
    assert_eq!(output.status.code(), Some(3));
}

/// `stallbench` itself.
fn stallbench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallbench")).args(arguments).stdin(Stdio::null()).output().expect("stallbench runs")
}

#[test]
fn a_merged_log_has_the_rate_of_its_run() {
    // This is twice the rate that one connection can carry: many answers come after the window, and the first ones in it belong to requests of the warm-up.
    let (url, _) = server(200, Duration::from_millis(10));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a.hlog").display().to_string();
    let driven = drive(&[&url, "--rate", "200", "--connections", "1", "--duration", "1.5", "--hlog", &log, "--json"]);
    let driven: serde_json::Value = serde_json::from_slice(&driven.stdout).unwrap();
    let merged = text(&stallbench(&["merge", &log]).stdout);
    let wanted = format!("{} answers, {:.0} a second over 1.5 s", driven["answered"], driven["per_s"].as_f64().unwrap());
    assert!(merged.starts_with(&wanted), "{wanted}: {merged}");
}

#[test]
fn a_file_that_is_named_twice_is_not_counted_twice() {
    let (url, _) = server(200, Duration::ZERO);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    drive(&[&url, "--closed", "--duration", "0.1", "--hlog", &path("a.hlog")]);
    let entry = r#"[{"name":"probe-0-110","num_requests":1,"num_failures":0,"response_times":{"1":1}}]"#;
    fs::write(path("k.json"), entry).unwrap();
    for (command, name) in [("merge", "a.hlog"), ("import", "k.json")] {
        assert!(stallbench(&[command, &path(name)]).status.success(), "{command}");
        std::os::unix::fs::symlink(path(name), path("link")).unwrap();
        for again in [path(name), path(&format!("./{name}")), path("link")] {
            let output = stallbench(&[command, &path(name), &again]);
            let words = text(&output.stderr);
            assert!(output.status.code() == Some(2) && words.contains("is named twice"), "{command} {again}: {words}");
        }
        fs::remove_file(path("link")).unwrap();
    }
}

/// A server that sends these bytes to each connection that has asked, and closes it.
fn says(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            if lines.any(|line| line.is_empty()) {
                let _ = stream.write_all(bytes);
            }
        }
    });
    url
}

#[test]
fn a_port_of_another_protocol_is_told_by_its_name() {
    for (bytes, wanted) in [
        (&[0x15, 3, 3, 0, 2, 2, 70][..], "the server speaks TLS: stallbench speaks plain HTTP/1.1 only"),
        (&[0, 0, 0x12, 4, 0, 0, 0, 0, 0, 0], "the server speaks HTTP/2: stallbench speaks plain HTTP/1.1 only"),
        (&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0], "the server speaks HTTP/2: stallbench speaks plain HTTP/1.1 only"),
        (b"", "is this a TLS port? stallbench speaks plain HTTP/1.1 only"),
    ] {
        let words = text(&drive(&[&says(bytes), "--closed"]).stderr);
        assert!(words.contains(wanted) && words.lines().count() == 1, "{words}");
    }
}

#[test]
fn a_redirect_shows_where_it_leads_and_what_helps() {
    for (answer, wanted) in [
        (
            &b"HTTP/1.1 301 x\r\nLocation: https://shop.example/health\r\nContent-Length: 0\r\n\r\n"[..],
            "is answered 301, a redirect to https://shop.example/health: give the server's http:// address behind the TLS proxy",
        ),
        (
            b"HTTP/1.1 302 x\r\nLocation: /de\r\nContent-Length: 0\r\n\r\n",
            "is answered 302, a redirect to /de: name the path that answers itself",
        ),
        (b"HTTP/1.1 304 x\r\n\r\n", "is answered 304: leave out If-None-Match and If-Modified-Since"),
    ] {
        let words = text(&drive(&[&says(answer), "--closed"]).stderr);
        assert!(words.contains(wanted) && words.contains("or say --expect-status 30"), "{words}");
    }
}

#[test]
fn a_pipe_can_be_imported() {
    let entry = r#"[{"name":"probe-0-110","num_requests":1,"num_failures":0,"response_times":{"1":1}}]"#;
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    command.args(["import", "/dev/stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(entry.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("locust"), "{}", text(&output.stderr));
}
