//! The listeners of Node programs: they close them again, and want them of several kinds. Without Node there is nothing to test, and each says so.

mod common;

use common::load::{ask, connect};
use common::node::{said, start};
use common::{Supervisor, can_run, free_port, has, program, until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

#[test]
fn a_listener_that_a_running_program_has_closed_refuses_clients_until_it_starts_again() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "const server = require('node:http').createServer((_, answer) => {
      server.close();
      answer.setHeader('Connection', 'close').end('bye');
    }).listen(Number(process.env.PORT), '127.0.0.1');
    setInterval(() => {}, 1000);";
    let port = free_port();
    let file = program(&supervisor, "app.js", text);
    let words = ["start", file.to_str().unwrap()];
    assert!(supervisor.command(&words).env("PORT", port.to_string()).status().unwrap().success());
    let pids = supervisor.pids();
    let address = format!("127.0.0.1:{port}");
    let listens = || TcpStream::connect(&address).is_ok();
    until("it listens", listens);
    ask(&mut connect(&address).unwrap()).unwrap();
    until("clients are refused", || !listens());
    assert_eq!((supervisor.pids(), &supervisor.list()[0]["status"]), (pids, &"online".into()));
    supervisor.ok(&["restart", "app"]);
    until("it listens again", listens);
    ask(&mut connect(&address).unwrap()).unwrap();
}

#[test]
fn a_child_that_has_been_given_a_server_answers_after_its_parent_has_closed_it() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    // It has another listener, which nobody is given.
    let text = "const { fork } = require('node:child_process'), http = require('node:http'), net = require('node:net');
    if (process.argv[2] === 'child') {
      process.on('message', (_, server) => {
        http.createServer((_, answer) => answer.setHeader('Connection', 'close').end('hello')).listen(server);
        process.send('has it');
      });
    } else {
      const other = net.createServer().listen(Number(process.env.PORT), '127.0.0.2');
      const server = net.createServer().listen(Number(process.env.PORT), '127.0.0.1', () => {
        const child = fork(__filename, ['child'], { env: { PATH: process.env.PATH } });
        child.send('server', server);
        server.close();
        child.once('message', () => other.close());
      });
    }";
    let port = free_port();
    let output = start(&supervisor, &program(&supervisor, "app.js", text), port, &[]);
    assert!(output.status.success(), "{}", said(&output));
    until("the other one is closed", || TcpStream::connect(("127.0.0.2", port)).is_err());
    ask(&mut connect(&format!("127.0.0.1:{port}")).unwrap()).unwrap();
    supervisor.ok(&["reload", "app"]);
    ask(&mut connect(&format!("127.0.0.1:{port}")).unwrap()).unwrap();
}

#[test]
fn a_program_that_looks_for_a_free_address_finds_those_free_that_it_has_closed() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    // More of them than a process may have, and with a server that listens again and again.
    let text = "const server = require('node:http').createServer((_, answer) => answer.end('hello'));
    const tries = (host) => new Promise((done) => {
      server.once('error', ({ code }) => console.log(`${host}: ${code}`));
      server.listen(Number(process.env.PORT), host, () => server.close(done));
    });
    (async () => {
      for (const host of [undefined, '0.0.0.0', '127.0.0.1', undefined]) await tries(host);
      for (let host = 1; host <= 80; host++) await tries(`127.0.0.${host}`);
      server.listen(Number(process.env.PORT), () => process.send('ready'));
    })();";
    let port = free_port();
    let file = program(&supervisor, "app.js", text);
    let output = start(&supervisor, &file, port, &["--wait-ready"]);
    assert!(output.status.success(), "{}", supervisor.ok(&["logs", "app"]));
    ask(&mut connect(&format!("127.0.0.1:{port}")).unwrap()).unwrap();
    until("it reports its request", || supervisor.list()[0]["says"].is_string());
    assert!(supervisor.list()[0]["says"].as_str().unwrap().starts_with("1 requests,"), "{:?}", supervisor.list());
    assert_eq!(supervisor.list()[0]["listeners"], serde_json::json!([format!("[::]:{port}")]));
}

