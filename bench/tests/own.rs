//! A user's own service: what the screen says of it, and what wrong words are answered with.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One measurement at a time: two would disturb each other.
static MACHINE: Mutex<()> = Mutex::new(());

/// Measures until the driver was not kept waiting, which it says with exit code 3.
fn measured(attempt: impl FnMut(u32) -> Output) -> Output {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    (0..5).map(attempt).find(|output| output.status.code() != Some(3)).expect("a quiet moment")
}

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    command.args(arguments).stdin(Stdio::null()).output().expect("stallbench runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds what these tests measure, once and outside of what they time out on.
fn built() {
    assert!(output(&["build", "tokio-current-thread"]).status.success());
}

#[test]
fn a_service_of_ones_own_gets_a_verdict_bars_and_advice() {
    built();
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("own").display().to_string();
    let binary = Path::new(env!("CARGO_BIN_EXE_stallbench")).parent().unwrap().join("../release/runtime-tokio");
    let command = format!("cd / && {} --model current-thread --listen 127.0.0.1:{{port}}", binary.display());
    let own = ["bench", "--command", &command, "--blocker", "/sleep?ms=60", "--alone", "--quick"];
    let load = ["--slow-share", "5%", "--rate", "200"];
    let attempt = |number: u32| {
        let folder = format!("{folder}.{number}");
        output(&[own.as_slice(), &load, &["--out", &folder]].concat())
    };
    let output = measured(attempt);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // However the lines are broken.
    let shown = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text(&output.stdout).lines().count() < 40, "one screen: {shown}");
    assert!(shown.contains("yours: one slow request of 6") && shown.contains("freeze every other request"), "{shown}");
    assert!(shown.contains("slow requests at a time on average") && shown.contains("<- your load"), "{shown}");
    assert!(shown.contains("docs/your-own-server.md"), "{shown}");
    compared_to_one_with_longer_requests(base.path());
}

/// T is measured anew in each round, which must not keep two rounds from being compared.
fn compared_to_one_with_longer_requests(base: &Path) {
    let first =
        fs::read_dir(base).unwrap().flatten().map(|entry| entry.path()).find(|path| path.join("report.html").exists()).unwrap();
    let header: Value = serde_json::from_str(&fs::read_to_string(first.join("round.json")).unwrap()).unwrap();
    let took = header["settings"]["experiments"]["service"]["block_ms"].as_f64().unwrap();
    let second = base.join("longer");
    fs::create_dir(&second).unwrap();
    for file in ["round.json", "trials.jsonl"] {
        let mut text = fs::read_to_string(first.join(file)).unwrap();
        for space in ["", " "] {
            text = text.replace(&format!("\"block_ms\":{space}{took:?}"), &format!("\"block_ms\":{}", took + 100.0));
        }
        fs::write(second.join(file), text).unwrap();
    }
    let [first, second] = [&first, &second].map(|path| path.display().to_string());
    let compared = output(&["compare", "--all", &first, &second]);
    let shown = text(&compared.stdout);
    assert!(shown.contains("p99_ms[slow,1]") && shown.contains("freeze_k[slow,100ms]"), "{shown}{}", text(&compared.stderr));
    assert!(shown.contains(&format!("the slow requests took {took} and {} ms alone", took + 100.0)), "{shown}");
    let report = output(&["report", &first, &second]);
    assert!(report.status.success(), "{}", text(&report.stderr));
}

#[test]
fn a_folder_that_exists_is_refused_before_a_service_is_asked_and_a_round_of_ones_own_is_not_resumed() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().display().to_string();
    let refused = output(&["bench", "--url", "http://127.0.0.1:1", "--blocker", "/slow", "--out", &folder]);
    let words = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("never overwritten: choose another with --out") && !words.contains("--resume"), "{words}");
}

