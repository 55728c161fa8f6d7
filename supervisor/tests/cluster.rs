//! Tests of the supervisor from the user's side: commands, processes, sockets and files.

mod common;

use command_fds::{CommandFdExt, FdMapping};
use common::load::{Load, ask, ask_for, connect};
use common::{Supervisor, free, is_gone, server, signal, start, start_within, until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn reload_and_scale_drop_no_request() {
    let supervisor = Supervisor::new();
    let address = start(&supervisor, &server());
    let load = Load::start(&address);
    let mut before = supervisor.pids();
    for parallel in ["1", "2", "5"] {
        load.answers_more();
        supervisor.ok(&["reload", "api", "--parallel", parallel]);
        let now = supervisor.pids();
        assert_eq!(now.len(), 2);
        assert!(now.iter().all(|pid| !before.contains(pid)), "{before:?} {now:?}");
        before = now;
    }
    supervisor.ok(&["scale", "api", "4"]);
    assert_eq!(supervisor.pids().len(), 4);
    load.answers_more();
    supervisor.ok(&["scale", "api", "1"]);
    assert_eq!(supervisor.pids().len(), 1);
    load.answers_more();
    let (failures, answered) = load.stop();
    assert!(failures.is_empty(), "{} failures beside {answered} answers: {:?}", failures.len(), failures[0]);
}

#[test]
fn a_reload_to_a_bad_build_fails_and_the_old_processes_keep_running() {
    let supervisor = Supervisor::new();
    let program = supervisor.home.path().join("app");
    symlink(server(), &program).unwrap();
    let address = start_within(&supervisor, &program, "2s");
    let before = supervisor.pids();
    let load = Load::start(&address);
    let become_bad = |script: &str| {
        fs::remove_file(&program).unwrap();
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        assert!(Command::new("chmod").arg("+x").arg(&program).status().unwrap().success());
    };
    for (script, expected) in [
        ("echo out of luck >&2; exit 3", "last line of its stderr: out of luck"),
        ("exec sleep 100", "did not send READY=1 within 2s"),
    ] {
        become_bad(script);
        let said = supervisor.fails(&["reload", "api"]);
        assert!(said.contains(expected) && said.contains("but its instances keep running"), "{said}");
        assert_eq!(supervisor.pids(), before);
    }
    let events = supervisor.ok(&["events"]);
    assert!(events.contains("replacement failed") && !events.contains("given up"), "{events}");
    fs::remove_file(&program).unwrap();
    let said = supervisor.fails(&["reload", "api"]);
    assert!(said.contains("No such file"), "{said}");
    load.answers_more();
    assert_eq!(load.stop().0, [""; 0]);
}

#[test]
fn clients_do_not_notice_killed_daemons_and_keepers() {
    let supervisor = Supervisor::new();
    let address = start(&supervisor, &server());
    let before = supervisor.pids();
    let load = Load::start(&address);
    for role in ["daemon", "keeper", "daemon", "keeper"] {
        let pid = supervisor.role(role);
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        until("another in its place", || is_gone(pid));
        assert_eq!(supervisor.pids(), before, "after the end of the {role}");
        load.answers_more();
    }
    // The adopted workers can still be reloaded.
    supervisor.ok(&["reload", "api"]);
    assert!(supervisor.pids().iter().all(|pid| !before.contains(pid)));
    assert_eq!(load.stop().0, [""; 0]);
}

#[test]
fn a_killed_worker_is_replaced_and_its_end_is_reported() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    let before = supervisor.pids();
    assert!(Command::new("kill").args(["-9", &before[0].to_string()]).status().unwrap().success());
    until("a new process", || supervisor.list()[0]["status"] == "online" && supervisor.pids()[0] != before[0]);
    let one = &supervisor.list()[0];
    assert_eq!((one["restarts"].as_u64(), one["last_end"].as_str()), (Some(1), Some("killed by SIGKILL")));
}

