//! Apps of a file in the foreground, as in a container.

mod common;

use common::{Supervisor, can_run, is_gone, signal, until};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn file(supervisor: &Supervisor, text: &str) -> PathBuf {
    let path = supervisor.home.path().join("supervisor.toml");
    fs::write(&path, text).unwrap();
    path
}

/// An app of a file that runs a line of a shell.
fn app(name: &str, line: &str, more: &str) -> String {
    format!("[[app]]\nstart = \"sh\"\nname = \"{name}\"\nmin-uptime = \"50ms\"\narguments = [\"-c\", \"{line}\"]\n{more}\n")
}

fn run(supervisor: &Supervisor, text: &str) -> Child {
    let path = file(supervisor, text);
    supervisor.command(&["run", path.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn everything_ends_with_the_command_and_its_last_words_are_printed() {
    let supervisor = Supervisor::new();
    let last = "trap 'echo goodbye; exit' TERM; echo hello; while :; do sleep 0.01; done";
    let mut run = run(&supervisor, &app("talker", last, ""));
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "0|talker out| hello");
    let app = supervisor.pids()[0];
    signal("TERM", i64::from(run.id()));
    assert_eq!(lines.collect::<Vec<_>>(), ["0|talker out| goodbye"]);
    assert!(run.wait().unwrap().success());
    assert!(is_gone(app));
}

#[test]
fn logs_are_printed_wherever_they_are() {
    let supervisor = Supervisor::new();
    let elsewhere = supervisor.home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let log = format!("log = \"{}\"", elsewhere.join("app.log").display());
    let mut run = run(&supervisor, &app("talker", "echo hello; exec sleep 1000", &log));
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "0|talker out| hello\n");
    signal("TERM", i64::from(run.id()));
    assert!(run.wait().unwrap().success());
}

#[test]
fn a_signal_ends_it_while_an_app_is_still_starting() {
    let supervisor = Supervisor::new();
    let mut run = run(&supervisor, &app("slow", "exec sleep 1000", "listen = [\"127.0.0.1:0\"]\nlisten-timeout = \"1h\""));
    until("the app has a process", || supervisor.pids().len() == 1);
    let app = supervisor.pids()[0];
    signal("TERM", i64::from(run.id()));
    assert!(run.wait().unwrap().success());
    assert!(is_gone(app));
}

#[test]
fn beside_a_supervisor_that_runs_it_is_refused_and_ends_nothing() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let before = supervisor.pids();
    let mut run = run(&supervisor, &app("other", "exec sleep 1000", ""));
    assert!(!run.wait().unwrap().success());
    let mut said = String::new();
    run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("supervisor apply") && said.lines().count() == 1, "{said}");
    assert_eq!(supervisor.pids(), before);
}

#[test]
fn what_a_killed_container_has_left_in_the_list_is_not_started() {
    let supervisor = Supervisor::new();
    let mut first = run(&supervisor, &[app("old", "exec sleep 1000", ""), app("both", "exec sleep 1000", "")].concat());
    until("both are online", || supervisor.list().iter().filter(|one| one["status"] == "online").count() == 2);
    let (keeper, daemon) = (supervisor.role("keeper"), supervisor.role("daemon"));
    let all: Vec<i64> = supervisor.pids().into_iter().chain([i64::from(first.id()), keeper, daemon]).collect();
    all.iter().for_each(|pid| signal("STOP", *pid));
    all.iter().for_each(|pid| signal("KILL", *pid));
    first.wait().unwrap();
    // Until then, the next one finds that a supervisor runs.
    until("all have ended", || [keeper, daemon].into_iter().all(is_gone));
    let mut second =
        run(&supervisor, &[app("both", "exec sleep 1000", ""), app("new", "echo hello; exec sleep 1000", "")].concat());
    // A command that came earlier would start a supervisor itself.
    let mut lines = BufReader::new(second.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("new out| hello")));
    let list = supervisor.list();
    assert_eq!(list.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["both", "new"]);
    let events = supervisor.ok(&["events", "old"]);
    assert_eq!(events.matches("started: process").count(), 1, "{events}");
    signal("TERM", i64::from(second.id()));
    assert!(second.wait().unwrap().success());
}

#[test]
fn the_exit_code_is_that_of_the_first_app_that_is_given_up() {
    let supervisor = Supervisor::new();
    let more = "max-restarts = 1\nrestart-delay = \"1ms\"";
    let ends = |text: &str| run(&supervisor, text).wait().unwrap().code();
    assert_eq!(ends(&app("bad", "sleep 0.1; exit 5", more)), Some(5));
    assert_eq!(ends(&app("job", "sleep 0.1", "no-autorestart = true")), Some(0));
    assert_eq!(ends(&app("job", "sleep 0.1; exit 3", "no-autorestart = true")), Some(3));
    let program = supervisor.home.path().join("job");
    fs::write(&program, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    // As a shell says that a program cannot be run.
    assert_eq!(ends(&format!("[[app]]\nstart = \"{}\"\nno-autorestart = true\n", program.display())), Some(127));
}

#[test]
fn ctrl_c_in_a_terminal_loses_no_last_words() {
    let supervisor = Supervisor::new();
    let last = "trap 'echo goodbye; exit' TERM; echo hello; while :; do sleep 0.01; done";
    let path = file(&supervisor, &app("talker", last, ""));
    // A terminal sends it to all processes of the foreground.
    let mut command = supervisor.command(&["run", path.to_str().unwrap()]);
    let mut run = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "0|talker out| hello");
    signal("INT", -i64::from(run.id()));
    assert_eq!(lines.collect::<Vec<_>>(), ["0|talker out| goodbye"]);
    assert!(run.wait().unwrap().success());
}

