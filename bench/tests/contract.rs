//! Every server keeps its contract: the same checks that `stallbench check` runs.

use std::io::Write;
use std::process::Command;

#[test]
fn every_server_keeps_its_contract_or_says_which_line_it_cannot() {
    let output = Command::new(env!("CARGO_BIN_EXE_stallbench")).arg("check").output().expect("stallbench runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    // Around what a test that passes has printed: what was skipped must be seen.
    let skipped = text.lines().filter(|line| line.contains("skipped: unavailable"));
    skipped.for_each(|line| writeln!(std::io::stderr(), "{line}").expect("stderr is there"));
    assert!(output.status.success(), "some lines of the contract are broken; see above");
}
