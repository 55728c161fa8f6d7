//! What is damaged comes back from the saved apps.

mod common;

use common::{Supervisor, is_gone, signal, until};
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

#[test]
fn when_the_list_itself_is_damaged_the_saved_apps_come_back_as_they_were() {
    let supervisor = Supervisor::new();
    for (name, instances) in [("app", "2"), ("stopped", "1"), ("unsaved", "1")] {
        supervisor.ok(&["start", "sleep 1000", "--name", name, "-i", instances, "--min-uptime", "10ms"]);
        if name == "stopped" {
            supervisor.ok(&["stop", name]);
            supervisor.ok(&["save"]);
        }
    }
    let both = [supervisor.role("keeper"), supervisor.role("daemon")];
    both.iter().for_each(|pid| signal("STOP", *pid));
    both.iter().for_each(|pid| signal("KILL", *pid));
    until("both have ended", || both.iter().all(|pid| is_gone(*pid)));
    // As a power failure may leave it.
    fs::write(supervisor.path().join("state.json"), "").unwrap();
    let listed = || {
        let list = supervisor.list();
        let mut all: Vec<String> = list.iter().map(|one| format!("{} {}", one["name"], one["status"]).replace('"', "")).collect();
        all.sort();
        all
    };
    assert_eq!(listed(), ["app stopped", "stopped stopped", "unsaved stopped"]);
    assert!(supervisor.listed()["remarks"].to_string().contains("run `supervisor resurrect` for the saved apps"));
    // The next daemon still knows that it does not know more.
    let daemon = supervisor.role("daemon");
    signal("KILL", daemon);
    until("there is another", || supervisor.role("daemon") != daemon);
    supervisor.ok(&["resurrect"]);
    assert_eq!(listed(), ["app online", "app online", "stopped stopped", "unsaved stopped"]);
    // What was stopped on purpose meanwhile stays so.
    supervisor.ok(&["stop", "app"]);
    supervisor.ok(&["resurrect"]);
    assert_eq!(listed()[0], "app stopped");
}
