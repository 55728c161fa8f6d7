//! Commands, options and files, as a user types them.

mod common;

use common::{Supervisor, free, server, signal, start, until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

#[test]
fn resurrect_starts_saved_apps() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    supervisor.ok(&["save"]);
    supervisor.ok(&["kill"]);
    assert_eq!(supervisor.list(), [Value::Null; 0]);
    supervisor.ok(&["resurrect"]);
    assert_eq!(supervisor.list().len(), 2);
    assert!(supervisor.ok(&["resurrect"]).contains("all saved apps are already in the list"));
}

#[test]
fn resurrect_leaves_those_instances_stopped_that_were_stopped_when_they_were_saved() {
    let supervisor = Supervisor::new();
    let states = || supervisor.list().iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "-i", "3", "--min-uptime", "10ms"]);
    supervisor.ok(&["stop", "1"]);
    supervisor.ok(&["save"]);
    supervisor.ok(&["kill"]);
    supervisor.ok(&["resurrect"]);
    assert_eq!(states(), ["online", "stopped", "online"]);
    supervisor.ok(&["start", "app"]);
    assert_eq!(states(), ["online"; 3]);
}

/// Saves an app and starts it as at boot, while somebody else has its address.
fn boot_without_its_address(supervisor: &Supervisor) -> TcpListener {
    let address = free();
    let words = ["start", "sh", "--name", "app", "--listen", &address, "--ready-when", "log:up"];
    supervisor.ok(&[&words[..], &["--", "-c", "echo up; exec sleep 1000"]].concat());
    supervisor.ok(&["save"]);
    supervisor.ok(&["kill"]);
    let taken = TcpListener::bind(&address).unwrap();
    supervisor.ok(&["resurrect", "--boot"]);
    until("it waits for its address", || supervisor.listed()["remarks"].to_string().contains("cannot listen on"));
    taken
}

#[test]
fn what_waits_for_its_address_is_started_by_the_next_daemon_too_unless_it_is_stopped() {
    let supervisor = Supervisor::new();
    let taken = boot_without_its_address(&supervisor);
    let status = || supervisor.list()[0]["status"].clone();
    assert_eq!(status(), "waiting restart");
    let next_daemon = || {
        let daemon = supervisor.role("daemon");
        signal("KILL", daemon);
        until("there is another daemon", || supervisor.role("daemon") != daemon);
    };
    next_daemon();
    assert_eq!(status(), "waiting restart");
    supervisor.ok(&["stop", "app"]);
    next_daemon();
    assert_eq!(status(), "stopped");
    drop(taken);
    supervisor.ok(&["start", "app"]);
    assert_eq!(status(), "online");
}

#[test]
fn what_waits_for_its_address_when_it_is_saved_is_not_saved_as_stopped() {
    let supervisor = Supervisor::new();
    let taken = boot_without_its_address(&supervisor);
    supervisor.ok(&["save"]);
    supervisor.ok(&["kill"]);
    drop(taken);
    supervisor.ok(&["resurrect"]);
    assert_eq!(supervisor.list()[0]["status"], "online");
}

#[test]
fn resurrect_starts_no_job_that_was_finished_when_it_was_saved_and_a_scheduled_one_is_due_again() {
    let supervisor = Supervisor::new();
    let ran = supervisor.home.path().join("ran");
    let job = format!("echo x >> {}", ran.display());
    let times = || fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
    supervisor.ok(&["start", "sh", "--name", "job", "--no-autorestart", "--cron", "* * * * * *", "--", "-c", &job]);
    supervisor.ok(&["start", "sh", "--name", "once", "--no-autorestart", "--", "-c", &job]);
    until("the scheduled job has run again", || times() >= 4);
    supervisor.ok(&["save"]);
    supervisor.ok(&["kill"]);
    let before = times();
    supervisor.ok(&["resurrect"]);
    until("the scheduled job goes on", || times() >= before + 2);
    let once = supervisor.list().into_iter().find(|one| one["name"] == "once").unwrap();
    assert_eq!((&once["status"], &once["pid"]), (&Value::from("stopped"), &Value::Null));
}

