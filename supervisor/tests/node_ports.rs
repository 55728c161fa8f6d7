//! The ports of Node programs, which they name only when they run. Without Node there is nothing to test, and each says so.

mod common;

use common::load::Load;
use common::node::{SERVER, said, start};
use common::{Supervisor, free, free_port, has, program, server, signal, until};
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use rustix::net::{AddressFamily, Shutdown, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

#[test]
fn a_port_that_is_taken_is_told_as_node_tells_it() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let taken = TcpListener::bind("[::]:0").unwrap();
    let file = program(&supervisor, "app.js", &format!("const http = require('node:http');\n{SERVER}"));
    let output = start(&supervisor, &file, taken.local_addr().unwrap().port(), &[]);
    assert!(!output.status.success() && said(&output).contains("EADDRINUSE"), "{}", said(&output));
}

#[test]
fn an_address_that_cannot_be_listened_on_is_told_as_node_tells_it() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    // A program that knows what to do about it, and only about that: the address of another machine (RFC 5737).
    let text = "const server = require('node:http').createServer((_, answer) => answer.end('hello'));
    server.once('error', ({ code, errno, syscall }) => {
      console.log('refused', code, errno, syscall);
      server.listen(process.env.PORT, '127.0.0.1');
    });
    server.listen(process.env.PORT, '192.0.2.1');";
    let file = program(&supervisor, "app.js", text);
    let output = start(&supervisor, &file, free_port(), &[]);
    assert!(output.status.success(), "{}", said(&output));
    let logs = supervisor.ok(&["logs", "app"]);
    assert!(logs.contains("refused EADDRNOTAVAIL -99 listen"), "{logs}");
}

#[test]
fn versions_of_the_preload_before_and_after_this_one_understand_a_refusal() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    // First the message as the keeper sends it, with what either version reads; then one as an earlier keeper sent it.
    let text = "const { createServer } = require('node:net');
    const refused = (listen) => new Promise((done) => listen(createServer().once('error', done)));
    process.on('internalMessage', ({ cmd, code, errno }) => cmd === 'NODE_SUPERVISOR' && console.log('message', code, errno));
    (async () => {
      await refused((server) => server.listen(process.env.PORT, '127.0.0.1'));
      const { code, errno, message } = await refused((server) => {
        server.listen(process.env.PORT, '127.0.0.1');
        setImmediate(() => process.emit('internalMessage', { cmd: 'NODE_SUPERVISOR', id: 2, code: 'EACCES', why: 'not yours' }));
      });
      console.log('error', code, errno, message);
      setInterval(() => {}, 1000);
    })();";
    let file = program(&supervisor, "app.js", text);
    start(&supervisor, &file, taken.local_addr().unwrap().port(), &["--ready-when", "log:error"]);
    let logs = supervisor.ok(&["logs", "app"]);
    assert!(logs.contains("message EADDRINUSE 98"), "{logs}");
    assert!(logs.contains("error EACCES -13 listen EACCES: not yours"), "{logs}");
}

/// Returns the only TCP listener that a process holds.
fn listener_of(pid: i64) -> OwnedFd {
    let process = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap();
    let numbers = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut sockets = numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let is_listener = |socket: &OwnedFd| {
        socket_acceptconn(socket).unwrap_or(false) && socket_domain(socket).is_ok_and(|domain| domain != AddressFamily::UNIX)
    };
    sockets.find(is_listener).unwrap()
}

#[test]
fn the_listener_that_a_program_has_asked_for_listens_again_when_somebody_has_shut_it_down() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "const http = require('node:http');
    http.createServer((_, answer) => answer.end('hello')).listen(Number(process.env.PORT), '127.0.0.1');";
    let file = program(&supervisor, "app.js", text);
    let port = free_port();
    let output = start(&supervisor, &file, port, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let address = format!("127.0.0.1:{port}");
    shutdown(listener_of(supervisor.role("keeper")), Shutdown::Both).unwrap();
    assert!(TcpStream::connect(&address).is_err());
    supervisor.ok(&["restart", "app"]);
    TcpStream::connect(&address).unwrap();
    let remarks = supervisor.listed()["remarks"].to_string();
    assert!(remarks.contains(&format!("a process of app had shut {address} down: it listens again")), "{remarks}");
    assert_eq!(supervisor.list()[0]["listeners"][0], address);
}

