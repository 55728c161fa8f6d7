//! The supervisor where apps, users and systems misbehave.

mod common;

use common::{Supervisor, has, is_gone, resident_kib, signal, until};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

fn one<'l>(list: &'l [Value], name: &str) -> &'l Value {
    list.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not in the list"))
}

/// Not a test: the app of the next one, which sends its status for ever.
#[test]
#[ignore = "an app, not a test"]
fn app_that_floods_its_status() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sender = UnixDatagram::unbound().unwrap();
    for count in 0_u64.. {
        let _ = sender.send_to(format!("STATUS={count} \x1b[2J{}", "x".repeat(2000)).as_bytes(), &socket);
    }
}

#[test]
fn an_app_that_floods_its_status_harms_nobody_else() {
    let supervisor = Supervisor::new();
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    supervisor.ok(&["start", own, "--name", "flood", "--", "--exact", "app_that_floods_its_status", "--ignored"]);
    supervisor.ok(&["start", "sleep 1000", "--name", "quiet"]);
    // The newest status comes through, bounded, without characters that a terminal obeys.
    let count = || {
        let list = supervisor.list();
        let says = one(&list, "flood")["says"].as_str().unwrap_or_default().to_owned();
        assert!(says.chars().count() <= 256 && !says.contains('\u{1b}'), "{says}");
        says.split_whitespace().next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    until("a thousand were read", || count() > 1000);
    let kib = resident_kib(supervisor.role("keeper"));
    assert!(kib < 32 * 1024, "the keeper holds {kib} KiB");
    supervisor.ok(&["stop", "quiet"]);
    supervisor.ok(&["delete", "flood"]);
}

#[test]
fn a_signal_to_the_process_group_ends_everything_in_order() {
    for name in ["TERM", "INT"] {
        let supervisor = Supervisor::new();
        supervisor.ok(&["start", "sleep 1000", "--name", "app"]);
        let (keeper, daemon, app) = (supervisor.role("keeper"), supervisor.role("daemon"), supervisor.pids()[0]);
        signal(name, -keeper);
        until("all have ended", || [keeper, daemon, app].into_iter().all(is_gone));
        // Neither has replaced the other.
        assert_eq!(fs::read_to_string(supervisor.path().join("supervisor.log")).unwrap(), "", "{name}");
    }
}

#[test]
fn a_hangup_reopens_logs_and_ends_nothing() {
    let supervisor = Supervisor::new();
    let arguments = ["-c", "while :; do echo line; sleep 0.01; done"];
    supervisor.ok(&[&["start", "sh", "--name", "app", "--"], &arguments[..]].concat());
    let log = supervisor.path().join("logs/app-0-out.log");
    until("it writes", || log.exists());
    let moved = log.with_extension("moved");
    fs::rename(&log, &moved).unwrap();
    let (keeper, pid) = (supervisor.role("keeper"), supervisor.pids()[0]);
    signal("HUP", keeper);
    until("the log is made anew", || fs::metadata(&log).is_ok_and(|log| log.len() > 0));
    signal("HUP", supervisor.role("daemon"));
    assert_eq!((supervisor.role("keeper"), supervisor.pids()[0]), (keeper, pid));
}

#[test]
fn flush_and_logs_wait_for_no_pipe_and_flush_empties_nothing_through_a_link() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let talker = supervisor.script("talker", "echo hello; exec sleep 1000");
    supervisor.ok(&["start", &talker, "--min-uptime", "10ms"]);
    until("it has written", || supervisor.ok(&["logs", "talker"]).contains("hello"));
    let logs = supervisor.path().join("logs");
    let precious = supervisor.home.path().join("precious");
    fs::write(&precious, "precious\n").unwrap();
    symlink(&precious, logs.join("app-0-out.log")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, logs.join("app-0-error.log"), rustix::fs::Mode::RWXU).unwrap();
    let keeper = supervisor.role("keeper");
    supervisor.ok(&["flush", "app"]);
    // It was done once the keeper has done what it was told later.
    supervisor.ok(&["stop", "app"]);
    assert_eq!((fs::read_to_string(&precious).unwrap().as_str(), supervisor.role("keeper")), ("precious\n", keeper));
    let mut all = supervisor.command(&["logs"]).stdout(Stdio::piped()).spawn().unwrap();
    until("all logs are printed", || all.try_wait().unwrap().is_some());
    let output = all.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("talker out| hello"));
}