#[test]
fn a_hanging_client_does_not_affect_others() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    let control = supervisor.path().join("control.sock");
    let mut hanging: Vec<_> = (0..10).map(|_| std::os::unix::net::UnixStream::connect(&control).unwrap()).collect();
    hanging[0].write_all(b"{\"start\":").unwrap();
    hanging[1].write_all(b"nonsense\n").unwrap();
    let mut answer = String::new();
    BufReader::new(&hanging[1]).read_line(&mut answer).unwrap();
    assert!(answer.contains("error"), "{answer}");
    assert_eq!(supervisor.list().len(), 2);
    assert!(supervisor.fails(&[]).contains("Commands:\n  start"));
}

#[test]
fn errors_are_one_line() {
    let supervisor = Supervisor::new();
    assert!(supervisor.fails(&["reload", "api"]).ends_with(": run `supervisor start`\n"));
    let address = start(&supervisor, &server());
    let text = supervisor.home.path().join("text");
    fs::write(&text, "").unwrap();
    let text = text.to_str().unwrap();
    let ecosystem = supervisor.home.path().join("ecosystem.config.js");
    fs::write(&ecosystem, "module.exports = { apps: [] }").unwrap();
    let ecosystem = ecosystem.to_str().unwrap();
    for (arguments, expected) in [
        (&["stop", "apy"][..], "there is no app or id 'apy'; did you mean api?"),
        (&["show", "7"], "there is no app or id '7'"),
        (&["logs", "x"], "the apps are: api\n"),
        (&["start", "nosuch"], "there is no command 'nosuch'"),
        (&["start", "nosuch.js"], "there is no file or command named nosuch.js"),
        (&["start", ecosystem], "is an ecosystem file of PM2's: run `supervisor import"),
        (&["start", text], "is not executable"),
        (&["start", "sleep", "--kill-timeout", "9999days", "--", "9"], "expected at most a day"),
        (&["start", "sleep", "--listen", "nowhere", "--", "9"], "is not an address such as 127.0.0.1:8080"),
        (&["start", "sleep", "-i", "many", "--", "9"], "expected a number from 1 to 1000"),
        (&["start", "sleep", "--name", "api", "--", "9"], "api is in the list already"),
        (&["start", "sleep", "--name", "a/b", "--", "9"], "is not a valid name"),
        (
            &["start", "sleep", "--listen", "127.0.0.1:0", "--", "9"],
            "api already listens on 127.0.0.1:0, at a port that the system has chosen",
        ),
        (&["start", "sleep", "--listen", &address, "--name", "other", "--", "9"], "cannot listen on"),
        (&["start", "nosuch.toml"], "cannot read nosuch.toml"),
        (&["start", "sleep", "--env", "production", "--", "9"], "sleep is not one"),
        (
            &["start", "sleep", "--nonsense"],
            "unexpected argument '--nonsense' found; what is for the app goes after --; see --help",
        ),
        (&["start"], "the following required arguments were not provided: <WHAT>; see --help"),
        (&["scale", "api", "x"], "expected a number of instances"),
        (&["scale", "api", "-9"], "cannot have -7 instances"),
    ] {
        let said = supervisor.fails(arguments);
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    assert_eq!(supervisor.list().len(), 2);
}

#[test]
fn a_folder_open_to_other_users_is_refused() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    assert!(Command::new("chmod").arg("755").arg(supervisor.path()).status().unwrap().success());
    assert!(supervisor.fails(&["list"]).contains("is open to other users"));
    assert!(Command::new("chmod").arg("700").arg(supervisor.path()).status().unwrap().success());
}

