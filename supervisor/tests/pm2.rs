//! What PM2's users type, and what follows from it.

mod common;

use common::load::Load;
use common::{Supervisor, free, has, is_gone, is_root, server, signal, start, until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Every user may run it, unlike one in the folder of another user.
const PYTHON: &str = "/usr/bin/python3";

fn status<'l>(list: &'l [Value], name: &str) -> &'l str {
    let one = list.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not in the list"));
    one["status"].as_str().unwrap()
}

#[test]
fn a_job_that_has_ended_is_not_started_again() {
    let supervisor = Supervisor::new();
    for (name, options, code) in
        [("once", &["--no-autorestart"][..], 7), ("fine", &["--on-failure"], 0), ("coded", &["--stop-exit-codes", "3,4"], 4)]
    {
        let exit = format!("exit {code}");
        let words = [&["start", "sh", "--name", name], options, &["--", "-c", &exit]].concat();
        supervisor.ok(&words);
        let list = supervisor.list();
        assert_eq!(status(&list, name), "stopped");
        assert_eq!(list.last().unwrap()["last_end"], format!("exited with {code}"));
        assert_eq!(list.last().unwrap()["restarts"], 0);
        let generation = |list: &[Value]| list.last().unwrap()["generation"].as_u64().unwrap();
        supervisor.ok(&["reload", name]);
        assert_eq!(generation(&supervisor.list()), generation(&list) + 1);
    }
    supervisor.fails(&[
        "start",
        "sh",
        "--name",
        "bad",
        "--on-failure",
        "--max-restarts",
        "2",
        "--restart-delay",
        "1ms",
        "--",
        "-c",
        "exit 1",
    ]);
    until("it is given up", || status(&supervisor.list(), "bad") == "errored");
    supervisor.ok(&["start", "once"]);
}

