//! The harness tested against itself, as far as it takes seconds: what was made to happen shows, what must not be believed is refused.

use std::process::Command;

#[test]
fn a_stopped_server_shows_and_a_stopped_driver_a_lie_and_a_late_tail_are_caught() {
    let output = Command::new(env!("CARGO_BIN_EXE_stallbench")).args(["check", "harness", "--small"]).output();
    let output = output.expect("stallbench runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "a self-test has failed; see above");
    for test in ["stopped-server", "stopped-driver", "wrong-body", "late-tail"] {
        assert!(text.contains(test), "{test} was not run");
    }
}