#[test]
fn a_watched_app_is_reloaded_when_its_program_is_replaced() {
    let supervisor = Supervisor::new();
    let program = supervisor.home.path().join("app");
    fs::copy(server(), &program).unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--watch", "--", "--model", "current-thread"];
    supervisor.ok(&[&["start", program.to_str().unwrap()], &arguments[..]].concat());
    let before = supervisor.pids();
    let new = program.with_extension("new");
    fs::copy(server(), &new).unwrap();
    fs::rename(&new, &program).unwrap();
    until("another process", || supervisor.list()[0]["status"] == "online" && supervisor.pids() != before);
}

#[test]
fn a_watched_script_is_reloaded_when_it_is_written() {
    let supervisor = Supervisor::new();
    let script = supervisor.home.path().join("app.sh");
    fs::write(&script, "exec sleep 1000\n").unwrap();
    supervisor.ok(&["start", script.to_str().unwrap(), "--watch", "--min-uptime", "10ms"]);
    let before = supervisor.pids();
    fs::write(&script, "exec sleep 2000\n").unwrap();
    until("another process", || supervisor.list()[0]["status"] == "online" && supervisor.pids() != before);
}

#[test]
fn a_watched_program_is_followed_into_a_folder_that_is_made_anew_and_over_a_link_that_moves() {
    let supervisor = Supervisor::new();
    let folder = supervisor.home.path();
    let release = |name: &str, text: &str| {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("app.sh"), text).unwrap();
    };
    let leads_to = |name: &str| {
        let _ = fs::remove_file(folder.join("current"));
        std::os::unix::fs::symlink(name, folder.join("current")).unwrap();
    };
    release("1", "exec sleep 1000\n");
    leads_to("1");
    // It works in its folder, so that this is still in use when it was removed.
    let (program, cwd) = (folder.join("current/app.sh"), folder.join("1"));
    let [program, cwd] = [&program, &cwd].map(|path| path.to_str().unwrap());
    supervisor.ok(&["start", program, "--cwd", cwd, "--watch", "--min-uptime", "10ms"]);
    let is_another = |before: &[i64]| supervisor.list()[0]["status"] == "online" && supervisor.pids() != before;
    let before = supervisor.pids();
    fs::remove_dir_all(folder.join("1")).unwrap();
    release("1", "exec sleep 2000\n");
    until("another process, of the new folder", || is_another(&before));
    let before = supervisor.pids();
    release("1", "exec sleep 3000\n");
    until("another process, of a change there", || is_another(&before));
    release("2", "exec sleep 4000\n");
    leads_to("2");
    until("the reload before is done", || supervisor.run(&["reload", "app"]).status.success());
    let before = supervisor.pids();
    release("2", "exec sleep 5000\n");
    until("another process, where the link leads to", || is_another(&before));
}

#[test]
fn an_app_that_uses_too_much_memory_is_replaced() {
    let supervisor = Supervisor::new();
    let arguments = ["--listen", "127.0.0.1:0", "--max-memory-restart", "1M", "--", "--model", "current-thread"];
    supervisor.ok(&[&["start", server().to_str().unwrap()], &arguments[..]].concat());
    let before = supervisor.pids();
    until("another process", || supervisor.list()[0]["status"] == "online" && supervisor.pids() != before);
}

#[test]
fn an_ecosystem_file_starts_several_apps() {
    let supervisor = Supervisor::new();
    let file = supervisor.home.path().join("supervisor.toml");
    let text = format!(
        "[[app]]\nstart = \"{}\"\nname = \"api\"\ninstances = 2\nlisten = [\"127.0.0.1:0\"]\narguments = [\"--model\", \"current-thread\"]\n\
         [[app]]\nstart = \"sleep 1000\"\nmin_uptime = \"50ms\"\n",
        server().display()
    );
    fs::write(&file, text).unwrap();
    supervisor.ok(&["start", file.to_str().unwrap()]);
    let names: Vec<Value> = supervisor.list().into_iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["api", "api", "sleep"]);
}
