//! What ends with an app and with the supervisor, and what does not.

mod common;

use common::{Supervisor, can_run, is_gone, signal, until};
use rustix::process::geteuid;
use std::fs;
use std::process::Command;

#[test]
fn a_process_whose_name_is_cut_within_a_character_is_kept_and_ends_with_its_app() {
    let supervisor = Supervisor::new();
    // The kernel keeps 15 bytes of a name.
    let program = supervisor.home.path().join("aaaaaaaaaaaaaaé");
    fs::copy("/bin/sleep", &program).unwrap();
    let words = ["start", program.to_str().unwrap(), "--name", "app", "--min-uptime", "10ms", "--", "1000"];
    supervisor.ok(&words);
    let before = supervisor.pids();
    supervisor.ok(&["update"]);
    assert_eq!(supervisor.pids(), before);
    supervisor.ok(&["stop", "app"]);
    until("it has ended", || is_gone(before[0]));
}

#[test]
fn a_signal_to_end_is_not_lost_with_the_daemon() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let (keeper, daemon, app) = (supervisor.role("keeper"), supervisor.role("daemon"), supervisor.pids()[0]);
    // The keeper finds both when it continues: the signal, and the end of the daemon.
    signal("STOP", keeper);
    signal("KILL", daemon);
    until("the daemon has ended", || is_gone(daemon));
    signal("TERM", keeper);
    signal("CONT", keeper);
    until("all have ended", || [keeper, app].into_iter().all(is_gone));
    assert!(!supervisor.path().join("state.json").exists());
}

/// Starts an app that leaves two processes behind: one of its group that ignores SIGTERM, and one with a session of its own. Returns their ids and its own.
fn start_with_descendants(supervisor: &Supervisor) -> Vec<i64> {
    let pids = supervisor.home.path().join("pids");
    let _ = fs::remove_file(&pids);
    let stubborn = format!("sh -c 'trap \"\" TERM; echo $$ >> {}; while :; do sleep 0.05; done' &", pids.display());
    let stray = format!("setsid sh -c 'echo $$ >> {}; exec sleep 1000' &", pids.display());
    let app = supervisor.script("app", &format!("{stubborn}\n{stray}\nexec sleep 1000"));
    supervisor.ok(&["start", &app, "--min-uptime", "10ms", "--kill-timeout", "300ms"]);
    let read = || fs::read_to_string(&pids).unwrap_or_default().lines().map(|pid| pid.parse().unwrap()).collect::<Vec<i64>>();
    until("both have begun", || read().len() == 2);
    [read(), supervisor.pids()].concat()
}

/// Replaces the keeper, in each of the ways in which that happens.
const REPLACEMENTS: [fn(&Supervisor); 2] = [
    |supervisor| drop(supervisor.ok(&["update"])),
    |supervisor| {
        let keeper = supervisor.role("keeper");
        signal("KILL", keeper);
        until("another keeper", || supervisor.role("keeper") != keeper);
    },
];

#[test]
fn a_stop_ends_all_that_an_app_has_started_after_its_keeper_was_replaced() {
    for replace in REPLACEMENTS {
        let supervisor = Supervisor::new();
        let pids = start_with_descendants(&supervisor);
        replace(&supervisor);
        supervisor.ok(&["stop", "app"]);
        assert!(pids.into_iter().all(is_gone), "it says that the app was stopped");
    }
}

#[test]
fn a_process_that_dies_takes_all_that_it_has_started_with_it_after_its_keeper_was_replaced() {
    for replace in REPLACEMENTS {
        let supervisor = Supervisor::new();
        let pids = start_with_descendants(&supervisor);
        replace(&supervisor);
        signal("KILL", pids[2]);
        until("all have ended", || pids.iter().all(|pid| is_gone(*pid)));
    }
}

