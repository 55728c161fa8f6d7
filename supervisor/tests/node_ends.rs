//! How Node programs end: with what they still have to answer. Without Node there is nothing to test, and each says so.

mod common;

use common::load::Load;
use common::node::{said, start};
use common::{Supervisor, free_port, has, program, until};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};

/// A client, which ends with its test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_of_http_2_moves_to_the_new_process_and_loses_no_request() {
    if !has("node") {
        return;
    }
    follow_client_of_http_2(
        "require('node:http2').createServer((_, answer) => setTimeout(() => answer.end(String(process.pid)), 100))
          .listen(Number(process.env.PORT), '127.0.0.1');",
    );
    // Another time, with a worker of the program's own.
    follow_client_of_http_2(
        "const cluster = require('node:cluster');
        if (cluster.isPrimary) cluster.fork();
        else require('node:http2').createServer((_, answer) => setTimeout(() => answer.end(String(process.ppid)), 100))
          .listen(Number(process.env.PORT), '127.0.0.1');",
    );
}

/// Reloads a program that answers with the id of its process.
fn follow_client_of_http_2(text: &str) {
    let supervisor = Supervisor::new();
    let (port, said_path) = (free_port(), supervisor.home.path().join("said"));
    // It keeps its connection for as long as it may, and always waits for an answer.
    let client = format!(
        "const http2 = require('node:http2');
        let session;
        setInterval(() => {{
          if (!session || session.closed) session = http2.connect('http://127.0.0.1:{port}').on('error', () => {{}});
          const request = session.request({{ ':path': '/' }}).setEncoding('utf8');
          let text = '';
          request.on('data', (part) => (text += part));
          request.on('error', ({{ message }}) => console.log('failed:', message));
          request.on('end', () => console.log('answered by', text));
        }}, 50);"
    );
    let output = start(&supervisor, &program(&supervisor, "app.js", text), port, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let client = program(&supervisor, "client.js", &client);
    let _client = Client(Command::new("node").arg(client).stdout(fs::File::create(&said_path).unwrap()).spawn().unwrap());
    let heard = || fs::read_to_string(&said_path).unwrap();
    let answers = |pid: i64| heard().contains(&format!("answered by {pid}\n"));
    let before = supervisor.pids()[0];
    until("the old process answers", || answers(before));
    supervisor.ok(&["reload", "app"]);
    until("the new process answers", || answers(supervisor.pids()[0]));
    assert!(!heard().contains("failed"), "{}", heard());
    assert_eq!(supervisor.list()[0]["last_end"], "exited with 0");
}

#[test]
fn a_program_that_is_a_cluster_itself_reloads_without_dropping_a_request() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let (gate, port) = (supervisor.home.path().join("gate"), free_port());
    // It replaces each worker that ends, as many do, and a worker has something to do for as long as it runs.
    let text = format!(
        "const cluster = require('node:cluster'), fs = require('node:fs'), http = require('node:http');
        if (cluster.isPrimary) {{
          for (let count = 0; count < 2; count++) cluster.fork();
          cluster.on('exit', () => cluster.fork());
        }} else {{
          setInterval(() => {{}}, 1000);
          http.createServer((request, answer) => {{
            if (request.url !== '/slow') return answer.end('hello');
            console.log('asked');
            const timer = setInterval(() => fs.existsSync('{}') && (clearInterval(timer), answer.end('hello')), 10);
          }}).listen(Number(process.env.PORT), '127.0.0.1');
        }}",
        gate.display()
    );
    let output = start(&supervisor, &program(&supervisor, "app.js", &text), port, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let connect = || TcpStream::connect(("127.0.0.1", port));
    until("it listens", || connect().is_ok());
    let mut stream = connect().unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    until("it has the request", || supervisor.ok(&["logs", "app"]).contains("asked"));
    // Some of its clients keep their connections busy. The others open one for each request: always some of them while the old process closes its listener.
    let loads = [(); 4].map(|()| Load::start(&format!("127.0.0.1:{port}")));
    loads.iter().for_each(Load::answers_more);
    let before = supervisor.pids();
    let mut reload = supervisor.command(&["reload", "app"]).spawn().unwrap();
    until("the old process was asked to end", || supervisor.pids() != before);
    fs::write(&gate, "").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer:?}");
    assert!(reload.wait().unwrap().success());
    for _ in 0..4 {
        loads.iter().for_each(Load::answers_more);
        supervisor.ok(&["reload", "app"]);
    }
    loads.iter().for_each(Load::answers_more);
    assert_eq!(loads.map(|load| load.stop().0), [const { Vec::<String>::new() }; 4]);
    assert_eq!(supervisor.list()[0]["last_end"], "exited with 0");
}

#[test]
fn a_program_that_is_a_cluster_itself_ends_although_its_workers_have_websockets() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let port = free_port();
    let text = "const cluster = require('node:cluster');
        if (cluster.isPrimary) cluster.fork();
        else require('node:http').createServer((_, answer) => answer.end('hello')).on('upgrade', (_, socket) => {
          socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\nnews');
        }).listen(Number(process.env.PORT), '127.0.0.1');";
    let output = start(&supervisor, &program(&supervisor, "app.js", text), port, &["--kill-timeout", "60s"]);
    assert!(output.status.success(), "{}", said(&output));
    let mut websocket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    websocket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"news") {
        let mut bytes = [0; 256];
        let count = websocket.read(&mut bytes).unwrap();
        assert!(count > 0, "{heard:?}");
        heard.extend_from_slice(&bytes[..count]);
    }
    supervisor.ok(&["stop", "app"]);
    assert_eq!(supervisor.list()[0]["last_end"], "exited with 0");
    assert_eq!(websocket.read(&mut [0; 256]).unwrap(), 0);
}
