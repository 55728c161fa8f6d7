//! Node programs, unchanged, as a cluster. Without Node there is nothing to test, and each says so.

mod common;

use common::load::Load;
use common::{Supervisor, free, free_port, has, resident_kib, server, signal, until};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;

/// A server as its author wrote it, who knows nothing of the supervisor.
const SERVER: &str = "http.createServer((request, answer) => {
  if (request.url === '/pid') answer.end(String(process.pid)); else setTimeout(() => answer.end('hello'), 5);
}).listen(Number(process.env.PORT));
";

/// Writes a program into the supervisor's folder.
fn program(supervisor: &Supervisor, name: &str, text: &str) -> PathBuf {
    let path = supervisor.home.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn start(supervisor: &Supervisor, program: &Path, port: u16, options: &[&str]) -> Output {
    let mut command = supervisor.command(&[&["start", program.to_str().unwrap(), "--listen-timeout", "10s"], options].concat());
    command.env("PORT", port.to_string()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_runs_as_a_cluster_and_reloads_without_dropping_a_request() {
    if !has("node") {
        return;
    }
    for (name, first) in [("app.js", "const http = require('node:http');\n"), ("app.mjs", "import http from 'node:http';\n")] {
        let supervisor = Supervisor::new();
        let port = free_port();
        let file = program(&supervisor, name, &format!("{first}{SERVER}"));
        let output = start(&supervisor, &file, port, &["-i", "2"]);
        assert!(output.status.success(), "{}", said(&output));
        let list = supervisor.list();
        assert_eq!((list.len(), &list[0]["name"], &list[0]["mode"]), (2, &"app".into(), &"cluster".into()), "{list:?}");
        let load = Load::start(&format!("127.0.0.1:{port}"));
        for _ in 0..3 {
            load.answers_more();
            let before = supervisor.pids();
            supervisor.ok(&["reload", "app"]);
            assert!(supervisor.pids().iter().all(|pid| !before.contains(pid)));
        }
        load.answers_more();
        let (failures, answered) = load.stop();
        assert!(failures.is_empty(), "{name}: {} failures beside {answered} answers: {:?}", failures.len(), failures[0]);
    }
}

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
fn a_program_that_wants_to_say_itself_when_it_is_ready_does() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let gate = supervisor.home.path().join("gate");
    let text = format!(
        "const http = require('node:http'), fs = require('node:fs');\n{SERVER}\
         setInterval(() => fs.existsSync('{}') && process.send('ready'), 10);\n",
        gate.display()
    );
    let file = program(&supervisor, "app.js", &text);
    let mut begin = supervisor.command(&["start", file.to_str().unwrap(), "--wait-ready", "--listen-timeout", "20s"]);
    let mut begun = begin.env("PORT", free_port().to_string()).spawn().unwrap();
    until("it listens", || !supervisor.list().is_empty() && supervisor.list()[0]["mode"] == "cluster");
    assert_eq!(supervisor.list()[0]["status"], "launching");
    fs::write(&gate, "").unwrap();
    assert!(begun.wait().unwrap().success());
    assert_eq!(supervisor.list()[0]["status"], "online");
}

#[test]
fn a_program_gets_the_signal_that_it_was_written_for() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = format!(
        "const http = require('node:http');\n{SERVER}process.on('SIGINT', () => {{ console.log('bye'); process.exit(3); }});\n"
    );
    let file = program(&supervisor, "app.js", &text);
    let output = start(&supervisor, &file, free_port(), &["--stop-signal", "INT"]);
    assert!(output.status.success(), "{}", said(&output));
    supervisor.ok(&["stop", "app"]);
    assert_eq!(supervisor.list()[0]["last_end"], "exited with 3");
    assert!(supervisor.ok(&["logs", "app"]).contains("bye"));
}

#[test]
fn a_program_that_listens_nowhere_runs_as_well() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let file = program(&supervisor, "job.js", "setInterval(() => console.log(process.env.NODE_APP_INSTANCE), 50);\n");
    let output = start(&supervisor, &file, 0, &["-i", "2", "--min-uptime", "200ms"]);
    assert!(output.status.success(), "{}", said(&output));
    until("both log their number", || {
        let logs = supervisor.ok(&["logs", "job"]);
        logs.contains("0|job out| 0") && logs.contains("1|job out| 1")
    });
    assert_eq!(supervisor.list()[0]["mode"], "fork");
}

/// A server of which one build fails every other request, another holds its event loop, and the rest is fine.
const BUILDS: &str = "const http = require('node:http');
http.createServer((request, answer) => {
  if (process.env.BUILD === 'slow') for (const end = Date.now() + 300; Date.now() < end; );
  if (process.env.BUILD === 'failing') answer.statusCode = 500;
  answer.end('hello');
}).listen(Number(process.env.PORT), '127.0.0.1');
";

