//! The unit that `startup` prints, for a folder whose name has whatever systemd takes as special.

mod common;

use common::{Supervisor, has};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What systemd expands or splits, and what it unescapes as well. A program with such a path, a shell has to run.
const FOLDERS: [(&str, &str); 2] =
    [("a b%n$HOME${HOME}ü;#", ""), ("a b%n$HOME${HOME}'q\"r\\t\\ü;#", r#"/bin/sh -c "exec \"$0\" \"$@\"" "#)];

/// Returns a word of a unit as systemd reads it: unquoted, unescaped, and with its specifiers expanded.
fn read(word: &str) -> String {
    let inner = word.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
    let (mut text, mut characters) = (String::new(), inner.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(|next| "\\\"".contains(*next)).expect("an escape that is none")),
            '"' => panic!("the word ends early: {word}"),
            _ => text.push(character),
        }
    }
    assert!(!text.replace("%%", "").contains('%'), "a specifier in {word}");
    text.replace("%%", "%")
}

#[test]
fn the_printed_unit_means_the_folder_and_the_program_whatever_they_are_called() {
    for (name, shell) in FOLDERS {
        check(name, shell);
    }
}

fn check(name: &str, shell: &str) {
    let supervisor = Supervisor::new();
    let folder = supervisor.home.path().join(name);
    fs::create_dir(&folder).unwrap();
    for name in ["supervisor", "supervisor-keeper"] {
        fs::copy(Path::new(env!("CARGO_BIN_EXE_supervisor")).with_file_name(name), folder.join(name)).unwrap();
    }
    let home = folder.join("h");
    let output = Command::new(folder.join("supervisor")).arg("startup").env("SUPERVISOR_HOME", &home).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let unit = String::from_utf8(output.stdout).unwrap();
    let line = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}:\n{unit}"));
    assert_eq!(read(line("Environment=")), format!("SUPERVISOR_HOME={}", home.display()));
    let program = folder.join("supervisor").display().to_string();
    // With a colon, systemd expands no variables in it.
    for (key, arguments, expected) in [
        ("ExecStart=:", " keeper", format!("{program}-keeper")),
        ("ExecStartPost=-:", " resurrect --boot", program.clone()),
        ("ExecStop=:", " kill", program),
    ] {
        let program = line(key).strip_prefix(shell).and_then(|rest| rest.strip_suffix(arguments));
        assert_eq!(read(program.unwrap_or_else(|| panic!("{unit}"))), expected);
    }
    let file = folder.with_file_name("stallbench-supervisor.service");
    fs::write(&file, &unit).unwrap();
    if has("systemd-analyze") {
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // It looks at other units as well, and one of an earlier version does not know all keys.
        let is_ours = |line: &str| line.contains("stallbench-supervisor") && !line.contains("Unknown key");
        assert!(!said.lines().any(is_ours), "{said}");
    }
}

#[test]
fn a_line_break_in_the_name_of_the_folder_adds_nothing_to_the_unit() {
    let supervisor = Supervisor::new();
    let home = supervisor.home.path().join("h\nExecStartPre=touch x\\");
    let output = supervisor.command(&["startup"]).env("SUPERVISOR_HOME", &home).output().unwrap();
    let unit = String::from_utf8(output.stdout).unwrap();
    assert!(!unit.lines().any(|line| line.starts_with("ExecStartPre")), "{unit}");
    assert!(!unit.lines().any(|line| line.ends_with('\\')), "{unit}");
    let environment = unit.lines().find(|line| line.starts_with("Environment=")).unwrap();
    assert!(environment.ends_with(r#"/h\nExecStartPre=touch x\\""#), "{environment}");
}
