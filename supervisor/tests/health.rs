//! Processes that do not say when they are ready, and processes that run and do not work.

mod common;

use common::load::{Load, ask_for, connect};
use common::{Supervisor, free, has, is_gone, program, server, signal, until};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::process::Stdio;

/// A server as asyncio has it. It says nothing, and listens when it is told to.
const PYTHON: &str = r#"
import asyncio, os, signal, socket, sys, time

print("begun", flush=True)
# Until the test lets it go on.
while "WAIT_FOR" in os.environ and not os.path.exists(os.environ["WAIT_FOR"]):
    time.sleep(0.005)

is_broken = False

async def serve(reader, writer):
    global is_broken
    head = await reader.readuntil(b"\r\n\r\n")
    is_broken = is_broken or b"/break" in head
    status = "500 Internal Server Error" if is_broken and b"/ok" in head else "200 OK"
    body = str(os.getpid()).encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()

async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    given = socket.socket(fileno=3) if os.environ.get("LISTEN_FDS") else socket.create_server(("127.0.0.1", int(sys.argv[1])))
    server = await asyncio.start_server(serve, sock=given)
    print("now it listens", flush=True)
    await stop
    # It accepts no more. A server that is closed would drop what it has accepted and not begun to serve.
    asyncio.get_running_loop().remove_reader(given.fileno())
    for _ in range(10):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)

asyncio.run(main())
"#;

/// Sends a request on a connection of its own; returns the whole answer.
fn answer(address: &str, path: &str) -> String {
    use std::io::Write;
    let mut stream = connect(address).unwrap().into_inner();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The body of an answer, which is the id of the process that has given it.
fn answered_by(address: &str, path: &str) -> i64 {
    answer(address, path).split("\r\n\r\n").nth(1).and_then(|pid| pid.parse().ok()).unwrap()
}

/// Starts a cluster of two of the server; returns its address.
fn start_cluster(supervisor: &Supervisor, options: &[&str]) -> String {
    let (file, address) = (program(supervisor, "app.py", PYTHON), free());
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen", &address, "--listen-timeout", "20s"];
    supervisor.ok(&[&words[..], options].concat());
    address
}

fn is_online(one: &Value) -> bool {
    one["status"] == "online"
}

/// A server that waits for its clients in poll(2) or select(2), as the one of Python's library does.
const POLLING: &str = r#"
import selectors, socket, sys
given = socket.socket(fileno=3)
selector = getattr(selectors, sys.argv[1])()
selector.register(given, selectors.EVENT_READ)
while True:
    selector.select()
    client, _ = given.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    client.close()
"#;

#[test]
fn a_server_that_waits_in_poll_or_select_counts_as_listening() {
    if !has("python3") {
        return;
    }
    for selector in ["PollSelector", "SelectSelector"] {
        let supervisor = Supervisor::new();
        let (file, address) = (program(&supervisor, "server.py", POLLING), free());
        let words =
            ["start", file.to_str().unwrap(), "--listen", &address, "--ready-when", "listening", "--listen-timeout", "20s"];
        supervisor.ok(&[&words[..], &["--", selector]].concat());
        assert!(answer(&address, "/").ends_with("hi"));
    }
}

#[test]
fn a_process_that_says_nothing_is_ready_when_it_listens_answers_or_writes_a_text() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    let file = program(&supervisor, "app.py", PYTHON);
    let address = free();
    let port = address.rsplit(':').next().unwrap();
    let gate = supervisor.home.path().join("gate");
    for when in ["listening", &format!("http://{address}/"), "log:now it listens"] {
        // Without the check, it would be online after --min-uptime.
        let words = ["start", file.to_str().unwrap(), "--listen-timeout", "20s", "--min-uptime", "1ms", "--ready-when", when];
        let mut start = supervisor.command(&[&words[..], &["--", port]].concat());
        let mut start = start.env("WAIT_FOR", &gate).stdout(Stdio::null()).spawn().unwrap();
        until("it has begun", || String::from_utf8_lossy(&supervisor.run(&["logs", "app"]).stdout).contains("begun"));
        assert_eq!((supervisor.list()[0]["status"].as_str(), start.try_wait().unwrap()), (Some("launching"), None), "{when}");
        fs::write(&gate, "").unwrap();
        assert!(start.wait().unwrap().success(), "{when}");
        // It is answered at once, as soon as the command has ended.
        assert!(answer(&address, "/").starts_with("HTTP/1.1 200"), "{when}");
        assert!(supervisor.list().iter().all(is_online), "{when}");
        supervisor.ok(&["delete", "app"]);
        fs::remove_file(&gate).unwrap();
        for stream in ["out", "error"] {
            let _ = fs::remove_file(supervisor.path().join(format!("logs/app-0-{stream}.log")));
        }
    }
}