#[test]
fn a_canary_that_fails_or_hangs_is_taken_back_and_one_that_is_fine_is_followed_by_the_rest() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let port = free_port();
    let file = program(&supervisor, "app.js", BUILDS);
    assert!(start(&supervisor, &file, port, &["-i", "3"]).status.success());
    let before = supervisor.pids();
    let reload = |build: &str, time: &str| {
        let words = ["reload", "app", "--update-env", "--canary", "--canary-for", time];
        let port = port.to_string();
        let ask = || {
            TcpStream::connect(("127.0.0.1", port.parse().unwrap())).and_then(|mut stream| {
                std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                std::io::copy(&mut stream, &mut std::io::sink())
            })
        };
        let mut command = supervisor.command(&words);
        let child = command.env("BUILD", build).env("PORT", &port).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                            ask().unwrap();
                        }
                    })
                })
                .collect();
            let output = child.wait_with_output().unwrap();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            load.into_iter().for_each(|one| one.join().unwrap());
            output
        })
    };
    for (build, why) in [("failing", " requests, and the others 0 of "), ("slow", "held its event loop for up to ")] {
        let output = reload(build, "60s");
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
        assert!(said(&output).contains("but its instances keep running"), "{}", said(&output));
        until("the canary is gone", || supervisor.list().iter().all(|one| one["status"] == "online"));
        assert_eq!(supervisor.pids(), before, "{build}");
    }
    let output = reload("fine", "2500ms");
    assert!(output.status.success(), "{}", said(&output));
    assert!(supervisor.pids().iter().all(|pid| !before.contains(pid)));
}

#[test]
fn a_program_runs_as_another_user() {
    if !has("node") || !nix::unistd::geteuid().is_root() {
        return println!("skipped: it takes node, and root");
    }
    let supervisor = Supervisor::new();
    let text = "require('node:http').createServer((_, answer) => answer.end(String(process.getuid()))).listen(Number(process.env.PORT));";
    let (file, port) = (program(&supervisor, "app.js", text), free_port());
    fs::set_permissions(supervisor.home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = start(&supervisor, &file, port, &["-i", "2", "--uid", "nobody", "--cwd", "/"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((supervisor.pids().len(), supervisor.list()[0]["mode"].as_str()), (2, Some("cluster")));
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
fn a_program_that_wants_nonsense_is_told_so_and_harms_nobody_else() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "process.on('internalMessage', ({ code }) => console.log(code));
    process.send({ cmd: 'NODE_SUPERVISOR', id: 1, wants: 'x'.repeat(300000) });
    setInterval(() => {}, 1000);";
    let file = program(&supervisor, "app.js", text);
    supervisor.ok(&["ping"]);
    let own = supervisor.listed()["supervisor"].clone();
    assert!(start(&supervisor, &file, 0, &["--min-uptime", "10ms"]).status.success());
    until("it is told", || supervisor.ok(&["logs", "app"]).contains("EINVAL"));
    assert_eq!(supervisor.listed()["supervisor"], own);
}

#[test]
fn a_program_that_floods_its_channel_harms_nobody_else() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let sent = supervisor.home.path().join("sent");
    let text = format!(
        "let sent = 0;
        function more() {{
          for (let count = 0; count < 50; count++) process.send('ready');
          process.send({{ cmd: 'NODE_SUPERVISOR', id: sent, wants: 'nowhere' }});
          process.send({{ cmd: 'NODE_SUPERVISOR', says: String((sent += 50)) }}, () => setImmediate(more));
        }}
        more();
        setInterval(() => require('node:fs').writeFileSync('{}', String(sent)), 20);",
        sent.display()
    );
    let file = program(&supervisor, "flood.js", &text);
    assert!(start(&supervisor, &file, 0, &[]).status.success());
    let count = || supervisor.list()[0]["says"].as_str().and_then(|says| says.parse::<u64>().ok()).unwrap_or(0);
    until("ten thousand were read", || count() > 10_000);
    // Whatever the keeper reports now, it has to keep.
    let keeper = supervisor.role("keeper");
    signal("STOP", supervisor.role("daemon"));
    until("many more were sent", || {
        fs::read_to_string(&sent).is_ok_and(|sent| sent.parse().is_ok_and(|sent: u64| sent > 200_000))
    });
    let kib = resident_kib(keeper);
    assert!(kib < 24 * 1024, "the keeper holds {kib} KiB");
    supervisor.ok(&["start", "sleep 1000", "--name", "quiet", "--min-uptime", "10ms"]);
}