#[test]
fn the_keeper_gets_the_order_to_end_behind_many_others() {
    let supervisor = Supervisor::new();
    let listeners: Vec<String> =
        (0..400).map(|number| format!("\"127.0.{}.1:{:0>2$}\"", number / 80, 0, number % 80 + 1)).collect();
    let app = supervisor.script("app", "echo up; exec sleep 1000");
    let file = supervisor.home.path().join("supervisor.toml");
    let text = format!("[[app]]\nstart = \"{app}\"\nready-when = \"log:up\"\nlisten = [{}]\n", listeners.join(", "));
    fs::write(&file, text).unwrap();
    supervisor.ok(&["start", file.to_str().unwrap()]);
    supervisor.ok(&["stop", "app"]);
    // One order for each listener, and then that to end, while the keeper reads none.
    let keeper = supervisor.role("keeper");
    signal("STOP", keeper);
    let mut kill = supervisor.command(&["kill"]).spawn().unwrap();
    until("nothing is left to continue with", || !supervisor.path().join("state.json").exists());
    signal("CONT", keeper);
    assert!(kill.wait().unwrap().success());
    assert!(is_gone(keeper));
}

#[test]
fn nothing_that_descends_from_an_app_survives_its_stop_and_no_orphan_the_supervisor() {
    let supervisor = Supervisor::new();
    let pids = supervisor.home.path().join("pids");
    let read = || fs::read_to_string(&pids).unwrap_or_default().lines().map(|pid| pid.parse().unwrap()).collect::<Vec<i64>>();
    // Neither its group nor its environment says whose it is. The parent of the second one ends at once.
    let stray = format!("env -i setsid sh -c 'echo $$ >> {}; sleep 1000 & echo $! >> {0}; wait' &", pids.display());
    for (name, begun, command) in [("child", stray.clone(), &["stop", "child"][..]), ("orphan", format!("({stray})"), &["kill"])]
    {
        let _ = fs::remove_file(&pids);
        let app = supervisor.script(name, &format!("{begun}\nexec sleep 1000"));
        supervisor.ok(&["start", &app, "--min-uptime", "10ms"]);
        until("both have begun", || read().len() == 2);
        supervisor.ok(command);
        until("both have ended", || read().into_iter().all(is_gone));
    }
}

#[test]
fn in_a_delegated_cgroup_an_orphan_ends_with_its_app_while_others_run() {
    // A view of the cgroups in which that of the test is the first one, as a container has it.
    let view = "d=/sys/fs/cgroup; [ -d $d/unified ] && d=$d/unified; umount $d; mount -t cgroup2 none $d && exec \"$0\" \"$@\"";
    let within = ["--mount", "--cgroup", "sh", "-c", view];
    let can = || Command::new("unshare").args(within).arg("true").output().is_ok_and(|output| output.status.success());
    if !can_run(geteuid().is_root() && can(), "only root can mount cgroups") {
        return;
    }
    let supervisor = Supervisor::new();
    let pids = supervisor.home.path().join("pids");
    let read = || fs::read_to_string(&pids).unwrap_or_default().lines().map(|pid| pid.parse().unwrap()).collect::<Vec<i64>>();
    let begin = |words: &[&str]| {
        let program = env!("CARGO_BIN_EXE_supervisor");
        let mut unshare = Command::new("unshare");
        unshare.args(within).arg(program).args(words).args(["--min-uptime", "10ms"]).env("SUPERVISOR_HOME", supervisor.path());
        assert!(unshare.status().unwrap().success());
    };
    begin(&["start", "sleep 1000", "--name", "other"]);
    let other = supervisor.pids()[0];
    // Its parent has ended, and neither its session nor its environment says whose it is.
    let stray = format!("(env -i setsid sh -c 'echo $$ >> {}; exec sleep 1000' &)", pids.display());
    let app = supervisor.script("app", &format!("{stray}\nexec sleep 1000"));
    for end in [&["stop", "app"][..], &["send-signal", "KILL", "app"]] {
        let _ = fs::remove_file(&pids);
        begin(&["start", &app]);
        until("it has begun", || read().len() == 1);
        let stray = read()[0];
        supervisor.ok(end);
        until("it has ended", || is_gone(stray));
        supervisor.ok(&["delete", "app"]);
    }
    assert_eq!(supervisor.pids(), [other]);
}

