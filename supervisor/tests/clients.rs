//! Clients of the control socket that are too many, say nonsense, or leave early.

mod common;

use common::{Supervisor, until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

/// Sends raw bytes to the daemon, and reads its answer.
fn raw(supervisor: &Supervisor, bytes: &[u8], is_half_closed: bool) -> String {
    let mut stream = UnixStream::connect(supervisor.path().join("control.sock")).unwrap();
    stream.write_all(bytes).unwrap();
    if is_half_closed {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn a_client_that_has_nothing_more_to_say_still_gets_its_answer() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    for request in [&b"\"list\"\n"[..], b"\"list\""] {
        assert!(raw(&supervisor, request, true).starts_with("{\"table\""));
    }
    assert!(raw(&supervisor, b"{\"stop\":\"app\"}\n", true).contains("app was stopped"));
}

#[test]
fn too_many_clients_are_told_so() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let control = supervisor.path().join("control.sock");
    let idle: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&control).unwrap()).collect();
    for command in ["list", "ping"] {
        assert!(supervisor.fails(&[command]).contains("64 other commands wait for the supervisor"), "{command}");
    }
    drop(idle);
    until("there is room again", || supervisor.run(&["list"]).status.success());
}

/// The inode of the Unix socket that listens at a path.
fn listener(path: &Path) -> u64 {
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    let fields = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The flag of a socket that accepts; each that it has accepted has the same path.
    let mut own = fields.filter(|fields| fields.last() == path.to_str().as_ref() && fields[3] == "00010000");
    own.next().unwrap()[6].parse().unwrap()
}

/// Returns whether a process waits for events of a socket.
fn watches(pid: i64, inode: u64) -> bool {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let word = format!("ino:{inode:x}");
    let has = |info: String| info.lines().any(|line| line.starts_with("tfd:") && line.split(' ').any(|one| one == word));
    infos.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(has)
}

#[test]
fn a_daemon_without_descriptors_serves_again_once_it_has_some() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let daemon = supervisor.role("daemon");
    let pid = Pid::from_raw(daemon as i32);
    let none = Rlimit { current: Some(1), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(pid, Resource::Nofile, none).unwrap();
    let control = listener(&supervisor.path().join("control.sock"));
    assert!(watches(daemon, control));
    let mut list = supervisor.command(&["list", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("it has seen the client, and leaves it in the queue", || !watches(daemon, control));
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert!(list.wait().unwrap().success());
    assert_eq!(supervisor.role("daemon"), daemon);
}

#[test]
fn wild_requests_are_refused_and_harm_nobody() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let daemon = supervisor.role("daemon");
    let text = fs::read(supervisor.path().join("specs/app.json")).unwrap();
    let spec: Value = serde_json::from_slice(&text).unwrap();
    let wild = |change: &dyn Fn(&mut Value), instances: u64| {
        let mut spec = spec.clone();
        spec["name"] = "wild".into();
        change(&mut spec);
        json!({ "start": { "spec": spec, "instances": instances } })
    };
    let requests = [
        (wild(&|_| {}, u64::from(u32::MAX)), "only 1 to 1000"),
        (wild(&|_| {}, 0), "only 1 to 1000"),
        (wild(&|spec| spec["options"]["kill_timeout_ms"] = u64::MAX.into(), 1), "--kill-timeout of wild"),
        (wild(&|spec| spec["options"]["log_max_size"] = 0.into(), 1), "use at least 4096"),
        (wild(&|spec| spec["command"] = json!([]), 1), "absolute path of a program"),
        (wild(&|spec| spec["name"] = "../../x".into(), 1), "is not a valid name"),
        (wild(&|spec| spec["listeners"] = json!(["nowhere"]), 1), "not an address"),
        (wild(&|spec| spec["listeners"] = json!([format!("127.0.0.1:{}80", "0".repeat(300_000))]), 1), "not an address"),
        (wild(&|spec| spec["options"]["log"] = format!("/tmp/{}", "a".repeat(300_000)).into(), 1), "longer than 4095 bytes"),
        (wild(&|spec| spec["options"]["ready_when"] = json!({ "log": "a".repeat(300_000) }), 1), "longer than 4096 bytes"),
        (json!({ "scale": ["app", { "by": i32::MIN }] }), "only 1 to 1000"),
        (json!({ "scale": ["app", { "to": u32::MAX }] }), "only 1 to 1000"),
        (json!({ "stop": "4294967295" }), "there is no app or id"),
        (json!({ "explode": 1 }), "cannot read the request"),
    ];
    for (request, expected) in requests {
        let answer = raw(&supervisor, format!("{request}\n").as_bytes(), false);
        assert!(answer.starts_with("{\"error\"") && answer.contains(expected), "{request}: {answer}");
    }
    assert_eq!((supervisor.role("daemon"), supervisor.list().len()), (daemon, 1));
    // None of its addresses is too long, but all of them together are.
    let many = |spec: &mut Value| {
        spec["listeners"] = vec![format!("127.0.0.1:{:0>100}", 0); 1200].into();
        spec["options"]["max_restarts"] = 0.into();
    };
    let answer = raw(&supervisor, format!("{}\n", wild(&many, 1)).as_bytes(), false);
    assert!(answer.contains("too long for a message to the keeper"), "{answer}");
    assert_eq!(supervisor.role("daemon"), daemon);
}

#[test]
fn an_app_whose_settings_are_too_long_is_refused_in_one_line() {
    let supervisor = Supervisor::new();
    let log = format!("/tmp/{}", "a".repeat(110_000));
    let file = supervisor.home.path().join("supervisor.toml");
    let text = format!("[[app]]\nstart = \"sleep 1000\"\nready-when = \"log:{}\"\n", "a".repeat(300_000));
    fs::write(&file, text).unwrap();
    for (words, why) in
        [(&["start", "sleep 1000", "-l", &log][..], "4095 bytes"), (&["start", file.to_str().unwrap()], "4096 bytes")]
    {
        let said = supervisor.fails(words);
        assert!(said.contains(why) && said.lines().count() == 1 && said.len() < 200, "{said}");
    }
}

#[test]
fn a_daemon_of_another_version_can_be_replaced_even_if_its_table_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(home.path().join("control.sock")).unwrap();
    let daemon = thread::spawn(move || {
        let mut id = 2;
        for stream in listener.incoming().map(Result::unwrap) {
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            let is_update = request.contains("update");
            let table = json!({ "table": { "supervisor": { "keeper": 1, "daemon": id }, "rows": ["of another form"] } });
            let answer = if is_update { json!({ "done": "it was replaced" }) } else { table };
            // A client that only looks whether anybody listens is gone by now.
            let _ = writeln!(&stream, "{answer}");
            if id == 3 && !request.is_empty() {
                return;
            }
            id += i32::from(is_update);
        }
    });
    let run = |command: &str| {
        Command::new(env!("CARGO_BIN_EXE_supervisor")).arg(command).env("SUPERVISOR_HOME", home.path()).output().unwrap()
    };
    let list = run("list");
    assert!(String::from_utf8_lossy(&list.stderr).contains("perhaps of another version"), "{list:?}");
    let update = run("update");
    assert_eq!(String::from_utf8_lossy(&update.stdout), "it was replaced\n", "{update:?}");
    daemon.join().unwrap();
}
