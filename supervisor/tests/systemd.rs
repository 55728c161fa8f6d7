//! The unit that `startup` prints, under a real systemd: the first process of namespaces that end with the test.

mod common;

use common::load::{Load, connect};
use common::{Supervisor, can_run, free, server, until};
use rustix::process::geteuid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The name of the folder: systemd takes each of these characters as special somewhere.
const HOME: &str = "a b%n$HOME'\"\\t;#";

/// Namespaces with a systemd of their own; the network is that of the test.
struct Machine {
    unshare: Child,
    /// The process id of systemd, as the test sees it.
    init: String,
    supervisor: Supervisor,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With unshare, systemd ends, and with its first process everything in the namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

impl Machine {
    /// Boots one; `None`, said aloud, where that cannot be.
    fn boot() -> Option<Self> {
        let namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup"];
        let can = || Command::new("unshare").args(namespaces).arg("true").output().is_ok_and(|output| output.status.success());
        let can_boot = geteuid().is_root() && Path::new("/lib/systemd/systemd").exists() && can();
        if !can_run(can_boot, "only root can start a systemd of its own, in namespaces, and there has to be one") {
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/systemd.sh");
        let mut unshare = Command::new("unshare");
        unshare.args(namespaces).args(["sh", script]).stdin(Stdio::null()).stdout(Stdio::null());
        let unshare = unshare.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = || fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        until("unshare has a child", || !init().is_empty());
        let machine = Machine { init: init(), unshare, supervisor: Supervisor::new() };
        until("systemd answers", || machine.sh("systemctl show --property Version").status.success());
        Some(machine)
    }

    /// Runs a line of a shell there, as somebody who has put the programs on PATH.
    fn sh(&self, line: &str) -> Output {
        let programs = Path::new(env!("CARGO_BIN_EXE_supervisor")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "sh", "-c", line]);
        command
            .env("PATH", path)
            .env("SUPERVISOR_HOME", self.supervisor.home.path().join(HOME))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a line that must succeed; returns what it says on either output.
    fn ok(&self, line: &str) -> [String; 2] {
        let output = self.sh(line);
        let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{line}: {error}");
        [out, error]
    }

    /// Kills the keeper and the daemon, and waits until systemd has replaced them and they their processes.
    fn loses_both(&self) {
        let (before, _) = self.online();
        self.ok("set -- $(supervisor ping | grep -o '[0-9]*'); kill -STOP $1 $2; kill -KILL $1 $2");
        // `list` finds neither, and waits for systemd: a supervisor of its own would not have the listener.
        until("both were replaced, and the processes too", || {
            let (online, _) = self.online();
            online.len() == before.len() && !online.iter().any(|pid| before.contains(pid))
        });
    }

    /// What `ping` says about the keeper.
    fn keeper(&self) -> String {
        let [pong, _] = self.ok("supervisor ping | grep -o 'keeper [0-9]*'");
        pong.trim().trim_start_matches("keeper ").to_owned()
    }

    /// The processes of the apps that are online, by their ids there, and the names of all apps.
    fn online(&self) -> (Vec<i64>, Vec<String>) {
        let Ok(table) = serde_json::from_slice::<serde_json::Value>(&self.sh("supervisor list --json").stdout) else {
            return Default::default();
        };
        let all = table["instances"].as_array().cloned().unwrap_or_default();
        let online = all.iter().filter(|one| one["status"] == "online").filter_map(|one| one["pid"].as_i64());
        (online.collect(), all.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
    }
}

#[test]
fn under_systemd_no_request_fails_when_both_processes_die_and_what_was_deleted_stays_so() {
    let Some(machine) = Machine::boot() else { return };
    let address = free();
    let server = server();
    machine.ok(&format!("supervisor start {} -i 2 --name api --listen {address} -- --model current-thread", server.display()));
    machine.ok("supervisor start 'sleep 1000' --name other --min-uptime 10ms");
    // The commands that it prints, as they stand there.
    let [_, says] = machine.ok("supervisor startup");
    says.lines().filter_map(|line| line.strip_prefix("  ")).for_each(|line| drop(machine.ok(line)));
    until("the saved apps are there", || machine.online().0.len() == 3);
    machine.ok("supervisor delete other");

    let load = Load::start(&address);
    load.answers_more();
    machine.loses_both();
    let restarts = machine.ok("systemctl show --property NRestarts stallbench-supervisor.service");
    assert_eq!(restarts[0], "NRestarts=1\n");
    // A keeper that its daemon has started is no less systemd's.
    let keeper = machine.keeper();
    machine.ok(&format!("kill -KILL {keeper}"));
    until("there is another keeper", || machine.keeper() != keeper);
    let main = format!("MainPID={}\nActiveState=active\n", machine.keeper());
    let show = "systemctl show --property MainPID --property ActiveState stallbench-supervisor.service";
    until("systemd knows it", || machine.ok(show)[0] == main);
    machine.loses_both();
    load.answers_more();
    let (failures, _) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(machine.online().1, ["api", "api"]);

    let [commands, _] = machine.ok("supervisor unstartup");
    machine.ok(&commands);
    until("nobody listens any more", || connect(&address).is_err());
    machine.ok("! systemctl is-enabled stallbench-supervisor.service");
}
