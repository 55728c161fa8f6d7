//! The supervisor where its own processes are killed or hang, and where files are damaged.

mod common;

use common::{Supervisor, is_gone, server, signal, start, until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

/// Process ids of everything that the supervisor has started: each bears the path of a notify socket.
fn marked(supervisor: &Supervisor) -> Vec<i64> {
    let mark = format!("NOTIFY_SOCKET={}/notify/", supervisor.path().display());
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
    let is_marked = |pid: &i64| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one.starts_with(mark.as_bytes()))
    };
    let mut pids: Vec<i64> = pids.filter(is_marked).filter(|pid| !is_gone(*pid)).collect();
    pids.sort_unstable();
    pids
}

fn settled(supervisor: &Supervisor, instances: usize) -> bool {
    let list = supervisor.list();
    let mut pids = supervisor.pids();
    pids.sort_unstable();
    list.len() == instances && list.iter().all(|one| one["status"] == "online") && pids == marked(supervisor)
}

#[test]
fn a_worker_and_the_keeper_that_die_together_leave_nothing_that_nobody_knows() {
    let supervisor = Supervisor::new();
    let options = ["--listen", "127.0.0.1:0", "--name", "api", "-i", "2", "--min-uptime", "1ms", "--max-restarts", "1000"];
    supervisor.ok(&[&["start", server().to_str().unwrap()], &options[..], &["--", "--model", "current-thread"]].concat());
    for _ in 0..20 {
        let (keeper, worker) = (supervisor.role("keeper"), supervisor.pids()[0]);
        signal("KILL", worker);
        signal("KILL", keeper);
        // The old keeper may have started another worker before it died.
        until("the list is true", || supervisor.role("keeper") != keeper && settled(&supervisor, 2));
    }
    supervisor.ok(&["stop", "api"]);
    until("nothing is left", || marked(&supervisor).is_empty());
}

#[test]
fn a_daemon_or_a_keeper_that_hangs_is_replaced() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    let before = supervisor.pids();
    let daemon = supervisor.role("daemon");
    signal("STOP", daemon);
    assert_eq!(supervisor.pids(), before, "the list comes from another daemon");
    assert_ne!(supervisor.role("daemon"), daemon);
    assert!(supervisor.listed()["remarks"].to_string().contains("the daemon did not answer and was replaced"));
    let keeper = supervisor.role("keeper");
    signal("STOP", keeper);
    supervisor.ok(&["reload", "api"]);
    assert_ne!(supervisor.role("keeper"), keeper);
    until("the list is true", || settled(&supervisor, 2));
}

#[test]
fn a_damaged_specification_is_written_anew_and_a_lost_one_is_shown() {
    let supervisor = Supervisor::new();
    start(&supervisor, &server());
    let file = supervisor.path().join("specs/api.json");
    let damage = || fs::write(&file, "{").unwrap();
    damage();
    signal("KILL", supervisor.pids()[0]);
    until("another process", || supervisor.list()[0]["restarts"] == 1 && settled(&supervisor, 2));
    assert!(supervisor.listed()["remarks"].to_string().contains("api.json was damaged, and has been written anew"));
    damage();
    let before = supervisor.pids();
    signal("KILL", supervisor.role("daemon"));
    until("it is shown", || supervisor.listed()["remarks"].to_string().contains("the specification of api is lost"));
    assert_eq!(supervisor.pids(), before);
    let are_damaged = || supervisor.list().iter().all(|one| one["status"] == "damaged");
    assert!(are_damaged(), "{:?}", supervisor.list());
    assert!(supervisor.ok(&["show", "api"]).contains("api.json"), "it says why");
    assert!(supervisor.fails(&["restart", "api"]).contains("run `supervisor delete api`, and start it anew"));
    supervisor.ok(&["stop", "0"]);
    assert!(are_damaged() && supervisor.pids() == before[1..]);
    supervisor.ok(&["kill"]);
    assert!(marked(&supervisor).is_empty());
}

#[test]
fn an_app_whose_specification_is_lost_starts_anew_from_its_file_though_nothing_of_it_runs() {
    let supervisor = Supervisor::new();
    let file = supervisor.home.path().join("supervisor.toml");
    fs::write(&file, "[[app]]\nname = \"app\"\nstart = \"sleep 1000\"\nmin-uptime = \"10ms\"\n").unwrap();
    let file = file.to_str().unwrap();
    supervisor.ok(&["start", file]);
    fs::write(supervisor.path().join("specs/app.json"), "{").unwrap();
    signal("KILL", supervisor.role("daemon"));
    until("it is lost", || supervisor.list()[0]["status"] == "damaged");
    supervisor.ok(&["stop", "app"]);
    assert_eq!(supervisor.list()[0]["pid"], Value::Null);
    supervisor.ok(&["apply", file]);
    assert!(settled(&supervisor, 1), "{:?}", supervisor.list());
}

