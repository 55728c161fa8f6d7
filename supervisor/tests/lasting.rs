//! The supervisor's folder is removed, its disk is full, and what its checks and its foreground leave behind.

mod common;

use common::{Supervisor, can_run, is_gone, program, signal, until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn a_removed_folder_is_made_anew_and_nothing_is_lost() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let (keeper, daemon, app) = (supervisor.role("keeper"), supervisor.role("daemon"), supervisor.pids()[0]);
    // Again and again, since a part of it may be made anew before all of it is removed.
    until("it is removed", || fs::remove_dir_all(supervisor.path()).is_ok());
    until("the list is there", || supervisor.run(&["list", "--json"]).status.success() && supervisor.pids() == [app]);
    assert_eq!((supervisor.role("keeper"), supervisor.role("daemon")), (keeper, daemon));
    assert!(supervisor.listed()["remarks"].to_string().contains("was removed, and was made anew"));
    supervisor.ok(&["start", "sleep 1000", "--name", "other", "--min-uptime", "10ms"]);
    assert_eq!(supervisor.role("keeper"), keeper);
    signal("KILL", daemon);
    until("the next daemon knows both", || supervisor.pids().len() == 2 && supervisor.role("daemon") != daemon);
    assert_eq!(supervisor.pids()[0], app);
    supervisor.ok(&["kill"]);
    assert!(is_gone(app) && is_gone(keeper));
}

#[test]
fn a_supervisor_that_has_lost_its_folder_to_another_ends() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let (keeper, daemon, app) = (supervisor.role("keeper"), supervisor.role("daemon"), supervisor.pids()[0]);
    // It finds out only when it is let go on.
    signal("STOP", daemon);
    fs::remove_dir_all(supervisor.path()).unwrap();
    supervisor.ok(&["start", "sleep 1000", "--name", "other", "--min-uptime", "10ms"]);
    let other = supervisor.role("keeper");
    let socket = || fs::metadata(supervisor.path().join("control.sock")).unwrap().ino();
    let own = socket();
    signal("CONT", daemon);
    until("the first one has ended with its app", || [keeper, daemon, app].into_iter().all(is_gone));
    assert_eq!((supervisor.role("keeper"), supervisor.list().len()), (other, 1));
    assert_eq!(socket(), own, "the first one has removed what is not its own");
    assert_eq!(supervisor.list()[0]["name"], "other");
}

/// A small disk of memory.
struct Disk(PathBuf);

impl Disk {
    /// `None`, said aloud, where this user cannot mount one.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]).arg(&path).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        can_run(is_mounted, "this user cannot mount a disk").then_some(Disk(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_promised_that_the_next_daemon_would_undo() {
    let supervisor = Supervisor::new();
    let Some(disk) = Disk::mount(supervisor.path()) else { return };
    // It ends before its disk has gone, also if the test fails: nobody could reach it then.
    let supervisor = supervisor;
    let fill = disk.0.join("fill");
    let all = vec![0; 1 << 20];
    assert!(fs::write(&fill, &all).is_err());
    let said = supervisor.fails(&["start", "sleep 1000"]);
    assert!(said.contains("make room on its disk") && said.contains("No space left"), "{said}");
    fs::remove_file(&fill).unwrap();
    for app in ["app", "other", "third"] {
        supervisor.ok(&["start", "sleep 1000", "--name", app, "--min-uptime", "10ms"]);
    }
    assert!(fs::write(&fill, &all).is_err());
    let before = supervisor.pids();
    for command in
        [&["scale", "app", "3"][..], &["reload", "app"], &["restart", "app"], &["update"], &["start", "sleep 5", "--name", "b"]]
    {
        let said = supervisor.fails(command);
        assert!(said.contains("make room on its disk"), "{command:?}: {said}");
    }
    signal("KILL", supervisor.role("daemon"));
    until("the next daemon answers", || supervisor.pids() == before);
    let both = [supervisor.role("keeper"), supervisor.role("daemon")];
    both.iter().for_each(|pid| signal("STOP", *pid));
    both.iter().for_each(|pid| signal("KILL", *pid));
    until("both have ended", || both.iter().all(|pid| is_gone(*pid)));
    until("the next supervisor has replaced what they have left", || {
        let list = supervisor.list();
        list.len() == 3 && list.iter().all(|one| one["status"] == "online") && before.iter().all(|pid| is_gone(*pid))
    });
    // What may have filled the disk can be ended, and stays so, also the second time.
    for app in ["app", "other", "third"] {
        supervisor.ok(&["stop", app]);
        signal("KILL", supervisor.role("daemon"));
        until("the next daemon answers", || supervisor.list().iter().any(|one| one["name"] == app && one["status"] == "stopped"));
    }
    fs::remove_file(&fill).unwrap();
    supervisor.ok(&["start", "app"]);
    let remarks = supervisor.listed()["remarks"].to_string();
    assert!(!remarks.contains("No space left"), "{remarks}");
    supervisor.ok(&["scale", "app", "2"]);
    supervisor.ok(&["kill"]);
}