#[test]
fn a_job_that_cannot_even_be_run_fails_with_the_reason() {
    let supervisor = Supervisor::new();
    let program = supervisor.home.path().join("job");
    fs::write(&program, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let said = supervisor.fails(&["start", program.to_str().unwrap(), "--no-autorestart"]);
    assert!(said.contains("what its first line names, \"#!/no/such/interpreter\", does not exist"), "{said}");
    assert_eq!(supervisor.list()[0]["restarts"], 0);
    fs::write(&program, "#!/bin/sh\n").unwrap();
    assert_eq!(supervisor.ok(&["start", "job"]), "job has run to its end\n");
}

#[test]
fn a_job_that_is_not_ready_in_time_is_given_up_instead_of_started_again() {
    let supervisor = Supervisor::new();
    let words = ["start", "sh", "--name", "job", "--no-autorestart", "--ready-when", "log:never", "--listen-timeout", "200ms"];
    let said = supervisor.fails(&[&words[..], &["--", "-c", "echo it ran; exec sleep 1000"]].concat());
    assert!(said.contains("within 200ms"), "{said}");
    assert_eq!(status(&supervisor.list(), "job"), "errored");
    assert_eq!(supervisor.ok(&["logs", "job"]).matches("it ran").count(), 1);
}

#[test]
fn each_stream_goes_to_the_file_that_is_named_for_it() {
    let supervisor = Supervisor::new();
    let folder = supervisor.home.path();
    let [out, second] = ["app.log", "app-1.log"].map(|name| folder.join("made/for it").join(name));
    let words = ["start", "sh", "-i", "2", "--name", "app", "-o", "made/for it/app.log", "-e", "/dev/null", "--", "-c"];
    let script = "echo $NODE_APP_INSTANCE; echo lost >&2; exec sleep 1000";
    let mut command = supervisor.command(&words);
    command.arg(script).current_dir(folder);
    assert!(command.output().unwrap().status.success());
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    until("both have written", || (read(&out).as_str(), read(&second).as_str()) == ("0\n", "1\n"));
    assert!(!supervisor.ok(&["logs"]).contains("lost"));
    supervisor.fails(&["start", "sleep 9", "--log", "all.log", "-o", "out.log"]);
}

#[test]
fn patterns_and_namespaces_name_several_apps() {
    let supervisor = Supervisor::new();
    for (name, space) in [("api-one", "web"), ("api-two", "jobs"), ("other", "web")] {
        supervisor.ok(&["start", "sleep 1000", "--name", name, "--namespace", space, "--min-uptime", "10ms"]);
    }
    supervisor.ok(&["stop", "api-*"]);
    let list = supervisor.list();
    assert_eq!([status(&list, "api-one"), status(&list, "api-two"), status(&list, "other")], ["stopped", "stopped", "online"]);
    supervisor.ok(&["restart", "web"]);
    let list = supervisor.list();
    assert_eq!([status(&list, "api-one"), status(&list, "api-two"), status(&list, "other")], ["online", "stopped", "online"]);
    assert!(supervisor.fails(&["stop", "x*"]).contains("there is no app or id 'x*'"));
}

#[test]
fn small_commands_do_what_they_say() {
    let supervisor = Supervisor::new();
    let own = free();
    assert!(supervisor.ok(&["ping"]).starts_with("pong: keeper "));
    let mut begin = supervisor.command(&["start", "sh", "--name", "app", "--min-uptime", "50ms", "--nice", "5", "--", "-c"]);
    begin.arg("trap 'echo reopened' USR2; while :; do sleep 0.02; done").env("DB_PASSWORD", "hush").env("OWN", &own);
    assert!(begin.status().unwrap().success());
    let pid = supervisor.pids()[0];
    assert_eq!(supervisor.ok(&["pid", "app"]), format!("{pid}\n"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').nth(16), Some("5"), "{stat}");
    assert!(supervisor.ok(&["unstartup"]).contains("disable --now stallbench-supervisor.service\n"));
    supervisor.ok(&["send-signal", "SIGUSR2", "app"]);
    until("it has come", || supervisor.ok(&["logs", "app"]).contains("reopened"));
    assert_eq!(supervisor.pids()[0], pid);
    let environment = supervisor.ok(&["env", "app"]);
    assert!(environment.contains("DB_PASSWORD=***") && environment.contains(&format!("OWN={own}")), "{environment}");
    assert!(supervisor.ok(&["env", "app", "--show"]).contains("DB_PASSWORD=hush"));
    signal("KILL", pid);
    until("it is counted", || supervisor.list()[0]["restarts"] == 1);
    supervisor.ok(&["reset", "app"]);
    assert_eq!(supervisor.list()[0]["restarts"], 0);
    assert!(supervisor.ok(&["completion", "bash"]).contains("supervisor"));
    supervisor.ok(&["start", "sh", "--name", "app", "-f", "--min-uptime", "50ms", "--", "-c", "exec sleep 1000"]);
    assert_eq!(status(&supervisor.list(), "app-2"), "online");
    let metrics = supervisor.ok(&["metrics"]);
    assert!(metrics.contains("supervisor_instance_online{app=\"app-2\",id=\"1\"} 1"), "{metrics}");
}

#[test]
fn several_apps_are_told_of_in_the_plural_and_flags_of_pm2s_that_change_nothing_are_taken() {
    let supervisor = Supervisor::new();
    for name in ["a", "b"] {
        supervisor.ok(&["start", "sleep 1000", "--name", name, "--namespace", "web", "--min-uptime", "10ms"]);
    }
    assert_eq!(supervisor.ok(&["stop", "web"]), "a, b were stopped\n");
    assert_eq!(supervisor.ok(&["start", "web"]), "a is online; b is online\n");
    supervisor.ok(&["save", "--force"]);
    supervisor.ok(&["logs", "web", "--nostream"]);
    assert_eq!(supervisor.ok(&["delete", "all"]), "a, b were deleted\n");
}

#[test]
fn what_happens_is_kept_with_its_time() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    signal("KILL", supervisor.pids()[0]);
    until("another", || supervisor.list()[0]["restarts"] == 1 && status(&supervisor.list(), "app") == "online");
    supervisor.ok(&["stop", "app"]);
    let events = supervisor.ok(&["events"]);
    for what in [
        "app (0) started: process",
        "app (0) ready",
        "app (0) ended: killed by SIGKILL",
        "app is online",
        "app (0) stopped",
        "app was stopped",
    ] {
        assert!(events.contains(what), "{what}: {events}");
    }
    let last = supervisor.ok(&["events", "app", "--lines", "1", "--json"]);
    let event: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&event["app"], &event["what"]), (&"app".into(), &"was stopped".into()));
    let mut follow = supervisor.command(&["events", "--follow", "--lines", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (found, is_found) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || lines.filter(|line| line.contains("app (0)")).for_each(|line| _ = found.send(line)));
    // Nothing tells when it has begun to follow.
    until("it follows", || {
        supervisor.ok(&["start", "app"]);
        supervisor.ok(&["stop", "app"]);
        is_found.try_recv().is_ok()
    });
    follow.kill().unwrap();
    follow.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn the_events_of_a_namespace_end_with_the_deletion_of_its_apps() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--namespace", "web", "--min-uptime", "10ms"]);
    supervisor.ok(&["delete", "web"]);
    let events = supervisor.ok(&["events", "web"]);
    assert!(events.trim_end().ends_with("app was deleted"), "{events}");
}

#[test]
fn metrics_are_served_over_http() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let address = free();
    let mut served = supervisor.command(&["metrics", "--listen", &address]).spawn().unwrap();
    let ask = |path: &str| -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(&address)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    until("it answers", || {
        ask("/metrics")
            .is_ok_and(|text| text.starts_with("HTTP/1.1 200") && text.contains("supervisor_instance_online{app=\"app\""))
    });
    assert!(ask("/").unwrap().starts_with("HTTP/1.1 404"));
    served.kill().unwrap();
    served.wait().unwrap();
}