#[test]
fn a_damaged_specification_is_written_anew_before_another_version_takes_over() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let file = supervisor.path().join("specs/app.json");
    fs::write(&file, "{").unwrap();
    supervisor.ok(&["update"]);
    assert!(settled(&supervisor, 1), "{:?}", supervisor.list());
    fs::remove_file(&file).unwrap();
    supervisor.ok(&["update"]);
    supervisor.ok(&["restart", "app"]);
}

#[test]
fn the_files_of_the_first_version_are_understood() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let pids = [supervisor.role("keeper"), supervisor.role("daemon")];
    pids.iter().for_each(|pid| signal("STOP", *pid));
    pids.iter().for_each(|pid| signal("KILL", *pid));
    until("both have ended", || pids.iter().all(|pid| is_gone(*pid)));
    let change = |name: &str, change: fn(&mut Value)| {
        let path = supervisor.path().join(name);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
    };
    change("state.json", |state| {
        state["schema"] = 1.into();
        state["apps"][0]["instances"][0].as_object_mut().unwrap().remove("is_ended_by_boot");
    });
    change("specs/app.json", |spec| {
        spec.as_object_mut().unwrap().remove("schema");
        spec["doubt"] = Value::Null;
        let words = |text: &Value| json!({ "Unix": text.as_str().unwrap().as_bytes() });
        spec["environment"] =
            spec["environment"].as_array().unwrap().iter().map(|pair| json!([words(&pair[0]), words(&pair[1])])).collect();
    });
    until("it is back", || settled(&supervisor, 1));
}

#[test]
fn a_reload_that_fails_leaves_the_environment_as_it_was() {
    let supervisor = Supervisor::new();
    let program = supervisor.home.path().join("app");
    symlink(server(), &program).unwrap();
    start(&supervisor, &program);
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!supervisor.command(&["reload", "-a", "api"]).env("X", "2").status().unwrap().success());
    fs::remove_file(&program).unwrap();
    symlink(server(), &program).unwrap();
    let has_x = |pid: i64| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap()).contains("\0X=2\0");
    signal("KILL", supervisor.pids()[0]);
    until("another process", || supervisor.list()[0]["restarts"] == 1 && settled(&supervisor, 2));
    assert!(!supervisor.pids().into_iter().any(has_x));
    assert!(supervisor.command(&["reload", "-a", "api"]).env("X", "2").status().unwrap().success());
    assert!(supervisor.pids().into_iter().all(has_x));
}

#[test]
fn processes_that_use_too_much_memory_are_replaced_one_after_another_and_that_is_said() {
    let supervisor = Supervisor::new();
    let arguments =
        ["-i", "3", "--listen", "127.0.0.1:0", "--name", "api", "--max-memory-restart", "1M", "--", "--model", "current-thread"];
    supervisor.ok(&[&["start", server().to_str().unwrap()], &arguments[..]].concat());
    until("each was replaced", || {
        supervisor.list().iter().all(|one| one["restarts"].as_u64().is_some_and(|restarts| restarts > 0))
    });
    assert!(supervisor.listed()["remarks"].to_string().contains("MiB of at most 1.0 and is being replaced"));
}

#[test]
fn the_memory_of_an_app_is_that_of_its_group() {
    let supervisor = Supervisor::new();
    let script = "head -c 60000000 /dev/zero | tail | sleep 1000";
    supervisor.ok(&["start", "sh", "--name", "app", "--min-uptime", "10ms", "--", "-c", script]);
    until("60 MB", || supervisor.list()[0]["memory"].as_u64().is_some_and(|memory| memory > 60_000_000));
}

#[test]
fn what_the_first_caller_has_set_for_itself_stays_with_it() {
    let supervisor = Supervisor::new();
    let lock = supervisor.home.path().join("lock");
    let script = "umask 0; trap '' INT QUIT HUP USR2; ulimit -S -f 1; exec 9>\"$2\"; flock 9; \"$1\" start yes --min-uptime 10ms";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "bash", env!("CARGO_BIN_EXE_supervisor")]).arg(&lock).env("SUPERVISOR_HOME", supervisor.path());
    // Not into a file, which could be longer than the limit.
    assert!(shell.output().unwrap().status.success());
    let is_free = Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap().success();
    assert!(is_free, "the supervisor holds the lock of whoever started it");
    let log = supervisor.path().join("logs/yes-0-out.log");
    until("it logs more than a block", || fs::metadata(&log).is_ok_and(|log| log.len() > 4096));
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let status = fs::read_to_string(format!("/proc/{}/status", supervisor.pids()[0])).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    // HUP, INT, QUIT and USR2. Whatever runs the tests may ignore others that the C library does not let anybody handle.
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & 0x807, 0);
}