#[test]
fn the_error_of_a_log_is_known_as_long_as_it_lasts() {
    let supervisor = Supervisor::new();
    // A folder in its place cannot be written to.
    let log = supervisor.path().join("logs/app-0-out.log");
    supervisor.ok(&["ping"]);
    fs::create_dir(&log).unwrap();
    let has_error = || supervisor.list()[0]["log_trouble"].is_string();
    supervisor.ok(&["start", "sh", "--name", "app", "--ready-when", "log:up", "--", "-c", "echo up; exec sleep 1000"]);
    until("it is known", has_error);
    for role in ["daemon", "keeper"] {
        let pid = supervisor.role(role);
        signal("KILL", pid);
        until("another has taken its place", || supervisor.role(role) != pid);
        // Another keeper has not written yet.
        assert_eq!(has_error(), role == "daemon", "after the death of the {role}");
    }
    supervisor.ok(&["restart", "app"]);
    until("it is known again", has_error);
    fs::remove_dir(&log).unwrap();
    supervisor.ok(&["restart", "app"]);
    until("it is written to", || fs::read_to_string(&log).is_ok_and(|text| text == "up\n"));
    until("that is known", || !has_error());
}

/// Something that ends what runs a check.
type Way = fn(&Supervisor);

#[test]
fn the_command_of_a_check_ends_with_its_app_and_with_whatever_runs_it() {
    let supervisor = Supervisor::new();
    let left = supervisor.home.path().join("left");
    let check = format!("echo $$ >> {}; sleep 1000; true", left.display());
    let pids = || {
        let text = fs::read_to_string(&left).unwrap_or_default();
        text.lines().filter_map(|line| line.parse::<i64>().ok()).collect::<Vec<_>>()
    };
    let start = ["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"];
    let ways: [(&str, Way); 4] = [
        ("delete", |supervisor| drop(supervisor.ok(&["delete", "app"]))),
        ("update", |supervisor| drop(supervisor.ok(&["update"]))),
        ("a death of the daemon", |supervisor| signal("KILL", supervisor.role("daemon"))),
        ("kill", |supervisor| drop(supervisor.ok(&["kill"]))),
    ];
    for (what, end) in ways {
        let _ = supervisor.run(&["delete", "app"]);
        until("no check is left", || pids().into_iter().all(is_gone));
        let _ = fs::remove_file(&left);
        supervisor.ok(&[&start[..], &["--health-exec", &check, "--health-interval", "500ms", "--health-timeout", "1h"]].concat());
        until("a check runs", || !pids().is_empty());
        let first = pids()[0];
        end(&supervisor);
        until(&format!("after {what}, its check has ended"), || is_gone(first));
    }
}

