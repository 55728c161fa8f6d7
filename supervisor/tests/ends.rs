//! What ends with an app and with the supervisor, and what does not.

mod common;

use common::{Supervisor, is_gone, signal, until};
use std::fs;

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
