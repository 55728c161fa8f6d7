//! A server keeps its launches in PostgreSQL, as `stallbench check database` verifies. Without PostgreSQL the test is listed as ignored, with the reason.

use libtest_mimic::{Arguments, Trial};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, vec![Trial::test("database", || Ok(()))]).exit_code();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_stallbench")).args(["check", "database"]).output().expect("stallbench runs");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let reason = words.split_once("skipped: ").map(|(_, reason)| reason.trim().to_owned());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let succeeded = output.status.success();
    let test = Trial::test("database", move || if succeeded { Ok(()) } else { Err(format!("{words}{errors}").into()) });
    let test = match reason {
        Some(reason) => test.with_kind(reason).with_ignored_flag(true),
        None => test,
    };
    libtest_mimic::run(&arguments, vec![test]).exit_code()
}
