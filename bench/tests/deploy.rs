//! The files that `stallbench deploy` prints: each is verified by its own tool, and those of systemd and HAProxy are run. A test whose tool is missing is
//! listed as ignored, with the reason.

use libtest_mimic::{Arguments, Failed, Trial};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A server with several processes.
const SERVER: &str = "tokio-forked";

/// The name of a test, the program it takes, and what it does.
type Test = (&'static str, &'static [&'static str], fn() -> Result<(), Failed>);

const TESTS: &[Test] = &[
    ("systemd_accepts_the_units", &["systemd-analyze", "--version"], systemd_accepts_the_units),
    ("a_socket_of_systemd_is_served", &["systemd-socket-activate", "--version"], a_socket_of_systemd_is_served),
    ("haproxy_accepts_the_configuration", &["haproxy", "-v"], haproxy_accepts_the_configuration),
    ("behind_haproxy_one_host_can_be_killed", &["haproxy", "-v"], behind_haproxy_one_host_can_be_killed),
    ("k6_would_run_each_step_with_its_blockers", &["node", "--version"], k6_would_run_each_step_with_its_blockers),
    ("locust_measures_and_its_results_come_back", &["locust", "--version"], locust_measures_and_its_results_come_back),
    ("kubernetes_accepts_the_objects", &["python3", "-c", "import kubernetes_validate"], kubernetes_accepts_the_objects),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let trial = |(name, tool, test): &Test| {
        let test = Trial::test(*name, *test);
        let found = Command::new(tool[0]).args(&tool[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) {
            return test;
        }
        test.with_kind(format!("unavailable({})", tool.join(" "))).with_ignored_flag(true)
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}

/// Runs a command, and fails with its words.
fn run(command: &mut Command) -> Result<String, Failed> {
    let output = command.output()?;
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(words) } else { Err(format!("{command:?}: {words}").into()) }
}

fn stallbench(arguments: &[&str]) -> Result<String, Failed> {
    run(Command::new(env!("CARGO_BIN_EXE_stallbench")).args(arguments))
}

/// Writes the files of an engine into a folder.
fn deploy(engine: &str, folder: &Path, more: &[&str]) -> Result<(), Failed> {
    let folder = folder.to_string_lossy();
    stallbench(&[&["deploy", engine, SERVER, "--out", &folder], more].concat()).map(drop)
}

fn systemd_accepts_the_units() -> Result<(), Failed> {
    stallbench(&["build", SERVER])?;
    let folder = tempfile::tempdir()?;
    deploy("systemd", folder.path(), &["-i", "2"])?;
    let units = ["socket", "service"].map(|kind| folder.path().join(format!("{SERVER}.{kind}")));
    let words = run(Command::new("systemd-analyze").arg("verify").args(&units))?;
    // Other units of this machine may have faults of their own.
    let ours: Vec<&str> = words.lines().filter(|line| line.contains(SERVER)).collect();
    if ours.is_empty() { Ok(()) } else { Err(ours.join("\n").into()) }
}

/// The command of the service, with a listener as systemd passes it on.
fn a_socket_of_systemd_is_served() -> Result<(), Failed> {
    stallbench(&["build", SERVER])?;
    let folder = tempfile::tempdir()?;
    deploy("systemd", folder.path(), &["-i", "2"])?;
    let service = std::fs::read_to_string(folder.path().join(format!("{SERVER}.service")))?;
    let line = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).ok_or("no ExecStart")?;
    let address = free_address()?;
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &address.to_string()]).args(shell_words::split(line)?).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::start(&mut activate)?;
    // From its first line on, which says where it listens, a connection waits for the server.
    let mut log = BufReader::new(running.0.stderr.take().ok_or("no log")?);
    log.read_line(&mut String::new())?;
    let found = status(address, "/")?;
    if found == 200 { Ok(()) } else { Err(format!("status {found}").into()) }
}

fn haproxy_accepts_the_configuration() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    deploy("haproxy", folder.path(), &["--hosts", "127.0.0.1:8081,127.0.0.1,::1,[::1]:8082"])?;
    run(Command::new("haproxy").args(["-c", "-f"]).arg(folder.path().join("haproxy.cfg"))).map(drop)
}

