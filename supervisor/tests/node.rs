//! Node programs, unchanged, as a cluster. Without Node there is nothing to test, and each says so.

mod common;

use common::load::Load;
use common::node::{SERVER, said, start};
use common::{Supervisor, free_port, has, is_root, program, resident_kib, signal, until};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[test]
fn a_server_runs_as_a_cluster_and_reloads_without_dropping_a_request() {
    if !has("node") {
        return;
    }
    // The last one is what Express generates as bin/www, which nobody has made executable.
    for (name, first) in [
        ("app.js", "const http = require('node:http');\n"),
        ("app.mjs", "import http from 'node:http';\n"),
        ("app", "#!/usr/bin/env node\nconst http = require('node:http');\n"),
    ] {
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
fn what_one_app_was_told_by_the_supervisor_does_not_reach_an_app_that_it_starts() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let names = ["SUPERVISOR_WAIT_READY", "WATCHDOG_USEC", "LISTEN_FDNAMES"];
    let text = format!(
        "const http = require('node:http');\n{SERVER}console.log('has', {names:?}.filter((name) => name in process.env).length);\n"
    );
    let file = program(&supervisor, "app.js", &text);
    let mut begin = supervisor.command(&["start", file.to_str().unwrap(), "--listen-timeout", "10s"]);
    assert!(begin.env("PORT", free_port().to_string()).envs(names.map(|name| (name, "1"))).status().unwrap().success());
    // With the first one, it would count as ready only once it says so.
    supervisor.ok(&["reload", "app"]);
    until("both have logged", || supervisor.ok(&["logs", "app"]).matches("has 0").count() == 2);
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

/// What versions 3 and 4 of the package signal-exit do: each lets a program end only if all listeners are its own.
const SIGNAL_EXITS: &str = "const three = (process.__signal_exit_emitter__ = { count: 0 });
const four = (globalThis[Symbol.for('signal-exit emitter')] = { count: 0 });
function load(own, count) {
  own.count++;
  process.on('SIGTERM', () => {
    if (process.listenerCount('SIGTERM') !== count()) return;
    process.removeAllListeners('SIGTERM');
    process.kill(process.pid, 'SIGTERM');
  });
}
load(three, () => three.count);
load(three, () => three.count);
load(four, () => three.count + four.count);
";

#[test]
fn a_program_that_loads_signal_exit_ends_as_one_without_and_one_with_a_handler_as_that_says() {
    if !has("node") {
        return;
    }
    for (handler, end) in [("", "exited with 0"), ("process.on('SIGTERM', () => process.exit(3));\n", "exited with 3")] {
        let supervisor = Supervisor::new();
        let text = format!("const http = require('node:http');\n{SIGNAL_EXITS}{handler}{SERVER}");
        let file = program(&supervisor, "app.js", &text);
        let output = start(&supervisor, &file, free_port(), &[]);
        assert!(output.status.success(), "{}", said(&output));
        supervisor.ok(&["stop", "app"]);
        assert_eq!(supervisor.list()[0]["last_end"], end);
    }
}

#[test]
fn a_program_with_an_open_websocket_answers_its_requests_and_ends() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let (gate, port) = (supervisor.home.path().join("gate"), free_port());
    let text = format!(
        "const fs = require('node:fs'), http = require('node:http');
        const upgraded = new Set();
        http.createServer((_, answer) => {{
          console.log('asked');
          const timer = setInterval(() => {{
            if (!fs.existsSync('{}')) return;
            clearInterval(timer);
            for (const socket of upgraded) socket.write('news');
            answer.end('hello');
          }}, 10);
        }}).on('upgrade', (_, socket) => {{
          upgraded.add(socket);
          socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n');
        }}).listen(Number(process.env.PORT), '127.0.0.1');",
        gate.display()
    );
    let file = program(&supervisor, "app.js", &text);
    let output = start(&supervisor, &file, port, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{head}\r\n").unwrap();
        stream
    };
    let mut websocket = BufReader::new(ask("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(websocket.read_line(&mut line).unwrap() > 0);
    }
    let mut answer = ask("");
    until("it has the request", || supervisor.ok(&["logs", "app"]).contains("asked"));
    let mut stop = supervisor.command(&["stop", "app"]).spawn().unwrap();
    until("it was asked to end", || supervisor.list()[0]["status"] == "stopping");
    fs::write(&gate, "").unwrap();
    assert!(stop.wait().unwrap().success());
    assert_eq!(supervisor.list()[0]["last_end"], "exited with 0");
    let (mut answered, mut news) = (String::new(), String::new());
    answer.read_to_string(&mut answered).unwrap();
    websocket.read_to_string(&mut news).unwrap();
    assert!(answered.ends_with("hello") && news == "news", "{answered:?} {news:?}");
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
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                std::io::copy(&mut stream, &mut std::io::sink())
            })
        };
        let mut command = supervisor.command(&words);
        let child = command.env("BUILD", build).env("PORT", &port).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Few, so that a build is not slow because its clients take the processors.
            let load: Vec<_> = (0..2)
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
    if !has("node") || !is_root() {
        return;
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
fn without_root_a_program_runs_as_the_user_that_it_runs_as_anyway() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let file = program(&supervisor, "app.js", &format!("const http = require('node:http');\n{SERVER}"));
    let (own, own_group) = (nix::unistd::getuid(), nix::unistd::getgid());
    // A user without rights, who needs neither a name nor a group of its own.
    let (user, group) = if own.is_root() { (65534, 65534) } else { (own.as_raw(), own_group.as_raw()) };
    std::os::unix::fs::chown(supervisor.home.path(), Some(user), Some(group)).unwrap();
    // Who may not enter the folder of the build can run a copy of it.
    let built = Path::new(env!("CARGO_BIN_EXE_supervisor"));
    for name in ["supervisor", "supervisor-keeper"] {
        fs::copy(built.with_file_name(name), supervisor.home.path().join(name)).unwrap();
    }
    let run = |words: &[&str]| {
        let mut command = Command::new(supervisor.home.path().join("supervisor"));
        command.args(words).env("SUPERVISOR_HOME", supervisor.path()).env("PORT", free_port().to_string());
        command.current_dir("/").uid(user).gid(group).output().unwrap()
    };
    let [uid, gid] = [user, group].map(|number| number.to_string());
    let begun = run(&["start", file.to_str().unwrap(), "--uid", &uid, "--gid", &gid, "--listen-timeout", "10s"]);
    let listed = run(&["list", "--json"]);
    // It would outlive a test that fails: only its own user can reach it.
    assert!(run(&["kill"]).status.success());
    assert!(begun.status.success(), "{}", said(&begun));
    let list: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(list["instances"][0]["mode"], "cluster");
}

#[test]
fn a_program_that_wants_nonsense_is_told_so_and_harms_nobody_else() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "process.on('internalMessage', ({ errno }) => console.log('errno', errno));
    process.send({ cmd: 'NODE_SUPERVISOR', id: 1, wants: 'x'.repeat(300000) });
    setInterval(() => {}, 1000);";
    let file = program(&supervisor, "app.js", text);
    supervisor.ok(&["ping"]);
    let own = supervisor.listed()["supervisor"].clone();
    assert!(start(&supervisor, &file, 0, &["--min-uptime", "10ms"]).status.success());
    until("it is told", || supervisor.ok(&["logs", "app"]).contains("errno 22"));
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
