//! Every server keeps its contract: one test for each, which runs what `stallbench check NAME` runs.
//!
//! `cargo test -p bench --test contract -- smol` runs those of smol. Two servers are checked at a time: the checks mostly wait, but many of them
//! depend on timing, which more at a time would disturb.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::process::{Command, ExitCode, Output};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let listed = stallbench(&["servers", "--json"]);
    let servers: Vec<Value> = serde_json::from_slice(&listed.stdout).expect("a list of servers");
    let trials = servers.iter().filter(|server| server["is_optional"] != true).map(|server| trial(server, &arguments)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The check of one server; one that cannot run here is listed with the reason and ignored. It is built here, before any check begins: building
/// replaces the modules of Node, which another server may be running from.
fn trial(server: &Value, arguments: &Arguments) -> Trial {
    let name = server["name"].as_str().expect("a name").to_owned();
    let is_asked = arguments.filter.as_ref().is_none_or(|filter| name.contains(filter))
        && !arguments.skip.iter().any(|skipped| name.contains(skipped));
    let will_run = is_asked && !arguments.list && server["missing"].is_null();
    let built = if will_run { succeeded(&stallbench(&["build", &format!("^{name}$")])) } else { Ok(()) };
    let test = Trial::test(name.clone(), move || built.and_then(|()| check(&name)));
    match server["missing"].as_str() {
        Some(reason) => test.with_kind(format!("unavailable({reason})")).with_ignored_flag(true),
        None => test,
    }
}

fn check(name: &str) -> Result<(), Failed> {
    // A name may be part of another, so the pattern is anchored.
    succeeded(&stallbench(&["check", "--no-build", &format!("^{name}$")]))
}

fn succeeded(output: &Output) -> Result<(), Failed> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).into())
}

fn stallbench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stallbench")).args(arguments).output().expect("stallbench runs")
}