/// A server on threads of its own, whose slow requests take 60 ms. It refuses a request by whether it is a slow one, and how many slow ones are
/// in flight.
fn refusing_server(refuses: fn(bool, usize) -> bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slow = Arc::new(AtomicUsize::new(0));
    let serve = move |stream: TcpStream, slow: &AtomicUsize| {
        let (mut input, mut output) = (BufReader::new(stream.try_clone().unwrap()), stream);
        let mut line = String::new();
        while input.read_line(&mut line).is_ok_and(|count| count > 0) {
            let is_slow = line.contains("/slow");
            while input.read_line(&mut line).is_ok_and(|count| count > 2) {}
            line.clear();
            let is_refused = refuses(is_slow, slow.load(Ordering::SeqCst));
            if is_slow && !is_refused {
                slow.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(60));
                slow.fetch_sub(1, Ordering::SeqCst);
            }
            let status = if is_refused { "503 x" } else { "200 OK" };
            if output.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
                return;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let slow = Arc::clone(&slow);
            std::thread::spawn(move || serve(stream, &slow));
        }
    });
    address
}

/// The value of a header, which no file may keep.
const SECRET: &str = "Bearer 7cb1e2";

/// What the screen says of such a server.
fn screen(refuses: fn(bool, usize) -> bool) -> String {
    let base = tempfile::tempdir().unwrap();
    let url = format!("http://{}/", refusing_server(refuses));
    let attempt = |number: u32| {
        let folder = base.path().join(number.to_string()).display().to_string();
        let header = format!("Authorization: {SECRET}");
        output(&["bench", "--url", &url, "--blocker", "/slow", "--alone", "--quick", "--header", &header, "--out", &folder])
    };
    let output = measured(attempt);
    let shown = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    let folders = fs::read_dir(base.path()).unwrap().flatten();
    for file in folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap()).flatten() {
        assert!(!text(&fs::read(file.path()).unwrap()).contains(SECRET), "{} keeps a secret", file.path().display());
    }
    shown
}

#[test]
fn a_service_that_refuses_its_quick_requests_is_not_called_healthy() {
    let shown = screen(|is_slow, in_flight| !is_slow && in_flight > 0);
    assert!(shown.contains("yours: one slow request makes other requests fail."), "{shown}");
    assert!(shown.contains("Quick requests failed: ") && shown.contains(" with 1 slow"), "{shown}");
    assert!(!shown.contains("leave the quick ones alone") && !shown.contains("Nothing to change"), "{shown}");
}

#[test]
fn slow_requests_that_are_refused_are_not_called_harmless() {
    let shown = screen(|is_slow, in_flight| is_slow && in_flight > 0);
    assert!(shown.contains("yours: one slow request of 6"), "{shown}");
    // Whether the quick ones are frozen beside many refusals is up to the machine; that many slow ones are harmless was never seen.
    assert!(!shown.contains("up to"), "{shown}");
    let listed = shown.split("Slow requests failed: ").nth(1).unwrap_or_else(|| panic!("{shown}"));
    let beside: Vec<&str> = listed.split('.').next().unwrap().split(", ").collect();
    assert!(beside[0].ends_with(" with 2 slow") && beside.iter().any(|one| one.ends_with(" with 64 slow")), "{shown}");
    // Each client asks about once in 60 ms, however fast it is refused.
    let asked: f64 = beside.last().unwrap().split(' ').nth(2).unwrap().replace(',', "").parse().unwrap();
    assert!(asked <= 64.0 * 1200.0 / 60.0, "{asked}: {shown}");
    assert!(!shown.contains("Nothing to change"), "{shown}");
}

/// A server on threads of its own that listens no more as soon as four slow requests are in flight.
fn mortal_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (slow, is_dead) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let serve = move |stream: TcpStream, slow: &AtomicUsize, is_dead: &AtomicBool| {
        let mut output = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(first) = lines.next().filter(|_| lines.any(|line| line.is_empty())) {
            let is_slow = first.contains("/slow");
            if is_slow && slow.fetch_add(1, Ordering::SeqCst) == 3 {
                is_dead.store(true, Ordering::SeqCst);
                // Whoever accepts looks up.
                let _ = TcpStream::connect(address);
            }
            if is_slow {
                std::thread::sleep(Duration::from_millis(60));
                slow.fetch_sub(1, Ordering::SeqCst);
            }
            let is_over = is_dead.load(Ordering::SeqCst);
            if is_over || output.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take_while(|_| !is_dead.load(Ordering::SeqCst)) {
            let (slow, is_dead) = (Arc::clone(&slow), Arc::clone(&is_dead));
            std::thread::spawn(move || serve(stream, &slow, &is_dead));
        }
    });
    address
}