#[test]
fn a_home_that_depends_on_the_current_directory_is_refused() {
    let supervisor = Supervisor::new();
    let output = supervisor.command(&["list"]).env("SUPERVISOR_HOME", "somewhere").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("absolute path") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_home_whose_path_no_list_can_hold_is_refused() {
    let supervisor = Supervisor::new();
    let home = supervisor.home.path().join(OsStr::from_bytes(b"jos\xe9"));
    let output = supervisor.command(&["start", "sleep 1000"]).env("SUPERVISOR_HOME", &home).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("is not valid UTF-8") && said.lines().count() == 1, "{said}");
    assert!(!home.exists());
}

#[test]
fn scale_says_how_many_instances_there_are_now() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    assert!(supervisor.ok(&["scale", "app", "3"]).contains("app has 3 instances"));
    for same in ["3", "+0"] {
        assert_eq!(supervisor.ok(&["scale", "app", same]), "app has 3 instances\n");
    }
    assert!(supervisor.ok(&["scale", "app", "1"]).contains("app has 1 instance"));
    assert_eq!(supervisor.list().len(), 1);
}

#[test]
fn a_reload_starts_a_stopped_app_only_by_its_name_or_id() {
    let supervisor = Supervisor::new();
    for name in ["runs", "stays"] {
        supervisor.ok(&["start", "sleep 1000", "--name", name, "--namespace", "web", "--min-uptime", "10ms"]);
    }
    supervisor.ok(&["stop", "stays"]);
    for several in ["all", "*s", "web"] {
        let before = one(&supervisor.list(), "runs")["pid"].clone();
        supervisor.ok(&["reload", several]);
        let list = supervisor.list();
        assert_eq!(one(&list, "stays")["status"], "stopped", "{several}");
        assert_ne!(one(&list, "runs")["pid"], before, "{several}");
    }
    supervisor.ok(&["stop", "runs"]);
    assert!(supervisor.fails(&["reload", "all"]).contains("'all' means only stopped apps: name the one to start"));
    supervisor.ok(&["reload", "stays"]);
    assert_eq!(one(&supervisor.list(), "stays")["status"], "online", "by its name it is meant");
}

#[test]
fn a_canary_is_refused_where_no_process_can_run_beside_it() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let before = supervisor.pids();
    let said = supervisor.fails(&["reload", "app", "--canary"]);
    assert!(said.contains("app runs in fork mode") && said.contains("reload it without --canary"), "{said}");
    assert_eq!(supervisor.pids(), before);
    let program = common::server();
    let words = ["start", program.to_str().unwrap(), "--name", "api", "-i", "2", "--listen", "127.0.0.1:0"];
    supervisor.ok(&[&words[..], &["--listen-timeout", "10s", "--", "--model", "current-thread"]].concat());
    supervisor.ok(&["stop", "api"]);
    let said = supervisor.fails(&["reload", "api", "--canary"]);
    assert!(said.contains("failed, before it began") && said.contains("no instance of api is online"), "{said}");
    supervisor.ok(&["start", "api"]);
    let first = one(&supervisor.list(), "api")["id"].to_string();
    supervisor.ok(&["stop", &first]);
    let before = supervisor.pids();
    supervisor.ok(&["reload", "api", "--canary", "--canary-for", "10ms"]);
    let now = supervisor.pids();
    assert!(now.len() == 3 && now.iter().filter(|pid| before.contains(pid)).count() == 1, "{before:?} {now:?}");
}

