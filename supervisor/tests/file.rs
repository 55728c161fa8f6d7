//! Apps that are described in a file: a supervisor.toml, or one of PM2's.

mod common;

use common::load::connect;
use common::{Supervisor, free, has, server, until};
use std::fs;
use std::path::PathBuf;

fn file(supervisor: &Supervisor, text: &str) -> PathBuf {
    let path = supervisor.home.path().join("supervisor.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_file_is_applied_and_only_what_differs_changes() {
    let supervisor = Supervisor::new();
    let server = server();
    let addresses = [(); 3].map(|()| free());
    let app = |name: &str, more: &str| {
        let program = server.display();
        let listen = &addresses[["one", "two", "three"].iter().position(|own| *own == name).unwrap()];
        format!(
            "[[app]]\nstart = \"{program}\"\nname = \"{name}\"\nlisten = [\"{listen}\"]\narguments = [\"--model\", \"current-thread\"]\n{more}\n"
        )
    };
    let path = file(&supervisor, &[app("one", ""), app("two", "env = { X = 1 }")].concat());
    let path = path.to_str().unwrap();
    supervisor.ok(&["apply", path]);
    let pids = |name: &str| {
        supervisor.list().iter().filter(|one| one["name"] == name).map(|one| one["pid"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let (one, two) = (pids("one"), pids("two"));
    assert_eq!(supervisor.ok(&["apply", path, "--dry-run"]), "= one\n= two\n");
    file(&supervisor, &[app("two", "env = { X = 2 }\ninstances = 2"), app("three", "depends-on = [\"two\"]")].concat());
    let plan = supervisor.ok(&["apply", path, "--dry-run"]);
    assert_eq!(
        plan,
        "~ two: is reloaded: X changed; gets 2 instances\n+ three: starts\n- one: is not in the file, and stays: --prune deletes it\n"
    );
    let said = supervisor.fails(&["start", path]);
    assert!(said.contains("(X, number of instances): run `supervisor apply"), "{said}");
    supervisor.ok(&["apply", path, "--only", "three"]);
    assert_eq!((pids("one"), pids("two"), pids("three").len()), (one.clone(), two.clone(), 1));
    supervisor.ok(&["apply", path]);
    assert_eq!((pids("one"), pids("two").len()), (one, 2));
    assert!(!pids("two").contains(&two[0]));
    for pid in pids("two") {
        assert!(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap()).contains("\0X=2\0"));
    }
    supervisor.ok(&["apply", path, "--prune"]);
    assert!(pids("one").is_empty());
    assert_eq!(supervisor.ok(&["apply", path, "--dry-run"]), "= two\n= three\n");
    assert!(supervisor.fails(&["apply", path, "--only", "nobody"]).contains("has no app nobody"));
}

#[test]
fn an_app_that_gets_another_name_keeps_its_address_and_nothing_is_deleted_after_a_failure() {
    let supervisor = Supervisor::new();
    let (server, address) = (server(), free());
    let app = |name: &str, address: &str| {
        format!(
            "[[app]]\nstart = \"{}\"\nname = \"{name}\"\nlisten = [\"{address}\"]\narguments = [\"--model\", \"current-thread\"]\n",
            server.display()
        )
    };
    let path = file(&supervisor, &app("old", &address));
    let path = path.to_str().unwrap();
    supervisor.ok(&["apply", path]);
    file(&supervisor, &app("new", &address));
    assert_eq!(
        supervisor.ok(&["apply", path, "--prune", "--dry-run"]),
        "- old: is deleted, and new takes its place\n+ new: starts\n"
    );
    supervisor.ok(&["apply", path, "--prune"]);
    assert!(connect(&address).is_ok());
    assert_eq!(supervisor.list().iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["new"]);
    // The next file cannot be applied, and so takes nothing down.
    let before = supervisor.pids();
    let bad = "[[app]]\nstart = \"false\"\nname = \"bad\"\nmax-restarts = 0\n";
    file(&supervisor, bad);
    let said = supervisor.fails(&["apply", path, "--prune"]);
    assert!(said.contains("until the rest of the file is applied, these stay: new;"), "{said}");
    assert!(connect(&address).is_ok() && before.iter().all(|pid| supervisor.pids().contains(pid)));
}

#[test]
fn a_change_starts_what_was_given_up_and_not_what_somebody_has_stopped() {
    let supervisor = Supervisor::new();
    let app = |seconds: &str| {
        let options = "min-uptime = \"50ms\"\nmax-restarts = 1\nrestart-delay = \"1ms\"";
        format!("[[app]]\nstart = \"sleep\"\nname = \"app\"\narguments = [\"{seconds}\"]\n{options}\n")
    };
    let path = file(&supervisor, &app("nonsense"));
    let path = path.to_str().unwrap();
    supervisor.fails(&["apply", path]);
    until("it is given up", || supervisor.list()[0]["status"] == "errored");
    file(&supervisor, &app("1000"));
    assert_eq!(supervisor.ok(&["apply", path]), "app was reloaded\n");
    assert_eq!(supervisor.list()[0]["status"], "online");
    supervisor.ok(&["stop", "app"]);
    file(&supervisor, &app("1001"));
    assert_eq!(supervisor.ok(&["apply", path]), "app was changed, and stays stopped\n");
    assert_eq!(supervisor.list()[0]["status"], "stopped");
}

#[test]
fn a_file_starts_with_the_variables_and_the_apps_that_are_named() {
    let supervisor = Supervisor::new();
    let app = |name: &str| {
        format!(
            "[[app]]\nstart = \"sleep 1000\"\nname = \"{name}\"\nmin-uptime = \"10ms\"\n[app.env]\nMODE = \"usual\"\n[app.env.production]\nMODE = \"hard\"\n"
        )
    };
    let path = file(&supervisor, &[app("one"), app("two")].concat());
    let path = path.to_str().unwrap();
    assert!(supervisor.fails(&["start", path, "--only", "three"]).contains("has no app three"));
    supervisor.ok(&["start", path, "--env", "production", "--only", "one"]);
    assert!(supervisor.ok(&["env", "one"]).contains("MODE=hard\n"));
    assert_eq!(supervisor.list().len(), 1);
    supervisor.ok(&["start", path, "--only", "two"]);
    assert!(supervisor.ok(&["env", "two"]).contains("MODE=usual\n"));
}

#[test]
fn an_address_that_changes_is_bound_before_the_old_one_is_left() {
    let supervisor = Supervisor::new();
    let (old, new) = (free(), free());
    let text = |address: &str| {
        let program = server();
        format!(
            "[[app]]\nstart = \"{}\"\nname = \"api\"\nlisten = [\"{address}\"]\narguments = [\"--model\", \"current-thread\"]\n",
            program.display()
        )
    };
    let path = file(&supervisor, &text(&old));
    supervisor.ok(&["apply", path.to_str().unwrap()]);
    file(&supervisor, &text(&new));
    supervisor.ok(&["apply", path.to_str().unwrap()]);
    assert!(connect(&new).is_ok());
    until("the old one is closed", || connect(&old).is_err());
    // A bad build changes nothing.
    file(&supervisor, &text(&free()).replace("current-thread", "nonsense"));
    let before = supervisor.pids();
    supervisor.fails(&["apply", path.to_str().unwrap()]);
    assert_eq!((supervisor.pids(), supervisor.list()[0]["listeners"][0].as_str()), (before, Some(new.as_str())));
}

#[test]
fn when_one_instance_cannot_change_those_that_have_go_back() {
    let supervisor = Supervisor::new();
    let wrong = "[ \"$X$SUPERVISOR_INSTANCE\" = new1 ] && exit 1";
    let app = supervisor.script("app", &format!("{wrong}\necho up\nexec sleep 1000"));
    let address = free();
    let text = |x: &str| {
        format!(
            "[[app]]\nstart = \"{app}\"\ninstances = 2\nlisten = [\"{address}\"]\nready-when = \"log:up\"\nenv = {{ X = \"{x}\" }}\n"
        )
    };
    let path = file(&supervisor, &text("old"));
    supervisor.ok(&["apply", path.to_str().unwrap()]);
    let first = supervisor.pids();
    file(&supervisor, &text("new"));
    let said = supervisor.fails(&["apply", path.to_str().unwrap()]);
    assert!(said.contains("exited with 1"), "{said}");
    let is_old = |pid: &i64| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|own| own.split(|byte| *byte == 0).any(|one| one == b"X=old"))
    };
    until("both are as they were", || {
        let pids = supervisor.pids();
        pids.len() == 2 && pids[0] != first[0] && pids[1] == first[1] && pids.iter().all(is_old)
    });
    assert_eq!(supervisor.ok(&["apply", file(&supervisor, &text("old")).to_str().unwrap(), "--dry-run"]), "= app\n");
}

#[test]
fn a_limit_on_memory_that_a_file_adds_is_kept() {
    let supervisor = Supervisor::new();
    let text = |more: &str| format!("[[app]]\nstart = \"sleep 1000\"\nmin-uptime = \"10ms\"\n{more}");
    let path = file(&supervisor, &text(""));
    supervisor.ok(&["apply", path.to_str().unwrap()]);
    file(&supervisor, &text("max-memory-restart = \"10K\"\n"));
    supervisor.ok(&["apply", path.to_str().unwrap()]);
    until("it is replaced", || supervisor.list()[0]["restarts"].as_u64().is_some_and(|restarts| restarts > 0));
}

#[test]
fn pm2s_files_become_one_that_start_takes() {
    let supervisor = Supervisor::new();
    let ecosystem = supervisor.home.path().join("ecosystem.json");
    fs::write(
        &ecosystem,
        r#"{"apps":[{"name":"job","script":"./job.sh","min_uptime":50,"instances":2,"post_update":["npm install"]}]}"#,
    )
    .unwrap();
    fs::write(supervisor.home.path().join("job.sh"), "while :; do sleep 0.05; done\n").unwrap();
    let path = supervisor.home.path().join("supervisor.toml");
    let output = supervisor.run(&["import", ecosystem.to_str().unwrap(), "-o", path.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("post_update has no counterpart here"));
    supervisor.ok(&["start", path.to_str().unwrap()]);
    assert_eq!(supervisor.pids().len(), 2);
}

#[test]
fn a_file_of_pm2s_that_begins_something_else_is_read_without_waiting_for_its_end() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let ecosystem = supervisor.home.path().join("ecosystem.config.js");
    let text = "setInterval(() => {}, 1000);\nmodule.exports = { apps: [{ name: 'api', script: 'app.js', node_args: ['-r', './x y.js'] }] };\n";
    fs::write(&ecosystem, text).unwrap();
    let output = supervisor.run(&["import", ecosystem.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("name = \"api\""), "{output:?}");
    // An interpreter's words have no spaces.
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("node_args = [\"-r\",\"./x y.js\"] has no counterpart"),
        "{output:?}"
    );
}

#[test]
fn a_file_of_pm2s_may_be_a_module_or_data_with_comments() {
    if !has("node") {
        return;
    }
    let supervisor = Supervisor::new();
    let file = |name: &str, text: &str| {
        fs::write(supervisor.home.path().join(name), text).unwrap();
        supervisor.home.path().join(name).to_str().unwrap().to_owned()
    };
    let module = "export default { apps: [{ name: 'api', script: 'app.js' }] };\n";
    let data = "{ // all of them\n  \"apps\": [{ name: 'api', \"script\": \"app.js\", }]\n}\n";
    let named = "export const apps = [{ name: 'api', script: await Promise.resolve('app.js') }];\n";
    let apps = [("apps.config.mjs", module), ("process.json", data), ("named.mjs", named)].map(|(name, text)| file(name, text));
    file("package.json", "{\"type\":\"module\"}");
    for app in apps.into_iter().chain([file("ecosystem.config.js", module)]) {
        let text = supervisor.ok(&["import", &app]);
        assert!(text.ends_with("name = \"api\"\nstart = \"app.js\"\n"), "{app}: {text}");
    }
    let said = supervisor.fails(&["import", &file("wrong.json", "{ \"apps\": [}\n")]);
    assert!(said.contains("is not JSON: expected value at line 1 column 12"), "{said}");
}

#[test]
fn what_an_app_of_a_file_cannot_have_is_said_with_the_line_of_the_app() {
    let supervisor = Supervisor::new();
    let file = supervisor.home.path().join("supervisor.toml");
    for (key, why) in [
        ("namespace = \"a b\"", "is not a valid namespace"),
        ("listen = \"127.0.0.1:70000\"", "is not an address"),
        ("cwd = \"nowhere\"", "nowhere"),
        ("log = \".\"", "is a folder"),
    ] {
        fs::write(&file, format!("[[app]]\nname = \"api\"\nstart = \"sleep 100\"\n{key}\n")).unwrap();
        for verb in ["apply", "start"] {
            let said = supervisor.fails(&[verb, file.to_str().unwrap()]);
            assert!(said.contains("supervisor.toml:3: ") && said.contains(why), "{verb} {key}: {said}");
        }
    }
}

#[test]
fn two_apps_of_one_name_are_refused_with_their_lines() {
    let supervisor = Supervisor::new();
    let path = file(&supervisor, "[[app]]\nstart = \"sleep 1000\"\n[[app]]\nstart = \"sleep 999\"\n");
    let path = path.to_str().unwrap();
    for command in [&["start", path][..], &["apply", path], &["apply", path, "--dry-run"], &["run", path]] {
        let said = supervisor.fails(command);
        assert!(said.contains("supervisor.toml:4: sleep is the name of the app in line 2 too: set name"), "{command:?}: {said}");
    }
}

#[test]
fn a_namespace_is_no_id_and_no_other_target() {
    let supervisor = Supervisor::new();
    for namespace in ["0", "all", "", "x y*"] {
        let said = supervisor.fails(&["start", "sleep 1000", "--namespace", namespace]);
        assert!(said.contains("namespace"), "{namespace}: {said}");
    }
}

#[test]
fn a_file_reached_by_another_path_is_the_same_file_and_a_link_in_it_stays() {
    let supervisor = Supervisor::new();
    let folder = supervisor.home.path();
    for release in ["1", "2"] {
        fs::create_dir(folder.join(release)).unwrap();
        fs::write(folder.join(release).join("app.sh"), "sleep 1000\n").unwrap();
        let app = |name: &str| format!("[[app]]\nstart = \"app.sh\"\nname = \"{name}\"\nmin-uptime = \"10ms\"\n");
        let text = if release == "1" { app("a") + &app("b") } else { app("a") };
        fs::write(folder.join(release).join("s.toml"), text).unwrap();
    }
    let current = folder.join("current");
    std::os::unix::fs::symlink("1", &current).unwrap();
    let from = |directory: &std::path::Path, words: &[&str]| {
        let output = supervisor.command(words).current_dir(directory).env("PWD", directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    from(&current, &["apply", "s.toml"]);
    let absolute = current.join("s.toml");
    assert_eq!(from("/".as_ref(), &["apply", absolute.to_str().unwrap(), "--dry-run"]), "= a\n= b\n");
    from("/".as_ref(), &["apply", absolute.to_str().unwrap()]);
    // The next release has no b.
    fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink("2", &current).unwrap();
    from("/".as_ref(), &["reload", "a"]);
    let directory = fs::read_link(format!("/proc/{}/cwd", supervisor.list()[0]["pid"])).unwrap();
    assert_eq!(directory, folder.canonicalize().unwrap().join("2"));
    let plan = from(folder, &["apply", "current/../2/s.toml", "--prune", "--dry-run"]);
    assert!(plan.contains("- b: is deleted"), "{plan}");
}

#[test]
fn what_was_given_up_starts_again_when_its_file_is_applied() {
    let supervisor = Supervisor::new();
    let flag = supervisor.home.path().join("flag");
    let script = supervisor.script("repaired", &format!("[ -e {} ] && exec sleep 1000; exit 3", flag.display()));
    let path =
        file(&supervisor, &format!("[[app]]\nstart = \"{script}\"\nname = \"app\"\nmax-restarts = 0\nmin-uptime = \"1s\"\n"));
    let path = path.to_str().unwrap();
    supervisor.fails(&["apply", path]);
    fs::write(&flag, "").unwrap();
    assert_eq!(supervisor.ok(&["apply", path, "--dry-run"]), "~ app: is errored, and starts again\n");
    supervisor.ok(&["apply", path]);
    assert_eq!(supervisor.list()[0]["status"], "online");
}