#[test]
fn an_app_gets_an_environment_as_large_as_the_kernel_allows() {
    let supervisor = Supervisor::new();
    let mut begin = supervisor.command(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    begin.envs((0..15).map(|number| (format!("LARGE_{number}"), "x".repeat(120_000))));
    let output = begin.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let environment = Path::new("/proc").join(supervisor.pids()[0].to_string()).join("environ");
    // With so short a time, it is online before what starts it has become it.
    until("it has all of it", || fs::read(&environment).unwrap().len() > 15 * 120_000);
}

/// Not a test: the helper of the next one, which ends before anybody can have read what it says.
#[test]
#[ignore = "a helper, not a test"]
fn helper_that_says_ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    UnixDatagram::unbound().unwrap().send_to(b"READY=1", &socket).unwrap();
}

#[test]
fn a_helper_that_has_ended_may_say_that_its_app_is_ready() {
    let supervisor = Supervisor::new();
    let file = supervisor.home.path().join("app");
    let own = std::env::current_exe().unwrap();
    fs::write(&file, format!("#!/bin/sh\n'{}' --exact helper_that_says_ready --ignored\nexec sleep 1000\n", own.display()))
        .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    supervisor.ok(&["start", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
}

#[test]
fn a_control_socket_that_was_removed_comes_back_and_no_second_supervisor() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    let (keeper, pids) = (supervisor.role("keeper"), supervisor.pids());
    fs::remove_file(supervisor.path().join("control.sock")).unwrap();
    assert_eq!((supervisor.role("keeper"), supervisor.pids()), (keeper, pids));
    // The lock outlives the keeper that took it.
    signal("KILL", keeper);
    until("another keeper", || supervisor.role("keeper") != keeper);
    fs::remove_file(supervisor.path().join("control.sock")).unwrap();
    assert_eq!(supervisor.list().len(), 1);
}

#[test]
fn of_many_keepers_that_are_started_at_once_one_stays() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["ping"]);
    supervisor.ok(&["kill"]);
    let program = Path::new(env!("CARGO_BIN_EXE_supervisor")).with_file_name("supervisor-keeper");
    let begin = || {
        Command::new(&program).arg("keeper").env("SUPERVISOR_HOME", supervisor.path()).stdout(std::process::Stdio::null()).spawn()
    };
    let mut keepers: Vec<_> = (0..8).map(|_| begin().unwrap()).collect();
    until("seven have ended", || keepers.iter_mut().filter_map(|keeper| keeper.try_wait().unwrap()).count() == 7);
    let keeper = supervisor.role("keeper");
    assert!(keepers.iter().any(|one| i64::from(one.id()) == keeper));
    supervisor.ok(&["kill"]);
    for keeper in &mut keepers {
        keeper.wait().unwrap();
    }
}

#[test]
fn supervisors_of_different_homes_do_not_disturb_each_other_when_they_start() {
    for _ in 0..5 {
        let supervisors: Vec<Supervisor> = (0..8).map(|_| Supervisor::new()).collect();
        let begin = |one: &Supervisor| one.command(&["ping"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        let commands: Vec<_> = supervisors.iter().map(begin).collect();
        assert!(commands.into_iter().all(|mut command| command.wait().unwrap().success()));
        let log = |one: &Supervisor| fs::read_to_string(one.path().join("supervisor.log")).unwrap();
        supervisors.iter().for_each(|one| assert_eq!(log(one), ""));
    }
}

#[test]
fn a_command_that_waits_while_another_ends_the_supervisor_starts_none() {
    let supervisor = Supervisor::new();
    supervisor.ok(&["start", "sleep 1000", "--name", "app", "--min-uptime", "10ms"]);
    // Both die, so that the next command starts another supervisor, which continues.
    let pids = [supervisor.role("keeper"), supervisor.role("daemon")];
    let app = supervisor.pids()[0];
    pids.iter().for_each(|pid| signal("STOP", *pid));
    pids.iter().for_each(|pid| signal("KILL", *pid));
    until("both have ended", || pids.iter().all(|pid| is_gone(*pid)));
    // As `kill` does: it has the lock until there is nothing left to continue with.
    let lock = fs::File::open(supervisor.path().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut list =
        supervisor.command(&["list"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let waits = format!("-> FLOCK  ADVISORY  WRITE {} ", list.id());
    until("it waits", || fs::read_to_string("/proc/locks").unwrap().contains(&waits));
    fs::remove_file(supervisor.path().join("state.json")).unwrap();
    signal("KILL", app);
    drop(lock);
    list.wait().unwrap();
    assert_eq!(supervisors(&supervisor), [0; 0]);
}

/// Process ids of the keepers and daemons of a test.
fn supervisors(supervisor: &Supervisor) -> Vec<i64> {
    let home = format!("SUPERVISOR_HOME={}", supervisor.path().display());
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
    let is_ours = |pid: &i64| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let is_role = |word: &[u8]| [&b"keeper"[..], b"daemon", b"adopt"].contains(&word);
        read("environ").split(|byte| *byte == 0).any(|one| one == home.as_bytes())
            && read("cmdline").split(|byte| *byte == 0).any(is_role)
    };
    pids.filter(is_ours).filter(|pid| !is_gone(*pid)).collect()
}