#[test]
fn the_supervisor_replaces_itself_and_clients_do_not_notice() {
    let supervisor = Supervisor::new();
    let address = start(&supervisor, &server());
    let (before, own) = (supervisor.pids(), [supervisor.role("keeper"), supervisor.role("daemon")]);
    let load = Load::start(&address);
    load.answers_more();
    supervisor.ok(&["update"]);
    assert!(own.iter().all(|pid| is_gone(*pid)));
    assert_eq!(supervisor.pids(), before);
    assert_eq!(supervisor.listed()["remarks"], serde_json::json!([]), "nothing has gone wrong");
    assert!(![supervisor.role("keeper"), supervisor.role("daemon")].iter().any(|pid| own.contains(pid)));
    load.answers_more();
    supervisor.ok(&["reload", "api"]);
    load.answers_more();
    assert_eq!(load.stop().0, [""; 0]);
}

#[test]
fn files_run_in_the_interpreter_of_their_ending() {
    let supervisor = Supervisor::new();
    let path = supervisor.home.path().join("job.sh");
    fs::write(&path, "echo \"in bash $BASH_VERSION\"; exec sleep 1000\n").unwrap();
    supervisor.ok(&["start", path.to_str().unwrap(), "--min-uptime", "50ms"]);
    until("it is bash", || supervisor.ok(&["logs", "job"]).contains("in bash 5"));
    assert!(
        supervisor
            .fails(&["start", path.to_str().unwrap(), "--name", "plain", "--interpreter", "none"])
            .contains("is not executable")
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    supervisor.ok(&["start", path.to_str().unwrap(), "--name", "named", "--interpreter", "sh -e", "--min-uptime", "50ms"]);
    assert_eq!(supervisor.list().last().unwrap()["command"][1], "-e");
}

#[test]
fn after_a_restart_of_the_system_nothing_starts_by_itself() {
    let supervisor = Supervisor::new();
    for name in ["saved", "stopped", "unsaved"] {
        supervisor.ok(&["start", "sleep 1000", "--name", name, "--min-uptime", "10ms"]);
        if name == "stopped" {
            supervisor.ok(&["stop", "stopped"]);
            supervisor.ok(&["save"]);
        }
    }
    // As if the power had failed: everything is gone, and the kernel counts anew.
    let pids = [supervisor.role("keeper"), supervisor.role("daemon")];
    pids.iter().for_each(|pid| signal("STOP", *pid));
    let state = supervisor.path().join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    let apps: Vec<i64> = serde_json::from_str::<Value>(&text).unwrap()["apps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|app| app["instances"][0]["processes"][0]["pid"].as_i64())
        .collect();
    pids.iter().for_each(|pid| signal("KILL", *pid));
    apps.iter().for_each(|pid| signal("KILL", *pid));
    until("all is gone", || pids.iter().chain(&apps).all(|pid| is_gone(*pid)));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&state, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
    let list = supervisor.list();
    assert!(list.iter().all(|one| one["status"] == "stopped"), "{list:?}");
    assert!(supervisor.listed()["remarks"].to_string().contains("the system was restarted"));
    supervisor.ok(&["resurrect"]);
    let list = supervisor.list();
    assert_eq!([status(&list, "saved"), status(&list, "stopped"), status(&list, "unsaved")], ["online", "stopped", "stopped"]);
    // What was deleted since does not come back when systemd starts the supervisor once more.
    supervisor.ok(&["delete", "saved"]);
    signal("KILL", supervisor.role("daemon"));
    assert!(supervisor.ok(&["resurrect", "--boot"]).contains("continues with the list"));
    assert!(!supervisor.list().iter().any(|one| one["name"] == "saved"));
}

#[test]
fn a_job_with_a_schedule_starts_again_when_its_time_has_come() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sh", "--name", "job", "--no-autorestart", "--cron", "* * * * * *", "--", "-c", "echo it ran"]);
    let runs = || supervisor.ok(&["logs", "job", "--lines", "100"]).matches("it ran").count();
    until("it ran three times", || runs() >= 3);
    assert_eq!(supervisor.list()[0]["restarts"], 0);
    supervisor.ok(&["stop", "job"]);
    let said = supervisor.fails(&["start", "sleep 1", "--cron", "61 * * * *"]);
    assert!(said.contains("'61 * * * *' is not a pattern such as '0 3 * * *'"), "{said}");
}

#[test]
fn an_app_runs_as_the_user_that_it_asks_for_and_says_that_it_is_ready() {
    let supervisor = Supervisor::new();
    if !nix::unistd::geteuid().is_root() {
        let said = supervisor.fails(&["start", "sleep 1000", "--uid", "0"]);
        return assert!(said.contains("only root can start processes as another user"), "{said}");
    }
    if !has(PYTHON) {
        return;
    }
    let text = "import os, socket, sys, time
print(os.getuid(), os.getgid(), os.environ['USER'], flush=True)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])
notify.send(b'READY=1')
time.sleep(1000)
";
    let path = supervisor.home.path().join("app.py");
    fs::write(&path, text).unwrap();
    fs::set_permissions(supervisor.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["start", path.to_str().unwrap(), "--interpreter", PYTHON, "--uid", "nobody", "--cwd", "/"];
    supervisor.ok(&[&words[..], &["--listen", &free(), "--listen-timeout", "10s"]].concat());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let said = supervisor.ok(&["logs", "app"]);
    assert!(said.contains(&format!("{} {} nobody", nobody.uid, nobody.gid)), "{said}");
    // It is known and swept by its mark as any other.
    signal("KILL", supervisor.role("keeper"));
    until("another keeper has it", || supervisor.list()[0]["status"] == "online");
    let said = supervisor.fails(&["start", "sleep 1000", "--uid", "no-such-user"]);
    assert!(said.contains("there is no user no-such-user"), "{said}");
}

