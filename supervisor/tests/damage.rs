//! What is damaged comes back from the saved apps.

mod common;

use common::{Supervisor, signal, until};
use std::fs;

#[test]
fn an_app_whose_specification_is_lost_stays_saved_and_comes_back_from_there() {
    let supervisor = Supervisor::new();
    let start = |name: &str| drop(supervisor.ok(&["start", "sleep 1000", "--name", name, "--min-uptime", "10ms"]));
    ["app", "other"].into_iter().for_each(start);
    supervisor.ok(&["save"]);
    start("unsaved");
    for name in ["app", "unsaved"] {
        fs::write(supervisor.path().join(format!("specs/{name}.json")), "{").unwrap();
    }
    signal("KILL", supervisor.role("daemon"));
    let damaged = || supervisor.list().iter().filter(|one| one["status"] == "damaged").count();
    until("they are lost", || damaged() == 2);
    let said = supervisor.ok(&["save"]);
    assert!(said.contains("saved 2 apps") && said.contains("but not what is damaged: unsaved"), "{said}");
    supervisor.ok(&["resurrect"]);
    assert_eq!(damaged(), 1, "{:?}", supervisor.list());
    supervisor.ok(&["restart", "app"]);
    let remarks = supervisor.listed()["remarks"].to_string();
    assert!(!remarks.contains("of app is lost") && remarks.contains("of unsaved is lost"), "{remarks}");
}