#[test]
fn resurrect_starts_the_others_when_one_cannot_be_started() {
    let supervisor = Supervisor::new();
    let program = common::server();
    let program = program.to_str().unwrap();
    supervisor.ok(&["start", program, "--listen", "127.0.0.1:0", "--name", "free", "--", "--model", "current-thread"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    supervisor.ok(&["start", program, "--listen", &address, "--name", "taken", "--", "--model", "current-thread"]);
    supervisor.ok(&["start", "sleep 1000", "--name", "last", "--min-uptime", "10ms"]);
    supervisor.ok(&["save"]);
    supervisor.ok(&["kill"]);
    let _listener = TcpListener::bind(&address).unwrap();
    assert!(supervisor.fails(&["resurrect"]).contains(&address));
    let list = supervisor.list();
    assert_eq!((&one(&list, "free")["status"], &one(&list, "last")["status"]), (&"online".into(), &"online".into()));
}

#[test]
fn a_stop_does_not_wait_for_a_start_that_waits_and_tells_it() {
    let supervisor = Supervisor::new();
    let waiting = ["start", "sleep 1000", "--name", "app", "--listen", "127.0.0.1:0", "--listen-timeout", "1h"];
    let start = supervisor.command(&waiting).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    until("it is launching", || supervisor.list().first().is_some_and(|one| one["pid"].is_number()));
    supervisor.ok(&["stop", "app"]);
    let output = start.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("`supervisor stop app` was run meanwhile"), "{said}");
    assert_eq!(supervisor.list()[0]["status"], "stopped");
}

#[test]
fn a_command_that_is_interrupted_is_in_nobodys_way() {
    let supervisor = Supervisor::new();
    let program = supervisor.home.path().join("app");
    symlink(common::server(), &program).unwrap();
    let words = ["--listen", "127.0.0.1:0", "--name", "app", "--listen-timeout", "1h", "--", "--model", "current-thread"];
    supervisor.ok(&[&["start", program.to_str().unwrap()], &words[..]].concat());
    let before = supervisor.pids();
    // A build that never gets ready: the reload waits for an hour.
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut reload = supervisor.command(&["reload", "app"]).spawn().unwrap();
    until("the replacement is launching", || supervisor.list()[0]["generation"] == 2);
    reload.kill().unwrap();
    reload.wait().unwrap();
    fs::remove_file(&program).unwrap();
    symlink(common::server(), &program).unwrap();
    until("another reload is taken", || supervisor.run(&["reload", "app"]).status.success());
    assert!(!supervisor.pids().iter().any(|pid| before.contains(pid)));
}

#[test]
fn outputs_that_are_full_or_closed_are_an_error_and_no_panic() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for words in [&["list"][..], &["list", "--json"], &["show", "app"], &["startup"], &["unstartup"], &["stop", "app"]] {
        let output = supervisor.command(words).stdout(full()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("cannot write to standard output"), "{words:?}: {said}");
    }
    // Nobody can read the error, but the exit status tells.
    let output = supervisor.command(&["show", "nobody"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_cannot_be_meant_is_refused_in_one_line() {
    let supervisor = Supervisor::new();
    let long = "%Y".repeat(60_000);
    for (words, why) in [
        (&["--log-date-format", long.as_str()][..], "at most 100 characters"),
        (&["--log-date-format", "%!"], "--log-date-format"),
        (&["--cwd", "/nowhere"], "is not a folder"),
    ] {
        let said = supervisor.fails(&[&["start", "sleep 1000", "--name", "app"], words].concat());
        assert!(said.contains(why), "{said}");
    }
    assert!(supervisor.list().is_empty());
}

#[test]
fn an_app_that_was_started_inside_a_link_follows_the_link() {
    let supervisor = Supervisor::new();
    let home = supervisor.home.path();
    let release = |name: &str| {
        let folder = home.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("app"), format!("#!/bin/sh\necho {name}; exec sleep 1000\n")).unwrap();
        fs::set_permissions(folder.join("app"), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    };
    let (old, new, current) = (release("old"), release("new"), home.join("current"));
    symlink(&old, &current).unwrap();
    let mut start = supervisor.command(&["start", "./app", "--min-uptime", "10ms"]);
    assert!(start.current_dir(&current).env("PWD", &current).status().unwrap().success());
    fs::remove_file(&current).unwrap();
    symlink(&new, &current).unwrap();
    fs::remove_dir_all(&old).unwrap();
    supervisor.ok(&["restart", "app"]);
    until("the new release runs", || supervisor.ok(&["logs", "app"]).contains("new"));
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    for more in [&["-i", "3"][..], &["--max-restarts", "5"], &["--watch"], &["--", "5"]] {
        let said = supervisor.fails(&[&["start", "app"], more].concat());
        assert!(said.contains("start does not change its options"), "{said}");
    }
    supervisor.ok(&["start", "app"]);
    let file = supervisor.home.path().join("supervisor.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "[[app]]\nstart = \"sleep 1000\"\nname = \"other\"\nmin_uptime = \"10ms\"\n").unwrap();
    assert!(supervisor.fails(&["start", path, "-i", "4"]).contains("write them into it"));
    supervisor.ok(&["start", path]);
    supervisor.ok(&["start", path]);
    fs::write(&file, "[[app]]\nstart = \"sleep 999\"\nname = \"other\"\nmin_uptime = \"20ms\"\n").unwrap();
    let said = supervisor.fails(&["start", path]);
    assert!(said.contains("other differs from") && said.contains("(command, min-uptime)"), "{said}");
}

#[test]
fn a_stop_ends_children_with_a_session_of_their_own_and_groups_with_a_zombie() {
    let supervisor = Supervisor::new();
    let pids = supervisor.home.path().join("pids");
    // The first child leaves the session. The second does too, but its own child stays in the group as a zombie that nobody reaps.
    let script = format!(
        "setsid sleep 1000 & echo $! >> {0}; sh -c 'sleep 0 & echo $$ >> {0}; exec setsid sleep 1000' & exec sleep 1000",
        pids.display()
    );
    let file = supervisor.home.path().join("app");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    supervisor.ok(&["start", file.to_str().unwrap(), "--min-uptime", "10ms"]);
    let read = || fs::read_to_string(&pids).unwrap_or_default().lines().map(|pid| pid.parse().unwrap()).collect::<Vec<i64>>();
    until("both have begun", || read().len() == 2);
    supervisor.ok(&["stop", "app"]);
    until("both have ended", || read().into_iter().all(is_gone));
}

#[test]
fn an_app_that_exits_again_and_again_is_given_up_even_if_each_time_was_long_enough() {
    let supervisor = Supervisor::new();
    supervisor.run(&["start", "sleep 0.05", "--name", "app", "--min-uptime", "1ms"]);
    until("it is given up", || supervisor.list()[0]["status"] == "errored");
    assert_eq!(supervisor.list()[0]["restarts"], 17, "the default limit is 16");
    // What somebody starts again is tried as often.
    supervisor.run(&["start", "app"]);
    until("it has been tried again", || supervisor.list()[0]["restarts"] == 34);
}

#[test]
fn a_unix_socket_is_shared_like_any_listener_and_goes_with_its_app() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    let path = supervisor.home.path().join("app.sock");
    let text = "import os, signal, socket, sys
listener = socket.socket(fileno=3)
assert os.get_blocking(3)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    client, _ = listener.accept()
    client.sendall(str(os.getpid()).encode())
    client.close()
";
    let program = supervisor.home.path().join("app.py");
    fs::write(&program, text).unwrap();
    // What a process that has died has left there.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display());
    let words =
        ["start", program.to_str().unwrap(), "-i", "2", "--listen", &address, "--blocking-listener", "--listen-timeout", "10s"];
    supervisor.ok(&[&words[..], &["--ready-when", "listening"]].concat());
    let ask = || {
        let mut said = String::new();
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        std::io::Read::read_to_string(&mut stream, &mut said).unwrap();
        said.parse::<i64>().unwrap()
    };
    let before = supervisor.pids();
    assert!(before.contains(&ask()));
    supervisor.ok(&["reload", "app"]);
    assert!(!before.contains(&ask()) && supervisor.pids().contains(&ask()));
    assert_eq!(supervisor.list()[0]["listeners"][0], address);
    supervisor.ok(&["delete", "app"]);
    until("its address is gone too", || !path.exists());
    let said = supervisor.fails(&["start", "sleep 1000", "--listen", "unix:/no/such/folder/app.sock"]);
    assert!(said.contains("cannot listen on unix:/no/such/folder/app.sock"), "{said}");
}
