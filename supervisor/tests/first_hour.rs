//! What users of PM2 type in their first hour.

mod common;

use common::{Supervisor, has, program, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn what_a_file_sets_outlives_an_environment_of_the_shell() {
    let supervisor = Supervisor::new();
    let text = "[[app]]\nstart = \"sleep 1000\"\nname = \"web\"\nmin-uptime = \"10ms\"\n[app.env]\nPORT = 3000\n[app.env.production]\nMODE = \"prod\"\n";
    let file = program(&supervisor, "s.toml", text);
    let file = file.to_str().unwrap();
    supervisor.ok(&["start", file, "--env", "production"]);
    for command in ["restart", "reload"] {
        let output = supervisor.command(&[command, "web", "--update-env"]).env("OWN", command).env("PORT", "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let environment = supervisor.ok(&["env", "web", "--show"]);
        for line in ["PORT=3000", "MODE=prod", &format!("OWN={command}")] {
            assert_eq!(environment.lines().filter(|one| *one == line).count(), 1, "{line}: {environment}");
        }
        let changes = supervisor.ok(&["apply", file, "--env", "production", "--dry-run"]);
        assert!(!changes.contains("changed"), "{changes}");
    }
}

#[test]
fn a_python_program_writes_each_line_to_its_log_at_once() {
    if !has("python3") {
        return;
    }
    let supervisor = Supervisor::new();
    let text = "#!/usr/bin/env python3\nimport time\nprint('hello')\ntime.sleep(1000)\n";
    let file = program(&supervisor, "app.py", text);
    for name in ["plain", "executable"] {
        let start = ["start", file.to_str().unwrap(), "--name", name, "--min-uptime", "10ms"];
        let output = supervisor.command(&start).env_remove("PYTHONUNBUFFERED").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        until("its line is in the log", || supervisor.ok(&["logs", name, "--out"]).contains("hello"));
        assert_eq!(supervisor.ok(&["logs", name, "--err"]), "");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn an_empty_list_is_not_saved_unless_that_is_meant() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    supervisor.ok(&["save"]);
    supervisor.ok(&["delete", "app"]);
    assert!(supervisor.fails(&["save"]).contains("run `supervisor save --force`"));
    supervisor.ok(&["resurrect"]);
    assert_eq!(supervisor.list()[0]["name"], "app");
    supervisor.ok(&["delete", "app"]);
    supervisor.ok(&["save", "--force"]);
    supervisor.ok(&["resurrect"]);
    assert!(supervisor.list().is_empty());
    supervisor.ok(&["kill"]);
    supervisor.ok(&["save", "--force"]);
}

#[test]
fn what_is_called_otherwise_here_or_is_not_there_is_said_in_one_line() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let file = |name: &str| program(&supervisor, name, "").to_string_lossy().into_owned();
    let [toml, yaml, script, ecosystem] = ["s.toml", "process.yml", "app.ts", "ecosystem.config.js"].map(file);
    for (words, wanted) in [
        (vec!["restart", &toml], "s.toml is a file, and no app has that name: name an app"),
        (vec!["start", &yaml], "run `supervisor import"),
        (vec!["import", &yaml], "export the apps in a .cjs or .json file"),
        (vec!["start", &script], "name what runs it with --interpreter"),
        (vec!["start", &ecosystem, "--only", "x"], "run `supervisor import"),
        (vec!["start", "sleep 1 && sleep 2"], "start sh -- -c 'sleep 1 && sleep 2'"),
        (vec!["start", "PORT=1 sleep 1"], "write PORT=1 before supervisor"),
        (vec!["start", "sleep", "--kill-timeout", "5000"], "expected a unit: 5000ms"),
        (vec!["start", "sleep", "--log-date-format", "YYYY-MM-DD"], "expected a format of strftime"),
    ] {
        let said = supervisor.fails(&words);
        assert!(said.contains(wanted) && said.lines().count() == 1, "{words:?}: {said}");
    }
    assert!(supervisor.ok(&["l"]).contains("app"));
}

#[test]
fn an_executable_file_is_started_by_its_name_alone() {
    let supervisor = Supervisor::new();
    supervisor.script("app.sh", "exec sleep 1000");
    let here = supervisor.home.path();
    let start = |what: &str| supervisor.command(&["start", what]).current_dir(here).env("PWD", here).output().unwrap();
    let output = start("app.sh");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(supervisor.list()[0]["status"], "online");
    // Lines that end as on Windows name an interpreter that does not exist.
    let file = program(&supervisor, "crlf", "#!/bin/sh\r\nsleep 1000\r\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let said = String::from_utf8(start("./crlf").stderr).unwrap();
    assert!(said.contains("what its first line names, \"#!/bin/sh\", does not exist: its lines end as on Windows"), "{said}");
    let said = String::from_utf8(start(here.to_str().unwrap()).stderr).unwrap();
    assert!(said.contains("is a folder: name the program in it"), "{said}");
}