#[test]
fn a_service_that_runs_elsewhere_and_ends_beside_slow_requests_is_told_to_have_ended() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let base = tempfile::tempdir().unwrap();
    let attempt = |number: u32| {
        let (url, folder) = (format!("http://{}/", mortal_server()), base.path().join(number.to_string()).display().to_string());
        let output = output(&["bench", "--url", &url, "--blocker", "/slow", "--alone", "--quick", "--out", &folder]);
        (output.status.code(), text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "))
    };
    // A step below it that the driver spoiled would say nothing of it.
    let words = "4 slow requests at a time end it: the server ended and nothing listens at";
    let told = (0..5).map(attempt).find(|(_, shown)| shown.contains(words));
    let (code, shown) = told.expect("a quiet moment in which its end is told");
    assert!(code == Some(3) && shown.contains("Find out first why it ends"), "{shown}");
}

#[test]
fn a_servers_file_takes_the_blocker_of_the_command_line_and_a_round_without_a_server_is_not_complete() {
    built();
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("mine.toml");
    let binary = Path::new(env!("CARGO_BIN_EXE_stallbench")).parent().unwrap().join("../release/runtime-tokio");
    let manifest = |command: &str| {
        format!(
            "peer = \"mine\"\nhttp = \"own\"\ncommand = [{command:?}]\n[[server]]\nname = \"mine-x\"\nmodel = \"x\"\nblocking = \"inline\"\nabout = \"x\"\nargs = [\"--model\", \"current-thread\", \"--listen\", \"127.0.0.1:{{port}}\"]\n"
        )
    };
    let run = |name: &str, more: &[&str]| {
        let (file, folder) = (file.display().to_string(), base.path().join(name).display().to_string());
        output(&[&["bench", "--quick", "--servers-file", &file, "--out", &folder], more].concat())
    };
    fs::write(&file, manifest(&binary.display().to_string())).unwrap();
    let attempt = |number: u32| run(&format!("own.{number}"), &["--blocker", "/sleep?ms=60", "--alone"]);
    let seen = measured(attempt);
    assert!(text(&seen.stdout).contains("mine-x: one slow request"), "{}", text(&seen.stderr));
    fs::write(&file, manifest("/bin/false")).unwrap();
    let nothing = run("nothing", &["--experiment", "two-tabs"]);
    assert_eq!(nothing.status.code(), Some(3), "{}{}", text(&nothing.stdout), text(&nothing.stderr));
}

#[test]
fn a_servers_file_is_refused_where_a_round_would_measure_something_else() {
    let base = tempfile::tempdir().unwrap();
    let (file, folder) = (base.path().join("mine.toml"), base.path().join("round").display().to_string());
    let server = |name: &str, more: &str| {
        let model = name.split('-').skip(1).collect::<Vec<_>>().join("-");
        format!(
            "[[server]]\nname = {name:?}\nmodel = {model:?}\nblocking = \"inline\"\nabout = \"x\"\nargs = [\"{{port}}\"]\n{more}"
        )
    };
    let (plain, slow) = (server("mine-x", ""), server("mine-x", "blocker = \"/slow\"\n"));
    let double = server("tokio-current-thread", "");
    let cases: [(&str, String, &[&str], &str); 10] = [
        ("mine", "server = []\n".into(), &[], "names no server"),
        ("mine", format!("{plain}{plain}"), &[], "two servers are named 'mine-x'"),
        ("tokio", double, &["tokio-current-thread"], "two servers are named 'tokio-current-thread'"),
        ("mine", slow.clone(), &["tokio-current-thread"], "'tokio-current-thread' cannot be combined with the servers of"),
        ("mine", slow.clone(), &["--experiment", "footprint"], "--experiment cannot be combined with"),
        ("mine", slow.clone(), &["--blockers", "cpu"], "--blockers cannot be combined with"),
        ("mine", slow.clone(), &["--probe", "/health"], "--probe is for servers that name no blocker, and those of"),
        ("mine", slow.clone(), &["--blocker", "/else"], "--blocker is for servers that name no blocker, and those of"),
        ("mine", server("mine-x", ""), &["--probe", "/health"], "--probe is about your own service: name its slow request with"),
        ("mine", format!("requires = [\"no-such-program\"]\n{slow}"), &[], "mine-x cannot run here: no-such-program not found"),
    ];
    for (runtime, servers, more, wanted) in cases {
        fs::write(&file, format!("peer = {runtime:?}\nhttp = \"own\"\ncommand = [\"/bin/false\"]\n{servers}")).unwrap();
        let path = file.display().to_string();
        let refused = output(&[&["bench", "--quick", "--no-build", "--servers-file", &path, "--out", &folder], more].concat());
        let words = text(&refused.stderr);
        assert!(!refused.status.success() && words.contains(wanted), "{wanted}: {words}");
        assert_eq!(words.lines().count(), 1, "{words}");
        assert!(!Path::new(&folder).exists());
    }
}