#[test]
fn a_text_that_is_written_in_parts_is_found() {
    let supervisor = Supervisor::new();
    let gate = supervisor.home.path().join("gate");
    let wait = format!("while ! test -e {}; do sleep 0.01; done", gate.display());
    let app = supervisor.script("app", &format!("printf 'Server '\n{wait}\necho ready\nexec sleep 1000"));
    let words = ["start", &app, "--ready-when", "log:Server ready", "--listen-timeout", "20s"];
    let mut start = supervisor.command(&words).stdout(Stdio::null()).spawn().unwrap();
    until("the first part is in its log", || {
        String::from_utf8_lossy(&supervisor.run(&["logs", "app"]).stdout).contains("Server")
    });
    fs::write(&gate, "").unwrap();
    assert!(start.wait().unwrap().success());
}

#[test]
fn what_a_check_has_found_is_known_to_the_next_daemon() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    let (file, address) = (program(&supervisor, "app.py", PYTHON), free());
    let (port, when) = (address.rsplit(':').next().unwrap(), format!("http://{address}/ok"));
    supervisor.ok(&["start", file.to_str().unwrap(), "--listen-timeout", "20s", "--ready-when", &when, "--", port]);
    let (pid, daemon) = (supervisor.pids()[0], supervisor.role("daemon"));
    // As if one request held it: it answers no check.
    signal("STOP", pid);
    signal("KILL", daemon);
    until("another daemon", || supervisor.role("daemon") != daemon);
    let list = supervisor.list();
    signal("CONT", pid);
    assert_eq!((list[0]["status"].as_str(), list[0]["pid"].as_i64()), (Some("online"), Some(pid)));
}

#[test]
fn a_process_that_is_never_ready_fails_with_what_it_did_not_do() {
    let supervisor = Supervisor::new();
    let free = free();
    for (when, what) in [
        ("listening", "did not listen within 1s: it has no listening socket".to_owned()),
        ("log:up", "did not write 'up' within 1s".to_owned()),
        (&format!("http://{free}/up"), format!("did not answer GET http://{free}/up within 1s: Connection refused")),
    ] {
        let words =
            ["start", "sleep 1000", "--name", "app", "--ready-when", when, "--listen-timeout", "1s", "--max-restarts", "0"];
        let said = supervisor.fails(&words);
        assert!(said.contains(&what), "{said}");
        supervisor.ok(&["delete", "app"]);
    }
    let said = supervisor.fails(&["start", "sleep 1000", "--health-http", "/ok"]);
    assert!(said.contains("has no TCP listener: add --listen, or write the whole address"), "{said}");
}

#[test]
fn in_fork_mode_the_answer_of_one_process_counts_for_no_other() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = format!("import os, time\nif os.environ['NODE_APP_INSTANCE'] == '1':\n    time.sleep(1000)\n{PYTHON}");
    let (file, address) = (program(&supervisor, "app.py", &text), free());
    let when = format!("http://{address}/ok");
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen-timeout", "3s", "--ready-when", &when];
    let said = supervisor.fails(&[&words[..], &["--", address.rsplit(':').next().unwrap()]].concat());
    assert!(said.contains(&format!("app (1) did not answer GET {when} within 3s: it has no listening socket")), "{said}");
    assert_eq!(supervisor.list()[0]["status"], "online");
}

#[test]
fn a_cluster_that_says_nothing_is_replaced_without_dropping_a_request() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    for when in ["listening", "http:/", "log:now it listens"] {
        let address = start_cluster(&supervisor, &["--ready-when", when]);
        let load = Load::start(&address);
        load.answers_more();
        let before = supervisor.pids();
        supervisor.ok(&["reload", "app"]);
        assert!(supervisor.pids().iter().all(|pid| !before.contains(pid)), "{when}");
        load.answers_more();
        let (failures, _) = load.stop();
        assert_eq!(failures, [""; 0], "{when}");
        supervisor.ok(&["delete", "app"]);
    }
}

#[test]
fn the_process_of_a_cluster_that_answers_wrongly_is_replaced_and_the_other_is_not() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    let checks = ["--health-http", "/ok", "--health-interval", "100ms", "--health-retries", "2"];
    let address = start_cluster(&supervisor, &[&["--ready-when", "listening"], &checks[..]].concat());
    let before = supervisor.pids();
    let broken = answered_by(&address, "/break");
    until("the broken one is gone", || is_gone(broken));
    until("two are online", || supervisor.list().iter().filter(|one| is_online(one)).count() == 2);
    let now = supervisor.pids();
    let kept: Vec<&i64> = before.iter().filter(|pid| now.contains(pid)).collect();
    assert_eq!((kept.len(), kept[0] == &broken), (1, false), "{before:?}, broken {broken}, then {now:?}");
    let remarks = supervisor.listed()["remarks"].to_string();
    assert!(remarks.contains("failed 2 checks in a row (status 500) and is being replaced"), "{remarks}");
    assert!(supervisor.ok(&["show", "0"]).contains("GET /ok each 100ms: 0 of 2 failed"));
}