#[test]
fn a_server_that_is_closed_before_it_has_its_listener_stays_closed_and_can_listen_again() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "const http = require('node:http'), [port, other, third] = process.env.PORTS.split(' ').map(Number);
    const server = http.createServer((_, answer) => answer.end('hello')).listen(port);
    server.close((error) => {
      console.log('closed', error, server.listening);
      server.listen(other, () => console.log('listens at', server.address().port === other));
    });
    const aborted = new AbortController();
    const second = http.createServer().listen({ port: third, host: '127.0.0.1', signal: aborted.signal });
    second.on('listening', () => aborted.abort()).on('close', () => console.log('aborted'));";
    let (port, other, third) = (free_port(), free_port(), free_port());
    let file = program(&supervisor, "app.js", text);
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen-timeout", "10s"];
    let output = supervisor.command(&words).env("PORTS", format!("{port} {other} {third}")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let logs = || supervisor.ok(&["logs", "app"]);
    let has_all =
        |logs: &str| ["closed undefined false", "listens at true", "aborted"].into_iter().all(|text| logs.contains(text));
    until("it has said all", || has_all(&logs()));
    ask(&mut connect(&format!("127.0.0.1:{other}")).unwrap()).unwrap();
    until("the others are closed", || [port, third].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()));
    assert!(supervisor.list().iter().all(|one| one["restarts"] == 0), "{}", logs());
}

#[test]
fn a_program_can_catch_what_node_throws_and_reads_the_address_in_an_error() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = "const http = require('node:http');
    const server = http.createServer((_, answer) => answer.end('hello'));
    server.once('error', ({ address, port, code }) => {
      console.log(code, address, port === Number(process.env.PORT));
      server.listen(Number(process.env.OTHER), '127.0.0.1', () => console.log('listens'));
      try { server.listen(0); } catch (error) { console.log('caught', error.code); }
    });
    server.listen(Number(process.env.PORT), '127.0.0.1');";
    let port = taken.local_addr().unwrap().port().to_string();
    let file = program(&supervisor, "app.js", text);
    let words = ["start", file.to_str().unwrap(), "--listen-timeout", "10s"];
    let output = supervisor.command(&words).env("PORT", port).env("OTHER", free_port().to_string()).output().unwrap();
    let logs = supervisor.ok(&["logs", "app"]);
    assert!(output.status.success(), "{}{logs}", said(&output));
    let lines = ["EADDRINUSE 127.0.0.1 true", "caught ERR_SERVER_ALREADY_LISTEN", "listens"];
    assert!(lines.into_iter().all(|line| logs.contains(line)), "{logs}");
}

#[test]
fn a_program_that_has_closed_its_channel_listens_itself() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "process.disconnect();
    require('node:http').createServer((_, answer) => answer.end('hello')).listen(Number(process.env.PORT), '127.0.0.1');";
    let port = free_port();
    let output = start(&supervisor, &program(&supervisor, "app.js", text), port, &[]);
    assert!(output.status.success(), "{}", said(&output));
    ask(&mut connect(&format!("127.0.0.1:{port}")).unwrap()).unwrap();
}

#[test]
fn a_program_that_listens_for_each_version_of_ip_apart_does_so() {
    if !has("node") || !can_run(TcpListener::bind("[::1]:0").is_ok(), "there is no IPv6") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "const http = require('node:http');
    for (const host of ['::', '0.0.0.0']) {
      http.createServer((_, answer) => answer.end(host)).listen({ host, ipv6Only: host === '::', port: Number(process.env.PORT) });
    }";
    let port = free_port();
    let file = program(&supervisor, "app.js", text);
    let output = start(&supervisor, &file, port, &["-i", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    for _ in 0..2 {
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            ask(&mut connect(&address).unwrap()).unwrap();
        }
        supervisor.ok(&["reload", "app"]);
    }
}

#[test]
fn a_program_takes_the_unix_socket_that_the_supervisor_has() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let socket = supervisor.home.path().join("app.sock");
    let text = "const server = require('node:http').createServer((_, answer) => answer.end('hello'));
    server.listen(process.env.SOCKET, () => console.log('at', server.address()));";
    let file = program(&supervisor, "app.js", text);
    let address = format!("unix:{}", socket.display());
    let words = ["start", file.to_str().unwrap(), "-i", "2", "--listen", &address, "--listen-timeout", "10s"];
    assert!(supervisor.command(&words).env("SOCKET", &socket).status().unwrap().success());
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("hello"), "{answer:?}");
        supervisor.ok(&["reload", "app"]);
    }
    let logs = supervisor.ok(&["logs", "app"]);
    assert!(logs.contains(&format!("at {}", socket.display())), "{logs}");
}
