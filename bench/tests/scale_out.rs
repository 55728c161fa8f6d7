//! `stallbench scale-out`: run as a whole, killed in the middle, and refused. A test whose needs are not met is listed as ignored, with the reason.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A server with one loop.
const SERVER: &str = "tokio-current-thread";
type Test = fn() -> Result<(), Failed>;

/// The user that may do nothing.
const NOBODY: u32 = 65_534;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let tests: [(&str, Test); 3] = [
        ("several_hosts_lose_nothing_in_a_reload_or_in_a_database", several_hosts_lose_nothing),
        ("nothing_is_left_when_it_is_killed", nothing_is_left_when_it_is_killed),
        ("without_root_it_says_that_it_is_unavailable", without_root_it_says_that_it_is_unavailable),
    ];
    let missing = missing();
    let trial = |(name, test): (&str, Test)| match &missing {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, test).with_kind(format!("unavailable({reason})")).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

fn missing() -> Option<String> {
    let namespaces = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "true"];
    let tools: [&[&str]; 3] = [&["haproxy", "-v"], &["ip", "-V"], &namespaces];
    let works = |tool: &&[&str]| {
        let status = Command::new(tool[0]).args(&tool[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    tools.iter().find(|tool| !works(tool)).map(|tool| tool.join(" "))
}

fn scale_out() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    command.args(["scale-out", SERVER, "--trials", "1"]);
    command
}

fn several_hosts_lose_nothing() -> Result<(), Failed> {
    let output = scale_out().arg("--json").output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(words.into());
    }
    let text = String::from_utf8(output.stdout)?;
    let tables: Vec<Value> = serde_json::from_str(&text)?;
    let [collateral, outages, memory, database] = &tables[..] else { return Err(format!("four tables: {text}").into()) };
    let rows = |table: &Value| table["rows"].as_array().cloned().unwrap_or_default();
    if rows(collateral).len() != 4 || rows(memory).len() != 4 {
        return Err(format!("four setups: {text}").into());
    }
    for row in rows(outages) {
        let cell = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| cell(name).split(' ').next().and_then(|word| word.parse::<u32>().ok());
        // The balancer is asked about once in a millisecond how many are in flight, and one more may be given to the host after the last time.
        let is_bounded = number("host killed: failed") <= number("in flight on it").map(|count| count + 1);
        if number("reload: failed") != Some(0) || !is_bounded {
            return Err(format!("more failed than may: {row}").into());
        }
    }
    for row in rows(database) {
        if ["not seen", "lost", "doubled", "misnumbered"].iter().any(|fault| row[fault] != "0 %") {
            return Err(format!("launches went wrong in a database: {row}").into());
        }
    }
    Ok(())
}

fn nothing_is_left_when_it_is_killed() -> Result<(), Failed> {
    let links = links()?;
    let mut running = scale_out().stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(running.stderr.take().ok_or("no output")?);
    let mut line = String::new();
    while !line.contains("trial 1") {
        line.clear();
        if said.read_line(&mut line)? == 0 {
            return Err("it ended by itself".into());
        }
    }
    // Servers and balancer run by then.
    let begun = Instant::now();
    let mut below = BTreeSet::new();
    while !below.iter().any(|pid| command_of(*pid).contains("haproxy")) {
        below = descendants(running.id());
        if begun.elapsed() > Duration::from_secs(60) {
            let _ = running.kill();
            return Err("no balancer for a minute".into());
        }
    }
    running.kill()?;
    running.wait()?;
    let killed = Instant::now();
    while let Some(pid) = below.iter().find(|pid| !command_of(**pid).is_empty()) {
        if killed.elapsed() > Duration::from_secs(10) {
            return Err(format!("left: {} {}", pid, command_of(*pid)).into());
        }
    }
    if links == self::links()? { Ok(()) } else { Err("it left a network interface".into()) }
}

fn without_root_it_says_that_it_is_unavailable() -> Result<(), Failed> {
    // A copy where everybody may run it.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let program = folder.path().join("stallbench");
    fs::copy(env!("CARGO_BIN_EXE_stallbench"), &program)?;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut command = Command::new(&program);
    command.args(["--root", root, "scale-out", SERVER]).current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_said = output.status.success() && text.starts_with("scale-out: unavailable(") && text.contains("root");
    if is_said { Ok(()) } else { Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)).into()) }
}

/// The network interfaces of this machine.
fn links() -> Result<BTreeSet<String>, Failed> {
    Ok(fs::read_dir("/sys/class/net")?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// The command line of a process; empty once it is gone or only its exit code is left.
fn command_of(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// All processes below one.
fn descendants(of: u32) -> BTreeSet<u32> {
    let (mut found, mut next) = (BTreeSet::new(), vec![of]);
    while let Some(pid) = next.pop() {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split(' ').filter_map(|child| child.trim().parse().ok()) {
                found.insert(child);
                next.push(child);
            }
        }
    }
    found
}