#[test]
fn a_foreground_command_that_is_killed_takes_its_apps_with_it() {
    let supervisor = Supervisor::new();
    // One runs, and it waits for the other.
    let slow = "[[app]]\nstart = \"sleep 1000\"\nname = \"slow\"\nready-when = \"log:never\"\nlisten-timeout = \"1h\"\n";
    let text = format!("[[app]]\nstart = \"sleep 1000\"\nname = \"app\"\nmin-uptime = \"10ms\"\n{slow}");
    let file = program(&supervisor, "s.toml", &text);
    let mut run =
        supervisor.command(&["run", file.to_str().unwrap()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the app is online", || {
        supervisor.run(&["list", "--json"]).status.success()
            && supervisor.list().first().is_some_and(|one| one["status"] == "online")
    });
    let (app, keeper) = (supervisor.pids()[0], supervisor.role("keeper"));
    run.kill().unwrap();
    until("they have ended with it", || is_gone(app) && is_gone(keeper));
    run.wait().unwrap();
}

#[test]
fn in_the_foreground_an_app_that_fails_at_first_is_started_again() {
    let supervisor = Supervisor::new();
    let flag = supervisor.home.path().join("flag");
    let script = supervisor.script("late", &format!("[ -e {0} ] && {{ echo here; exit 0; }}; touch {0}; exit 4", flag.display()));
    let text = format!("[[app]]\nstart = \"{script}\"\nname = \"late\"\nrestart-delay = \"10ms\"\non-failure = true\n");
    let output = supervisor.run(&["run", program(&supervisor, "s.toml", &text).to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("here"), "{output:?}");
    let text =
        "[[app]]\nstart = \"sh\"\nname = \"bad\"\narguments = [\"-c\", \"exit 7\"]\nmax-restarts = 1\nrestart-delay = \"10ms\"\n";
    let output = supervisor.run(&["run", program(&supervisor, "s.toml", text).to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn the_foreground_waits_for_room_for_its_logs_and_loses_none() {
    let supervisor = Supervisor::new();
    let Some(disk) = Disk::mount(supervisor.home.path().join("disk")) else { return };
    let (fill, logs) = (disk.0.join("fill"), disk.0.join("logs"));
    let output = fs::File::create(&logs).unwrap();
    assert!(fs::write(&fill, vec![0; 1 << 20]).is_err());
    let text = "[[app]]\nstart = \"sh\"\nname = \"job\"\narguments = [\"-c\", \"echo 1; echo 2; exec sleep 1000\"]\nmin-uptime = \"10ms\"\n";
    let file = program(&supervisor, "s.toml", text);
    let mut command = supervisor.command(&["run", file.to_str().unwrap()]);
    let mut run = command.stdout(output).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("No space left") && line.contains("make room"), "{line}");
    fs::remove_file(&fill).unwrap();
    let all = "0|job out| 1\n0|job out| 2\n";
    until("they are printed", || fs::read_to_string(&logs).is_ok_and(|text| text == all));
    signal("TERM", i64::from(run.id()));
    assert!(run.wait().unwrap().success());
    assert_eq!(said.map_while(Result::ok).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_foreground_goes_on_when_nobody_reads_its_logs() {
    let supervisor = Supervisor::new();
    let flag = supervisor.home.path().join("flag");
    let line = format!("echo hello; while [ ! -e {} ]; do sleep 0.05; done; exit 3", flag.display());
    let text =
        format!("[[app]]\nstart = \"sh\"\narguments = [\"-c\", \"{line}\"]\nno-autorestart = true\nmin-uptime = \"10ms\"\n");
    let file = program(&supervisor, "s.toml", &text);
    let mut command = supervisor.command(&["run", file.to_str().unwrap()]);
    let (reader, nobody) = std::io::pipe().unwrap();
    drop(reader);
    let mut run = command.stdout(nobody).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("the apps go on") && line.contains("Broken pipe"), "{line}");
    fs::write(&flag, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3));
}
