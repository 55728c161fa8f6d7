//! What a request asks of the system, counted from outside.

use serde_json::Value;
use std::process::Command;

#[test]
fn a_request_on_tokio_reads_once_and_writes_once() {
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("NO_TEST_IS_SKIPPED").is_none(), "there is no strace");
        eprintln!("skipped: needs strace");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_stallbench")).args(["syscalls", "^tokio-current-thread$", "--json"]).output();
    let output = output.expect("stallbench runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tables: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let words = tables.to_string();
    // A page that shows the table has no round to say where it was measured.
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    assert!(words.contains(&format!("Linux {}", kernel.trim())) && words.contains("commit "), "{words}");
    let each = |call: &str| -> f64 {
        let (_, behind) = words.split_once(&format!("{call} ")).unwrap_or_else(|| panic!("no {call} in {words}"));
        behind.split([',', '"']).next().unwrap().parse().unwrap()
    };
    // A read that finds nothing would double the first.
    for call in ["recvfrom", "sendto"] {
        assert!((0.95..1.1).contains(&each(call)), "{call}: {} for each request", each(call));
    }
}