#[test]
fn a_program_that_takes_the_listener_itself_is_ready_once_it_listens() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "const http = require('node:http');
    http.createServer((_, answer) => answer.end('hello')).listen({ fd: Number(process.env.LISTEN_FDS) + 2 });";
    let file = program(&supervisor, "app.js", text);
    let address = free();
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen", &address, "--listen-timeout", "10s"];
    supervisor.ok(&words);
    let load = Load::start(&address);
    load.answers_more();
    supervisor.ok(&["reload", "app"]);
    load.answers_more();
    let (failures, _) = load.stop();
    assert_eq!(failures, [""; 0]);
}

#[test]
fn a_program_that_takes_longer_than_its_time_limit_to_listen_comes_back() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let (gate, port) = (supervisor.home.path().join("gate"), free_port());
    let text = format!(
        "const fs = require('node:fs'), http = require('node:http');
        const server = http.createServer((_, answer) => answer.end('hello'));
        const timer = setInterval(() => fs.existsSync('{}') && (clearInterval(timer), server.listen({port}, '127.0.0.1')), 10);",
        gate.display()
    );
    let file = program(&supervisor, "app.js", &text);
    let answers = || {
        fs::write(&gate, "").unwrap();
        let load = Load::start(&format!("127.0.0.1:{port}"));
        load.answers_more();
        load.stop();
        fs::remove_file(&gate).unwrap();
    };
    supervisor.ok(&["start", file.to_str().unwrap(), "--listen-timeout", "300ms", "--min-uptime", "100ms"]);
    assert_eq!(supervisor.list()[0]["mode"], "fork");
    fs::write(&gate, "").unwrap();
    until("it listens", || supervisor.list()[0]["mode"] == "cluster");
    answers();
    supervisor.ok(&["restart", "app"]);
    answers();
    let before = supervisor.pids();
    signal("KILL", before[0]);
    until("another one", || supervisor.list()[0]["status"] == "online" && supervisor.pids() != before);
    answers();
    // A reload leaves the old one alone until the new one listens.
    let before = supervisor.pids();
    let said = supervisor.fails(&["reload", "app"]);
    assert!(said.contains("did not listen within 300ms; if it takes longer, raise --listen-timeout"), "{said}");
    assert!(said.contains("but its instances keep running"), "{said}");
    assert_eq!(supervisor.pids(), before);
}

#[test]
fn a_port_that_the_system_chooses_is_each_process_its_own() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    // It looks for a free port as many do, and listens there only then.
    let text = "const net = require('node:net');
    const [one, two] = [net.createServer(), net.createServer()];
    one.listen(0, () => two.listen(0, () => {
      const [port, other] = [one, two].map((server) => server.address().port);
      two.close();
      one.close(() => net.createServer((client) => client.end(String(port !== other))).listen(port, () => console.log(`at ${port}`)));
    }));";
    for name in ["one", "two"] {
        let file = program(&supervisor, &format!("{name}.js"), text);
        let output = start(&supervisor, &file, 0, &[]);
        assert!(output.status.success(), "{}", said(&output));
        let port = || {
            let logs = supervisor.ok(&["logs", name]);
            logs.lines().find_map(|line| line.split(" at ").nth(1)?.parse::<u16>().ok())
        };
        until("it listens", || port().is_some());
        let mut said = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", port().unwrap())).unwrap();
        std::io::Read::read_to_string(&mut stream, &mut said).unwrap();
        assert_eq!(said, "true", "each has a port of its own");
    }
    // Nor does an app that declares such a port meet them there.
    let words = ["start", "--listen", "127.0.0.1:0", "--listen-timeout", "10s", "--name", "api"];
    supervisor.ok(&[&words[..], &[server().to_str().unwrap(), "--", "--model", "current-thread"]].concat());
}