/// Two servers as two hosts. With one of them killed, requests go to the other; with it back, to both.
fn behind_haproxy_one_host_can_be_killed() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let balancer = free_address()?;
    let addresses = [free_address()?, free_address()?];
    let host = |address: SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stallbench"));
        command.args(["serve", SERVER, "--listen", &address.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::start(&mut command)?;
        let mut ready = String::new();
        BufReader::new(running.0.stdout.take().ok_or("no output")?).read_line(&mut ready)?;
        if ready.is_empty() { Err(Failed::from("a server ended before it was ready")) } else { Ok(running) }
    };
    let mut hosts = [host(addresses[0])?, host(addresses[1])?];
    let named = addresses.map(|address| address.to_string()).join(",");
    deploy("haproxy", folder.path(), &["--hosts", &named, "--listen", &balancer.to_string()])?;
    // It tells systemd when it is ready.
    let notified = UnixDatagram::bind(folder.path().join("notify"))?;
    notified.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-Ws").arg("-f").arg(folder.path().join("haproxy.cfg")).env("NOTIFY_SOCKET", folder.path().join("notify"));
    let _haproxy = Running::start(haproxy.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut message = [0; 256];
    while !message.starts_with(b"READY=1") {
        message.fill(0);
        notified.recv(&mut message)?;
    }
    hosts[0].0.kill()?;
    hosts[0].0.wait()?;
    for _ in 0..100 {
        let found = status(balancer, "/")?;
        if found != 200 {
            return Err(format!("{found} while one host is down").into());
        }
    }
    // The workers of the one that was killed may hold the port for a moment.
    let begin = Instant::now();
    hosts[0] = loop {
        match host(addresses[0]) {
            Err(error) if begin.elapsed() > Duration::from_secs(20) => return Err(error),
            Err(_) => {}
            Ok(running) => break running,
        }
    };
    for _ in 0..100 {
        let found = status(balancer, "/")?;
        if found != 200 {
            return Err(format!("{found} after the host came back").into());
        }
    }
    Ok(())
}

/// k6 itself is not run: its script is, by node, with modules of k6's names.
fn k6_would_run_each_step_with_its_blockers() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    deploy("k6", folder.path(), &["-i", "2", "--hosts", "target"])?;
    let path = |name: &str| folder.path().join(name);
    std::fs::rename(path("k6.js"), path("k6.mjs"))?;
    std::fs::create_dir_all(path("node_modules/k6"))?;
    std::fs::write(path("node_modules/k6/package.json"), r#"{"exports": {".": "./k6.mjs", "./http": "./http.mjs"}}"#)?;
    std::fs::write(path("node_modules/k6/k6.mjs"), "export const sleep = () => {};")?;
    std::fs::write(path("node_modules/k6/http.mjs"), "export default { get: (url) => console.log(url) };")?;
    let script = "globalThis.__ENV = {}; import('./k6.mjs').then((m) => { console.log(JSON.stringify(m.options)); m.probe(); m.blocker(); })";
    let said = run(Command::new("node").args(["-e", script]).current_dir(folder.path()))?;
    let mut lines = said.lines();
    let options: serde_json::Value = serde_json::from_str(lines.next().unwrap_or_default())?;
    let vus = &options["scenarios"]["blocker-16-110"]["vus"];
    let is_right = *vus == 16 && options["scenarios"]["probe-0-110"]["rate"] == 1000;
    let urls: Vec<&str> = lines.collect();
    if is_right && urls == ["http://target:8080/", "http://target:8080/sleep?ms=110"] { Ok(()) } else { Err(said.into()) }
}

/// A leader and a worker, for one number of blockers; then the table.
fn locust_measures_and_its_results_come_back() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let mut serve = Command::new(env!("CARGO_BIN_EXE_stallbench"));
    serve.args(["serve", SERVER, "--listen", &address.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Running::start(&mut serve)?;
    BufReader::new(server.0.stdout.take().ok_or("no output")?).read_line(&mut String::new())?;
    deploy("locust", folder.path(), &["--hosts", &address.to_string()])?;
    let port = free_address()?.port().to_string();
    let locust = || {
        let mut locust = Command::new("locust");
        locust.args(["-f", "locustfile.py", "--skip-log"]).env("K", "4").current_dir(folder.path());
        locust.stdout(Stdio::null()).stderr(Stdio::null());
        locust
    };
    let mut leads = locust();
    leads.args(["--headless", "--master", "--master-bind-port", &port, "--expect-workers", "1", "--users", "104"]);
    leads.args(["--spawn-rate", "1000", "--run-time", "3s", "--json-file", "locust-4", "--host", &format!("http://{address}")]);
    let mut leader = Running::start(&mut leads)?;
    let _worker = Running::start(locust().args(["--worker", "--master-port", &port]))?;
    leader.0.wait()?;
    let file = folder.path().join("locust-4.json");
    let table = stallbench(&["import", "--json", &file.to_string_lossy()])?;
    let tables: serde_json::Value = serde_json::from_str(&table)?;
    let text = tables.to_string();
    if text.contains("k=4") && text.contains("110") && text.contains("locust") { Ok(()) } else { Err(text.into()) }
}

fn kubernetes_accepts_the_objects() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    deploy("kubernetes", folder.path(), &["-i", "2", "--hosts", "a,b,c"])?;
    let check = "import sys, yaml, kubernetes_validate as k\n\
        for one in yaml.safe_load_all(open(sys.argv[1])): k.validate(one, k.latest_version(), strict=True)";
    run(Command::new("python3").args(["-c", check]).arg(folder.path().join(format!("{SERVER}.yaml")))).map(drop)
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self, Failed> {
        Ok(Running(command.spawn()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> Result<SocketAddr, Failed> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The status of a request on a connection of its own.
fn status(address: SocketAddr, path: &str) -> Result<u16, Failed> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| "no answer".into())
}
