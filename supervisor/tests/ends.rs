//! What ends with an app and with the supervisor, and what does not.

mod common;

use common::{Supervisor, is_gone, until};
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
