//! What the supervisor writes and measures for itself, and what it is told by systemd.

mod common;

use common::{Supervisor, is_gone, signal, until};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Where a process writes its errors to.
fn errors_of(pid: i64) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/fd/2")).unwrap()
}

#[test]
fn both_processes_still_write_to_the_log_of_the_supervisor_after_it_was_started_anew() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let log = supervisor.path().join("supervisor.log");
    let line = [b'x'; 1023];
    let mut file = OpenOptions::new().append(true).open(&log).unwrap();
    (0..2048).for_each(|_| file.write_all(&[&line[..], b"\n"].concat()).unwrap());
    for (victim, other) in [("daemon", "keeper"), ("keeper", "daemon")] {
        let pid = supervisor.role(victim);
        signal("KILL", pid);
        until("another has taken its place", || supervisor.role(victim) != pid);
        assert_eq!([errors_of(supervisor.role(victim)), errors_of(supervisor.role(other))], [log.clone(), log.clone()]);
    }
    assert!(fs::metadata(&log).unwrap().len() < 1 << 20);
    assert!(fs::metadata(log.with_extension("log.1")).unwrap().len() >= 1 << 20, "what it said is kept");
}

#[test]
fn a_process_is_as_old_as_before_when_its_daemon_is_another() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let online = Instant::now();
    supervisor.ok(&["update"]);
    let least = u64::try_from(online.elapsed().as_millis()).unwrap();
    assert!(supervisor.list()[0]["uptime_ms"].as_u64().unwrap() >= least, "{} after {least} ms", supervisor.list()[0]);
}

#[test]
fn cpu_use_is_measured_since_the_last_command_that_measured_it() {
    let supervisor = Supervisor::new();
    let done = supervisor.home.path().join("done");
    let work = format!("trap 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; : > {}' USR1", done.display());
    let app = supervisor.script("app", &format!("{work}\necho up\nwhile :; do sleep 1000 & wait; done"));
    supervisor.ok(&["start", &app, "--ready-when", "log:up"]);
    let list = supervisor.list();
    signal("USR1", list[0]["pid"].as_i64().unwrap());
    until("it has worked", || done.exists());
    // It rests now.
    let cpu = supervisor.list()[0]["cpu"].as_f64().unwrap();
    assert!(cpu > 0.01, "{cpu}");
}

#[test]
fn the_end_of_a_child_takes_back_nothing_that_its_parent_has_used() {
    let supervisor = Supervisor::new();
    let [begun, done] = ["begun", "done"].map(|name| supervisor.home.path().join(name));
    let work = |times: u32| format!("i=0; while [ $i -lt {times} ]; do i=$((i+1)); done");
    let child = format!("({}; : > {}; exec sleep 1000) & child=$!", work(600_000), begun.display());
    let trap = format!("trap 'kill $child; wait $child; {}; : > {}' USR1", work(200_000), done.display());
    let app = supervisor.script("app", &format!("{child}\n{trap}\necho up\nwhile :; do sleep 1000 & wait; done"));
    supervisor.ok(&["start", &app, "--ready-when", "log:up"]);
    until("the child has worked", || begun.exists());
    signal("USR1", supervisor.list()[0]["pid"].as_i64().unwrap());
    until("the child has ended, and its parent has worked", || done.exists());
    let cpu = supervisor.list()[0]["cpu"].as_f64().unwrap();
    assert!(cpu > 0.01, "{cpu}");
}

#[test]
fn systemd_gets_signs_of_life_from_each_keeper() {
    let supervisor = Supervisor::new();
    let path = supervisor.home.path().join("systemd");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let count = systemd.recv(&mut buffer).unwrap();
            if buffer[..count].split(|byte| *byte == b'\n').any(|line| line == wanted.as_bytes()) {
                return;
            }
        }
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor-keeper"));
    command.arg("keeper").env("SUPERVISOR_HOME", supervisor.path()).env("NOTIFY_SOCKET", &path);
    let mut keeper = command.env("WATCHDOG_USEC", "100000").stdout(Stdio::null()).spawn().unwrap();
    hear("READY=1");
    (0..5).for_each(|_| hear("WATCHDOG=1"));
    let pid = supervisor.role("keeper");
    assert_eq!(pid, i64::from(keeper.id()));
    signal("KILL", pid);
    keeper.wait().unwrap();
    until("there is another keeper", || supervisor.role("keeper") != pid);
    // What the first one has sent.
    systemd.set_nonblocking(true).unwrap();
    while systemd.recv(&mut [0; 4096]).is_ok() {}
    systemd.set_nonblocking(false).unwrap();
    (0..5).for_each(|_| hear("WATCHDOG=1"));
    // systemd kills one that hangs.
    let keeper = supervisor.role("keeper");
    signal("STOP", keeper);
    systemd.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    until("it is silent", || systemd.recv(&mut [0; 4096]).is_err());
    signal("CONT", keeper);
    supervisor.ok(&["kill"]);
    assert!(is_gone(keeper));
}

#[test]
fn logs_that_were_moved_are_let_go_when_they_are_reloaded() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sh", "--name", "app", "--ready-when", "log:up", "--", "-c", "echo up; exec sleep 1000"]);
    let log = supervisor.path().join("logs/app-0-out.log");
    let moved = log.with_extension("moved");
    fs::rename(&log, &moved).unwrap();
    let keeper = supervisor.role("keeper");
    let holds = || {
        let open = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == moved)
    };
    assert!(holds());
    supervisor.ok(&["reload-logs"]);
    until("the keeper does not hold it any more", || !holds());
}

#[test]
fn each_line_begins_with_its_time_if_that_was_asked_for() {
    let supervisor = Supervisor::new();
    let words = ["start", "sh", "--name", "app", "--time", "--ready-when", "log:two", "--", "-c"];
    supervisor.ok(&[&words[..], &["echo one; echo two; exec sleep 1000"]].concat());
    let log = supervisor.path().join("logs/app-0-out.log");
    until("both lines are there", || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 2));
    let text = fs::read_to_string(&log).unwrap();
    for (line, said) in text.lines().zip(["one", "two"]) {
        let (time, rest) = line.split_once(' ').unwrap();
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!((shape.as_str(), rest), ("0000-00-00T00:00:00", said));
    }
}