#[test]
fn a_program_that_moves_to_another_port_leaves_the_old_one_and_is_checked_at_the_new_one() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let file = program(&supervisor, "app.js", &format!("const http = require('node:http');\n{SERVER}"));
    let ports = [(); 3].map(|()| free_port());
    let checks = ["--health-http", "/", "--health-interval", "100ms", "--health-timeout", "1s", "--health-retries", "1"];
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen-timeout", "2s"];
    let with = |port: u16, words: &[&str]| {
        let output = supervisor.command(words).env("PORT", port.to_string()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
    };
    with(ports[0], &[&words[..], &checks].concat());
    let connects = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
    let load = Load::start(&format!("127.0.0.1:{}", ports[0]));
    load.answers_more();
    // The same port under load: each process asks for it anew, and nobody notices.
    with(ports[0], &["reload", "app", "-a"]);
    load.answers_more();
    assert_eq!(load.stop().0, [""; 0]);
    for (verb, old, new) in [("reload", ports[0], ports[1]), ("restart", ports[1], ports[2])] {
        with(new, &[verb, "app", "-a"]);
        assert!(connects(new), "{verb}");
        let pids = supervisor.pids();
        signal("KILL", supervisor.role("daemon"));
        until("nobody listens on the old port", || !connects(old));
        let load = Load::start(&format!("127.0.0.1:{new}"));
        load.answers_more();
        assert_eq!(load.stop().0, [""; 0]);
        assert_eq!(supervisor.list()[0]["listeners"], serde_json::json!([format!("[::]:{new}")]), "{verb}");
        assert_eq!(supervisor.pids(), pids, "{}", supervisor.ok(&["events"]));
        assert_eq!(supervisor.listed()["remarks"].as_array().unwrap().len(), 1, "only the daemon's death");
    }
}

#[test]
fn a_program_that_a_file_changes_keeps_the_listener_that_it_has_asked_for() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let port = free_port();
    program(&supervisor, "app.js", &format!("const http = require('node:http');\n{SERVER}"));
    let apply = |number: u32| {
        let text = format!(
            "[[app]]\nstart = \"app.js\"\ninstances = 2\nlisten-timeout = \"10s\"\nenv = {{ PORT = {port}, NUMBER = {number} }}\n"
        );
        supervisor.ok(&["apply", program(&supervisor, "supervisor.toml", &text).to_str().unwrap()]);
    };
    apply(1);
    let load = Load::start(&format!("127.0.0.1:{port}"));
    for number in 2..4 {
        load.answers_more();
        let before = supervisor.pids();
        apply(number);
        assert!(supervisor.pids().iter().all(|pid| !before.contains(pid)));
        assert_eq!(supervisor.list()[0]["mode"], "cluster");
    }
    load.answers_more();
    let (failures, _) = load.stop();
    assert_eq!(failures, [""; 0]);
}

#[test]
fn a_program_gets_a_bounded_number_of_listeners_and_is_refused_more() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "const http = require('node:http');
    for (let host = 1; host <= 80; host++) {
      const server = http.createServer();
      server.on('error', ({ code }) => console.log(code)).listen(Number(process.env.PORT), `127.0.0.${host}`, () => console.log('listens'));
    }";
    let file = program(&supervisor, "app.js", text);
    assert!(start(&supervisor, &file, free_port(), &[]).status.success());
    let lines = |word: &str| supervisor.ok(&["logs", "app", "--lines", "100"]).matches(word).count();
    until("all have an answer", || lines("listens") + lines("EMFILE") == 80);
    assert_eq!(lines("listens"), 64);
    // A new daemon learns of all of them from the keeper, and replaces no process.
    let pids = supervisor.pids();
    signal("KILL", supervisor.role("daemon"));
    until("another daemon answers", || supervisor.list().iter().all(|one| one["status"] == "online"));
    assert_eq!(supervisor.pids(), pids);
}

#[test]
fn a_program_that_tries_a_port_of_another_again_and_again_is_not_waited_for_without_end() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let taken = TcpListener::bind("[::]:0").unwrap();
    let text = "const server = require('node:http').createServer();
    const listen = () => server.listen(Number(process.env.PORT));
    server.on('error', () => setTimeout(() => { server.close(); listen(); }, 50));
    listen();";
    let file = program(&supervisor, "app.js", text);
    let words = ["start", file.to_str().unwrap(), "--listen-timeout", "500ms", "--max-restarts", "1"];
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = supervisor.command(&words).env("PORT", port).spawn().unwrap();
    until("the command has ended", || command.try_wait().unwrap().is_some());
}