#[test]
fn what_a_servers_file_says_how_to_build_is_built_before_it_is_measured() {
    let base = tempfile::tempdir().unwrap();
    let (file, folder) = (base.path().join("mine.toml"), base.path().join("round").display().to_string());
    // The program that is built prints that it was built, and exits instead of serving.
    let build = r#"["sh", "-c", "printf '#!/bin/sh\necho as built >&2; exit 7\n' > served && chmod +x served"]"#;
    fs::write(
        &file,
        format!(
            "peer = \"mine\"\nhttp = \"own\"\ncommand = [\"./served\"]\nbuild = {build}\n[[server]]\nname = \"mine-x\"\nmodel = \"x\"\nblocking = \"inline\"\nabout = \"x\"\nargs = [\"{{port}}\"]\nblocker = \"/slow\"\n"
        ),
    )
    .unwrap();
    let path = file.display().to_string();
    let run = |more: &[&str]| {
        let fixed = ["bench", "--alone", "--servers-file", &path, "--out", &folder];
        text(&output(&[&fixed, more].concat()).stderr)
    };
    let unbuilt = run(&["--no-build"]);
    assert!(unbuilt.contains("cannot run") && !base.path().join("served").exists(), "{unbuilt}");
    let built = run(&[]);
    assert!(built.contains("as built"), "{built}");
}

#[test]
fn a_server_of_ones_own_that_cannot_be_measured_is_told_why() {
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--command", "true", "--blocker", "/"], 2, "{port}"),
        (&["--command", "true ${port}", "--blocker", "/"], 2, "write {port} without $"),
        (&["--command", "sh -c 'echo no such table >&2; exit 7' {port}", "--blocker", "/"], 1, "no such table"),
        (&["--command", "true {port}"], 2, "--blocker is missing"),
        (&["--url", "http://127.0.0.1:1", "--blocker", "/slow"], 1, "cannot connect"),
    ];
    for (arguments, code, wanted) in cases {
        let output = output(&[&["bench"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stderr).contains(wanted), "{arguments:?}: {}", text(&output.stderr));
    }
}

/// Answers every request with this status, and a line of its head.
fn answers(status: u16, head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            // A connection that only asks whether something listens has no line.
            if lines.any(|line| line.is_empty()) {
                let _ = stream
                    .write_all(format!("HTTP/1.1 {status} x\r\n{head}Connection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
            }
        }
    });
    address
}

#[test]
fn each_status_that_is_not_a_success_has_its_own_advice() {
    for (status, head, wanted) in [
        (400, "", "pass --header 'Host: NAME'"),
        (401, "", "pass --header 'Authorization: ...'"),
        (404, "", "name a path that answers with a 2xx status"),
        (405, "", "as in --probe 'POST /'"),
        (405, "Allow: GET, PUT\r\n", "as in --probe 'PUT /'"),
        (405, "Allow: HEAD\r\n", "as in --probe 'POST /'"),
        (411, "", "name a body with --probe-body FILE"),
        (413, "", "name a body with --probe-body FILE that is smaller"),
        (415, "", "--header 'Content-Type: application/json'"),
        (421, "", "pass --header 'Host: NAME'"),
        (429, "", "the server limits or refuses requests"),
        (503, "", "the server limits or refuses requests"),
    ] {
        let url = format!("http://{}/", answers(status, head));
        let words = text(&output(&["bench", "--url", &url, "--blocker", "/slow"]).stderr);
        assert!(words.contains(&format!("/ is answered {status}")) && words.contains(wanted), "{words}");
        // What is asked is said before.
        assert!(words.starts_with("yours: asks / and /slow alone") && words.lines().count() == 2, "{words}");
    }
}