#[test]
fn a_command_that_keeps_exiting_is_given_up() {
    let supervisor = Supervisor::new();
    let said = supervisor.fails(&["start", "/bin/false", "--max-restarts", "3", "--restart-delay", "1ms"]);
    assert!(said.contains("exited with 1"), "{said}");
    until("errored", || supervisor.list()[0]["status"] == "errored");
    assert_eq!(supervisor.list()[0]["restarts"], 4);
}

#[test]
fn stop_ends_the_whole_group_and_start_starts_it_again() {
    let supervisor = Supervisor::new();
    let pids = supervisor.home.path().join("pids");
    let script = format!("sleep 1000 & echo $! >> {}; wait", pids.display());
    supervisor.ok(&["start", "sh", "--name", "group", "--min-uptime", "200ms", "--", "-c", &script]);
    until("the pid", || fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    let child: i32 = fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
    let is_there = |pid: i32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(is_there(child));
    supervisor.ok(&["stop", "group"]);
    assert!(!is_there(child));
    assert_eq!(supervisor.list()[0]["status"], "stopped");
    supervisor.ok(&["start", "group"]);
    assert_eq!(supervisor.list()[0]["status"], "online");
}

#[test]
fn logs_stay_within_their_limit_and_can_be_read_and_emptied() {
    let supervisor = Supervisor::new();
    let arguments = ["--name", "chatty", "--log-max-size", "100K", "--log-keep", "2", "--min-uptime", "50ms"];
    supervisor.ok(&[&["start", "yes"], &arguments[..], &["--", "a line"]].concat());
    let logs = supervisor.path().join("logs");
    until("rotation", || logs.join("chatty-0-out.log.2").exists());
    supervisor.ok(&["stop", "chatty"]);
    let sizes: Vec<u64> = fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() <= 4 && sizes.iter().all(|size| *size <= 100 << 10), "{sizes:?}");
    assert_eq!(supervisor.ok(&["logs", "chatty", "--lines", "2"]), "0|chatty out| a line\n".repeat(2));
    supervisor.ok(&["flush"]);
    until("an empty log", || fs::read_dir(&logs).unwrap().all(|entry| entry.unwrap().metadata().unwrap().len() == 0));
}