#[test]
fn a_process_for_which_a_command_fails_is_replaced() {
    let supervisor = Supervisor::new();
    let bad = supervisor.home.path().join("bad-");
    let command = format!("test ! -e {}$SUPERVISOR_PID || {{ echo it is bad >&2; exit 3; }}", bad.display());
    let checks = ["--health-exec", &command, "--health-interval", "100ms", "--health-retries", "1"];
    supervisor.ok(&[&["start", "sleep 1000", "--name", "app", "-i", "2", "--min-uptime", "10ms"][..], &checks].concat());
    let before = supervisor.pids();
    fs::write(format!("{}{}", bad.display(), before[0]), "").unwrap();
    until("it is replaced", || {
        let list = supervisor.list();
        list.iter().all(is_online) && !supervisor.pids().contains(&before[0])
    });
    assert!(supervisor.pids().contains(&before[1]));
    let remarks = supervisor.listed()["remarks"].to_string();
    assert!(remarks.contains("(exit status: 3: it is bad) and is being replaced"), "{remarks}");
}

/// The processes that checks have left behind.
fn left_behind(supervisor: &Supervisor) -> Vec<i64> {
    let home = supervisor.path().to_string_lossy().into_owned();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid: &i64| {
        let read =
            |name: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned();
        let environment = read("environ");
        read("cmdline") == "sleep\x001000\0" && environment.contains("SUPERVISOR_PID=") && environment.contains(&home)
    })
    .collect()
}

#[test]
fn a_command_that_writes_much_or_leaves_a_process_behind_is_judged_by_its_exit() {
    let supervisor = Supervisor::new();
    let bad = supervisor.home.path().join("bad");
    let command = format!("head -c 300000 /dev/zero >&2; setsid sleep 1000 & test ! -e {}", bad.display());
    let checks = ["--health-exec", &command, "--health-interval", "100ms", "--health-retries", "1", "--health-timeout", "1h"];
    supervisor.ok(&[&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"][..], &checks].concat());
    let before = supervisor.pids();
    // A check leaves its process behind, and the next one begins once it has ended.
    until("a check has passed", || left_behind(&supervisor).len() > 1);
    assert_eq!(supervisor.pids(), before);
    fs::write(&bad, "").unwrap();
    until("it is replaced", || supervisor.list().iter().all(is_online) && supervisor.pids() != before);
    supervisor.ok(&["delete", "app"]);
    for pid in left_behind(&supervisor) {
        signal("KILL", pid);
    }
}

#[test]
fn a_command_that_writes_without_a_pause_has_its_time_limit() {
    let supervisor = Supervisor::new();
    let checks = ["--health-exec", "yes >&2", "--health-interval", "100ms", "--health-retries", "1", "--health-timeout", "200ms"];
    supervisor.ok(&[&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"][..], &checks].concat());
    let before = supervisor.pids();
    until("it is replaced", || supervisor.list().iter().all(is_online) && supervisor.pids() != before);
}

/// Holds an event loop of a cluster of two for so long that it is replaced; checks that its substitute comes first, and that its client is answered.
fn hold(supervisor: &Supervisor, address: &str, path: &str) {
    until("they send signs of life", || supervisor.list().iter().all(|one| one["sends_life"] == true));
    let before = supervisor.pids();
    let mut stream = connect(address).unwrap();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| ask_for(path, &mut stream));
        until("another one is online beside it", || {
            let now = supervisor.pids();
            let old = before.iter().filter(|pid| !now.contains(pid)).collect::<Vec<_>>();
            // The one that is held is not in the list any more, and still there.
            old.len() == 1 && !is_gone(*old[0])
        });
        client.join().unwrap().expect("the client is answered");
    });
    until("it has ended", || before.iter().filter(|pid| is_gone(**pid)).count() == 1);
    let remarks = supervisor.listed()["remarks"].to_string();
    assert!(remarks.contains("gave no sign of life for"), "{remarks}");
    let events = supervisor.ok(&["events"]);
    assert!(events.contains("unfit"), "{events}");
}

#[test]
fn a_server_whose_event_loop_is_held_gets_a_substitute_first() {
    let supervisor = Supervisor::new();
    let address = free();
    let words = ["--listen", &address, "--name", "api", "-i", "2", "--listen-timeout", "10s", "--health-stall", "400ms"];
    supervisor.ok(&[&["start", server().to_str().unwrap()][..], &words, &["--", "--model", "current-thread"]].concat());
    hold(&supervisor, &address, "/timer?ms=4000");
}

#[test]
fn a_node_program_whose_event_loop_is_held_gets_a_substitute_first() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "require('node:http').createServer((request, answer) => {
      const end = Date.now() + (request.url === '/spin' ? 4000 : 0);
      while (Date.now() < end);
      answer.end('hello');
    }).listen(Number(process.env.PORT), '127.0.0.1');";
    let file = program(&supervisor, "app.js", text);
    let address = free();
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen-timeout", "10s", "--health-stall", "400ms"];
    let mut command = supervisor.command(&words);
    assert!(command.env("PORT", address.rsplit(':').next().unwrap()).status().unwrap().success());
    hold(&supervisor, &address, "/spin");
}