/// Sends a message to a notify socket without a file, as another user, and ends.
fn notify_as(user: u32, socket: &str, text: &str) {
    let script = "import socket, sys
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), '\\0' + sys.argv[1][1:])";
    let mut command = Command::new(PYTHON);
    command.args(["-c", script, socket, text]).uid(user).gid(user).current_dir("/");
    assert!(command.status().unwrap().success());
}

#[test]
fn nobody_else_can_take_the_notify_socket_of_another_users_app_or_speak_for_it() {
    if !is_root() || !has(PYTHON) {
        return;
    }
    let supervisor = Supervisor::new();
    let [user, other] = ["nobody", "daemon"].map(|name| nix::unistd::User::from_name(name).unwrap().unwrap().uid.as_raw());
    let guessed = SocketAddr::from_abstract_name(supervisor.path().join("notify/0-1").as_os_str().as_encoded_bytes()).unwrap();
    let _taken = UnixDatagram::bind_addr(&guessed).unwrap();
    let words = ["start", "sleep 1000", "--name", "app", "--uid", "nobody", "--cwd", "/"];
    let mut start = supervisor.command(&[&words[..], &["--listen", &free(), "--listen-timeout", "1h"]].concat()).spawn().unwrap();
    let is_user = |pid: &i64| fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == user);
    until("it runs", || supervisor.pids().first().is_some_and(is_user));
    let environment = fs::read_to_string(format!("/proc/{}/environ", supervisor.pids()[0])).unwrap();
    let socket = environment.split('\0').find_map(|one| one.strip_prefix("NOTIFY_SOCKET=")).unwrap();
    let keeper = supervisor.role("keeper");
    // When the keeper reads a message, its sender has ended: a helper may.
    let say = |all: [(u32, &str); 2]| {
        signal("STOP", keeper);
        all.iter().for_each(|(user, text)| notify_as(*user, socket, text));
        signal("CONT", keeper);
    };
    say([(other, "READY=1"), (user, "STATUS=its own")]);
    until("both were read", || supervisor.list()[0]["says"] == "its own");
    assert_eq!(supervisor.list()[0]["status"], "launching");
    say([(other, "STATUS=forged"), (user, "READY=1")]);
    assert!(start.wait().unwrap().success());
    assert_eq!(supervisor.list()[0]["says"], "its own");
}