#[test]
fn what_a_short_job_says_is_printed() {
    for _ in 0..5 {
        let supervisor = Supervisor::new();
        let output = run(&supervisor, &app("job", "echo done", "no-autorestart = true")).wait_with_output().unwrap();
        // The number of an instance that has gone is not known any more.
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(["0|job out| done\n", "job-0-out| done\n"].contains(&&*said), "{said}");
    }
}

#[test]
fn a_job_with_a_time_of_its_own_is_not_over_when_it_has_ended() {
    let supervisor = Supervisor::new();
    let mut run = run(&supervisor, &app("job", "echo tick", "no-autorestart = true\ncron = \"* * * * * *\""));
    let lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.take(3).filter(|line| line.ends_with("| tick")).count(), 3);
    signal("TERM", i64::from(run.id()));
    assert!(run.wait().unwrap().success());
}

#[test]
fn all_of_what_a_job_says_is_printed_however_much_that_is() {
    let supervisor = Supervisor::new();
    let output =
        run(&supervisor, &app("job", "seq 1 300000; echo the last", "no-autorestart = true")).wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("| the last\n"), "{}", said.lines().last().unwrap_or_default());
    assert_eq!(said.lines().count(), 300_001);
}

#[test]
fn it_ends_when_another_command_ends_everything() {
    let supervisor = Supervisor::new();
    let mut run = run(&supervisor, &app("web", "exec sleep 1000", ""));
    until("it waits for the end", || supervisor.list().first().is_some_and(|one| one["status"] == "online"));
    supervisor.ok(&["kill"]);
    assert!(run.wait().unwrap().success());
    assert!(!supervisor.path().join("control.sock").exists(), "no other supervisor was started");
}

#[test]
fn it_goes_on_when_keeper_and_daemon_have_both_died() {
    let supervisor = Supervisor::new();
    let mut run = run(&supervisor, &app("web", "exec sleep 1000", ""));
    until("it is online", || supervisor.list().first().is_some_and(|one| one["status"] == "online"));
    for _ in 0..3 {
        let all = [supervisor.role("daemon"), supervisor.role("keeper")];
        all.iter().for_each(|pid| signal("KILL", *pid));
        until("others have taken their place", || {
            let table = supervisor.run(&["list", "--json"]);
            table.status.success()
                && supervisor.list().first().is_some_and(|one| one["status"] == "online")
                && all.into_iter().all(is_gone)
        });
    }
    assert_eq!(run.try_wait().unwrap(), None);
    signal("TERM", i64::from(run.id()));
    assert!(run.wait().unwrap().success());
}

/// Runs a file as the first process of a namespace, as in a container; `None`, said aloud, where that cannot be.
fn run_first(supervisor: &Supervisor, text: &str) -> Option<Child> {
    let namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"];
    let can = || Command::new("unshare").args(namespaces).arg("true").output().is_ok_and(|output| output.status.success());
    if !can_run(can(), "this user cannot make namespaces") {
        return None;
    }
    let path = file(supervisor, text);
    let mut command = Command::new("unshare");
    command.args(namespaces).args([env!("CARGO_BIN_EXE_supervisor"), "run"]).arg(path);
    Some(command.env("SUPERVISOR_HOME", supervisor.path()).stdout(Stdio::piped()).spawn().unwrap())
}

/// The children of a process.
fn children(pid: &str) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn as_the_first_process_it_reaps_orphans_and_ends_with_the_exit_code_of_what_is_given_up() {
    let supervisor = Supervisor::new();
    let go = supervisor.home.path().join("go");
    let line = format!("echo up; while ! [ -e {} ]; do sleep 0.01; done; exit 5", go.display());
    let Some(mut run) = run_first(&supervisor, &app("bad", &line, "max-restarts = 1\nrestart-delay = \"1ms\"")) else { return };
    let mut said = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "0|bad out| up\n");
    let first = children(&run.id().to_string()).remove(0);
    let own = children(&first);
    // Orphans of another parent than the keeper become children of the first process, and end.
    let orphan = "for i in 1 2 3; do (sh -c 'echo $$; exec sleep 0.05' &); done";
    let enter = ["--target", &first, "--pid", "--mount", "sh", "-c", orphan];
    let entered = Command::new("nsenter").args(enter).output().unwrap();
    assert_eq!(String::from_utf8(entered.stdout).unwrap().lines().count(), 3);
    until("none of them is left, not even as a zombie", || children(&first) == own);
    fs::write(&go, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(5));
}

#[test]
fn as_the_first_process_it_ends_in_order_when_it_is_told_to() {
    let supervisor = Supervisor::new();
    let last = "trap 'echo goodbye; exit' TERM; echo hello; while :; do sleep 0.01; done";
    let Some(mut run) = run_first(&supervisor, &app("talker", last, "")) else { return };
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "0|talker out| hello");
    signal("TERM", children(&run.id().to_string())[0].parse().unwrap());
    assert_eq!(lines.collect::<Vec<_>>(), ["0|talker out| goodbye"]);
    assert_eq!(run.wait().unwrap().code(), Some(0));
}