#[test]
fn followed_logs_show_instances_that_start_later() {
    let supervisor = Supervisor::new();
    let start = ["start", "sh", "--name", "talker", "--min-uptime", "50ms", "--", "-c", "echo I am $$; exec sleep 1000"];
    supervisor.ok(&start);
    let mut following = supervisor.command(&["logs", "talker", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.next().unwrap().starts_with("0|talker out| I am "));
    supervisor.ok(&["scale", "talker", "2"]);
    assert!(lines.next().unwrap().starts_with("1|talker out| I am "));
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn a_server_reports_its_request_count_and_event_loop_lag() {
    let supervisor = Supervisor::new();
    let program = server();
    let listen = ["--listen", "127.0.0.1:0", "--name", "api", "--", "--model", "current-thread"];
    supervisor.ok(&[&["start", program.to_str().unwrap()], &listen[..]].concat());
    let mut stream = connect(supervisor.list()[0]["listeners"][0].as_str().unwrap()).unwrap();
    for path in ["/", "/", "/sleep?ms=300"] {
        assert!(ask_for(path, &mut stream).unwrap());
    }
    until("three requests, one of 300 ms", || {
        let says = supervisor.list()[0]["says"].as_str().unwrap_or_default().to_owned();
        let Some((requests, lag)) = says.split_once(" requests, lag up to ") else { return false };
        requests == "3" && lag.trim_end_matches(" ms").parse::<f64>().unwrap() >= 300.0
    });
}

#[test]
fn a_truncated_state_file_is_renamed_and_processes_keep_running() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    let before = supervisor.pids();
    let state = supervisor.path().join("state.json");
    let text = fs::read(&state).unwrap();
    // Behind it, there is white space.
    fs::write(&state, &text[..text.trim_ascii_end().len() / 2]).unwrap();
    let pid = supervisor.role("daemon");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    until("the end of the daemon", || !Path::new(&format!("/proc/{pid}")).exists());
    let output = supervisor.run(&["list"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("state.json.broken"), "{output:?}");
    assert_eq!(supervisor.pids(), before);
    assert!(supervisor.path().join("state.json.broken").exists());
}

#[test]
fn processes_left_by_a_dead_keeper_and_daemon_are_replaced() {
    let supervisor = Supervisor::new();
    let address = start(&supervisor, &server());
    let before = supervisor.pids();
    let pids = [supervisor.role("keeper"), supervisor.role("daemon")].map(|pid| pid.to_string());
    // Stopped first: whichever died first would be replaced by the other.
    for signal in ["-STOP", "-9"] {
        assert!(Command::new("kill").arg(signal).args(&pids).status().unwrap().success());
    }
    until("the end of both", || pids.iter().all(|pid| is_gone(pid.parse().unwrap())));
    assert!(ask(&mut connect(&address).unwrap()).is_ok(), "the workers no longer answer");
    let output = supervisor.run(&["list"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the 2 processes that they left were asked to end"), "{output:?}");
    until("others online", || supervisor.list().iter().all(|one| one["status"] == "online"));
    assert!(supervisor.pids().iter().all(|pid| !before.contains(pid)));
    until("the end of the old processes", || before.iter().all(|pid| !Path::new("/proc").join(pid.to_string()).exists()));
    let address = supervisor.list()[0]["listeners"][0].as_str().unwrap().to_owned();
    assert!(ask(&mut connect(&address).unwrap()).is_ok());
}

#[test]
fn an_adopted_worker_outlives_the_end_of_another() {
    let supervisor = Supervisor::new();
    let address = start(&supervisor, &server());
    let pid = supervisor.role("keeper");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    until("another keeper", || is_gone(pid));
    let before = supervisor.pids();
    // A child of the new keeper ends.
    supervisor.ok(&["scale", "api", "3"]);
    supervisor.ok(&["scale", "api", "2"]);
    assert_eq!(supervisor.pids(), before);
    assert!(ask(&mut connect(&address).unwrap()).is_ok());
}

#[test]
fn kill_also_ends_a_reload_in_progress() {
    let supervisor = Supervisor::new();
    let program = supervisor.home.path().join("app");
    symlink(server(), &program).unwrap();
    start(&supervisor, &program);
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\nexec sleep 100\n").unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&program).status().unwrap().success());
    let mut reload = supervisor.command(&["reload", "api"]).spawn().unwrap();
    // Scaling to the current number changes nothing, and is refused once the reload has begun.
    until("the replacement", || !supervisor.run(&["scale", "api", "2"]).status.success());
    supervisor.ok(&["kill"]);
    assert!(!reload.wait().unwrap().success());
}

#[test]
fn a_listener_that_systemd_has_kept_is_used_again() {
    let supervisor = Supervisor::new();
    let address = free();
    let program = server();
    let words = ["start", program.to_str().unwrap(), "--listen", &address, "--name", "api", "--listen-timeout", "10s"];
    supervisor.ok(&[&words[..], &["--", "--model", "current-thread"]].concat());
    let all = [supervisor.role("keeper"), supervisor.role("daemon"), supervisor.pids()[0]];
    ["STOP", "KILL"].iter().for_each(|name| all.iter().for_each(|pid| signal(name, *pid)));
    until("all have ended", || all.iter().all(|pid| is_gone(*pid)));
    // What systemd keeps; a client has come meanwhile.
    let listener = TcpListener::bind(&address).unwrap();
    let mut client = connect(&address).unwrap();
    std::io::Write::write_all(client.get_mut(), b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ exec \"$0\" keeper", env!("CARGO_BIN_EXE_supervisor-keeper")]);
    command.env("SUPERVISOR_HOME", supervisor.path()).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", address.replace(':', "%3A"));
    command.fd_mappings(vec![FdMapping { parent_fd: listener.into(), child_fd: 3 }]).unwrap();
    let mut keeper = command.stdout(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut answer = String::new();
    client.read_line(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n");
    supervisor.ok(&["kill"]);
    assert!(keeper.wait().unwrap().success());
}