#[test]
fn kill_waits_for_what_a_dead_supervisor_has_left() {
    let supervisor = Supervisor::new();
    let done = supervisor.home.path().join("done");
    // Nobody reads its error output any more, and a shell tells there what was killed.
    let work = format!("echo up; exec 2>/dev/null; trap 'sleep 1; echo > {}; exit' TERM", done.display());
    let app = supervisor.script("app", &format!("{work}; while :; do sleep 0.05; done"));
    supervisor.ok(&["start", &app, "--ready-when", "log:up"]);
    let (pid, both) = (supervisor.pids()[0], ["keeper", "daemon"].map(|role| supervisor.role(role)));
    both.iter().for_each(|one| signal("STOP", *one));
    both.iter().for_each(|one| signal("KILL", *one));
    until("both have ended", || both.iter().all(|one| is_gone(*one)));
    assert!(!is_gone(pid));
    supervisor.ok(&["kill"]);
    assert!(is_gone(pid), "it says that all has ended");
    assert!(done.exists(), "it had its time");
}

#[test]
fn a_version_that_cannot_take_over_leaves_everything_as_it_was() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let (before, daemon) = (supervisor.pids(), supervisor.role("daemon"));
    let folder = supervisor.home.path();
    fs::copy(env!("CARGO_BIN_EXE_supervisor"), folder.join("supervisor")).unwrap();
    supervisor.script("supervisor-keeper", "[ \"$1\" = version ] && echo supervisor-keeper 99");
    let update = || {
        let output = Command::new(folder.join("supervisor")).arg("update").env("SUPERVISOR_HOME", supervisor.path()).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    let said = update();
    assert!(said.contains("the new version has ended while it took over; this one goes on"), "{said}");
    assert_eq!((supervisor.pids(), supervisor.role("daemon")), (before.clone(), daemon));
    supervisor.script("supervisor-keeper", "exit 1");
    let said = update();
    assert!(said.contains("is not a supervisor"), "{said}");
    supervisor.ok(&["update"]);
    assert_eq!(supervisor.pids(), before);
}

#[test]
fn a_supervisor_outlives_the_app_that_still_waits_for_its_start() {
    let [outer, inner] = [Supervisor::new(), Supervisor::new()];
    let start = "start 'sleep 1000' --name inner --listen 127.0.0.1:0 --listen-timeout 1h";
    let line = format!("SUPERVISOR_HOME={} {} {start}", inner.path().display(), env!("CARGO_BIN_EXE_supervisor"));
    let app = outer.script("app", &line);
    outer.ok(&["start", &app, "--min-uptime", "10ms"]);
    until("the inner app has a process", || inner.list().first().is_some_and(|one| one["pid"].is_number()));
    let all = [inner.role("keeper"), inner.role("daemon"), inner.pids()[0]];
    outer.ok(&["stop", "app"]);
    assert!(!all.into_iter().any(is_gone), "it outlives the app");
    assert_eq!([inner.role("keeper"), inner.role("daemon"), inner.pids()[0]], all);
}

#[test]
fn a_supervisor_with_a_folder_of_its_own_that_an_app_starts_outlives_that() {
    let [outer, inner] = [Supervisor::new(), Supervisor::new()];
    let line = format!(
        "SUPERVISOR_HOME={} {} start 'sleep 1000' --name inner --min-uptime 10ms && echo up; exec sleep 1000",
        inner.path().display(),
        env!("CARGO_BIN_EXE_supervisor")
    );
    let app = outer.script("app", &line);
    outer.ok(&["start", &app, "--ready-when", "log:up", "--listen-timeout", "20s"]);
    let all = [inner.role("keeper"), inner.role("daemon"), inner.pids()[0]];
    outer.ok(&["stop", "app"]);
    assert!(!all.into_iter().any(is_gone), "it outlives the app");
    outer.ok(&["kill"]);
    assert!(!all.into_iter().any(is_gone), "it outlives the supervisor of the app");
    assert_eq!([inner.role("keeper"), inner.role("daemon"), inner.pids()[0]], all);
}

#[test]
fn what_keeper_and_daemon_have_left_is_ended_without_being_started_once_more() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let (app, both) = (supervisor.pids()[0], [supervisor.role("keeper"), supervisor.role("daemon")]);
    both.iter().for_each(|pid| signal("STOP", *pid));
    both.iter().for_each(|pid| signal("KILL", *pid));
    until("both have ended", || both.iter().all(|pid| is_gone(*pid)));
    supervisor.ok(&["kill"]);
    until("it has ended", || is_gone(app));
    let events = supervisor.ok(&["events", "app"]);
    // A start may be cut off before there is a process.
    assert!(events.matches("started: process").count() == 1 && !events.contains("start failed"), "{events}");
}
