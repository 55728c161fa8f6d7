//! Receipt, arguments, listener, timeouts, drain and exit code.

use super::{Check, LENGTHS_MS, SOON, expect, expect_page, expect_served, slow, start, until};
use crate::catalog::{Blocking, Server};
use crate::http::{Client, get};
use crate::process::Running;
use crate::process::deploy::package;
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub const CHECKS: &[Check] = &[
    ("receipt", receipt),
    ("refuse-arguments", refuse_arguments),
    ("port-in-use", port_in_use),
    ("inherited-listener", inherited_listener),
    ("header-timeout", header_timeout),
    ("disconnects", disconnects),
    ("stop", stop),
    ("drain", drain),
    ("drain-limit", drain_limit),
    ("drain-whole", drain_whole),
    ("drain-idle", drain_idle),
    ("second-signal", second_signal),
];

/// Less than the usual drain of ten seconds: a server that does not heed --drain takes longer.
const LESS_THAN_USUAL: Duration = Duration::from_secs(8);

fn receipt(server: &Server) -> Result<()> {
    let receipt = package::receipt(server, 2, &[])?;
    expect("model", &(receipt.runtime.as_str(), receipt.model.as_str()), &(server.runtime.as_str(), server.model.as_str()))?;
    expect("a version that is known", &(receipt.runtime_version == "unknown"), &false)?;
    expect("profile", &receipt.profile.as_str(), &"release")
}

/// A wrong argument: exit code 2 and one line that names it.
fn refuse_arguments(server: &Server) -> Result<()> {
    // A knob that the model has not, or a value that it cannot have.
    let pool = if server.blocking == Blocking::Inline { "3" } else { "0" };
    for (name, value) in
        [("--model", "nothing"), ("--bogus", "1"), ("--blocking-threads", pool), ("--threads", "x"), ("--listen", "nowhere")]
    {
        let more = [name.to_string(), value.to_string()];
        let output = package::command(server, 2, &more).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = (output.status.code(), text.lines().count(), text.contains(name) || text.contains(&name[2..]));
        expect(&format!("exit code, lines, and whether the line names {name} ({})", text.trim()), &found, &(Some(2), 1, true))?;
    }
    Ok(())
}

/// A port on which somebody listens, be it another instance of the same server, is refused: the kernel would deal connections out to both.
fn port_in_use(server: &Server) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let more = ["--listen".to_string(), address.clone()];
    let output = package::command(server, 2, &more).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let found = (output.status.code(), text.lines().count(), text.contains(&address) && text.contains("in use"));
    expect(
        &format!("exit code, lines, and whether the line names address and cause ({})", text.trim()),
        &found,
        &(Some(1), 1, true),
    )?;
    let running = start(server, &[])?;
    match start(server, &["--listen", &running.address.to_string()]) {
        Ok(_) => bail!("a second instance listens on the port of the first"),
        Err(error) => expect(
            &format!("whether a second instance names the cause ({error:#})"),
            &format!("{error:#}").contains("in use"),
            &true,
        ),
    }
}

/// Takes a listening socket from whoever started it, as systemd hands it down.
fn inherited_listener(server: &Server) -> Result<()> {
    let (command, address) = with_listener(server, &[])?;
    let mut running = Running::spawn_with_stdin(command)?;
    expect("address", &running.address, &address)?;
    expect_served(&running)?;
    running.signal(Signal::SIGTERM)?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

/// The command that starts a server with a listening socket, and the socket's address.
pub fn with_listener(server: &Server, more: &[String]) -> Result<(Command, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // The shell moves the socket to descriptor 3 and says whose it is; exec keeps the process and so its id.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""]);
    let plain = package::command(server, 2, more);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(plain.get_current_dir().unwrap_or(Path::new(".")));
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    Ok((command, address))
}

/// A head that does not end is cut off; a connection that is merely idle is not.
fn header_timeout(server: &Server) -> Result<()> {
    let running = start(server, &["--header-timeout", "200ms", "--request-timeout", "200ms"])?;
    let mut idle = Client::connect(running.address)?;
    expect_page(&idle.ask(&get("/"))?)?;
    let mut slow = Client::connect(running.address)?;
    slow.send(b"GET / HT")?;
    slow.expect_close()?;
    let mut silent = Client::connect(running.address)?;
    silent.send(b"POST /json/parse HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")?;
    silent.expect_close()?;
    expect_page(&idle.ask(&get("/"))?)
}

/// Clients that leave at any point end their own connection only.
fn disconnects(server: &Server) -> Result<()> {
    let running = start(server, &[])?;
    for bytes in [
        b"".as_slice(),
        b"GET /",
        b"GET /sleep?ms=20 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut client = Client::connect(running.address)?;
        client.send(bytes)?;
        drop(client);
    }
    let mut half = Client::connect(running.address)?;
    half.send(&get("/"))?;
    half.end()?;
    expect_page(&half.receive(false)?)?;
    expect_served(&running).map(drop)
}

/// Ends in order after a signal, also after one that comes as soon as the server says that it is ready.
fn stop(server: &Server) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = start(server, &[])?;
        expect_served(&running)?;
        running.signal(signal)?;
        expect(&format!("exit code after {signal}"), &running.wait(SOON)?.code(), &Some(0))?;
    }
    for _ in 0..3 {
        let mut running = start(server, &[])?;
        running.signal(Signal::SIGTERM)?;
        expect("exit code after a signal at once", &running.wait(SOON)?.code(), &Some(0))?;
    }
    Ok(())
}

/// What is in flight is answered, and the answer says that the connection closes.
fn drain(server: &Server) -> Result<()> {
    for length_ms in LENGTHS_MS {
        let mut running = start(server, &[])?;
        let mut client = Client::connect(running.address)?;
        client.send(&slow(length_ms))?;
        wait_until_taken(&running, std::slice::from_ref(&client))?;
        running.signal(Signal::SIGTERM)?;
        let answer = client.receive(false)?;
        expect("status", &answer.status, &200)?;
        // On a busy machine it may have been answered before the server heard of the signal.
        if answer.closes {
            client.expect_close()?;
            return expect("exit code", &running.wait(SOON)?.code(), &Some(0));
        }
    }
    bail!("the last answer does not say that the connection closes")
}

/// What takes longer than the drain is cut off.
fn drain_limit(server: &Server) -> Result<()> {
    let (mut running, _client) = drained_at_work(server, "300ms")?;
    running.wait(LESS_THAN_USUAL).map(drop)
}

/// What is answered shortly before the drain is over is not cut off.
fn drain_whole(server: &Server) -> Result<()> {
    for _ in LENGTHS_MS {
        let running = start(server, &["--drain", "1900ms"])?;
        // A first request can take long to begin, since its code is loaded only then.
        expect_page(&Client::connect(running.address)?.ask(&get("/"))?)?;
        let mut client = Client::connect(running.address)?;
        client.send(&slow(1500))?;
        wait_until_taken(&running, std::slice::from_ref(&client))?;
        running.signal(Signal::SIGTERM)?;
        if client.receive(false).is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        // On a busy machine the answer may have come too late.
    }
    bail!("a request of 1.5 s is cut off within a drain of 1.9 s")
}

/// A server that was told to end, within a drain of this length, while it works for this client for longer.
fn drained_at_work(server: &Server, drain: &str) -> Result<(Running, Client)> {
    let running = start(server, &["--drain", drain])?;
    let mut client = Client::connect(running.address)?;
    client.send(&get("/sleep?ms=30000"))?;
    wait_until_taken(&running, std::slice::from_ref(&client))?;
    running.signal(Signal::SIGTERM)?;
    Ok((running, client))
}

/// A request that comes over an idle connection while the server drains is answered; then the connection closes.
fn drain_idle(server: &Server) -> Result<()> {
    // Long enough for a machine that stands still for a moment.
    let mut running = start(server, &["--drain-idle", "2s"])?;
    let (mut late, mut idle) = (Client::connect(running.address)?, Client::connect(running.address)?);
    expect_page(&late.ask(&get("/"))?)?;
    expect_page(&idle.ask(&get("/"))?)?;
    running.signal(Signal::SIGTERM)?;
    until("nobody accepts, since the drain has begun", || {
        Ok(Client::connect(running.address).and_then(|mut client| client.ask(&get("/"))).is_err())
    })?;
    let answer = late.ask(&get("/healthz"))?;
    expect("status, and whether it says that it closes", &(answer.status, answer.closes), &(503, true))?;
    late.expect_close()?;
    idle.expect_close()?;
    expect("exit code", &running.wait(SOON)?.code(), &Some(0))
}

/// A second signal ends the server at once, even one that is blocked.
fn second_signal(server: &Server) -> Result<()> {
    for _ in LENGTHS_MS {
        let (mut running, _client) = drained_at_work(server, "60s")?;
        until("a second signal ends the server", || {
            let has_ended = running.ended().is_some();
            if !has_ended {
                running.signal(Signal::SIGTERM)?;
            }
            Ok(has_ended)
        })?;
        if running.wait(SOON)?.code() != Some(0) {
            return Ok(());
        }
        // The JDK's server does not count a request that it has read and not begun: told to end just then, it has nothing to do.
    }
    bail!("ended as if it had drained")
}

/// Waits until the server has read what these clients have sent, which the kernel shows as an empty receive queue on its side. A
/// connection that is gone is not waited for.
pub fn wait_until_taken(running: &Running, clients: &[Client]) -> Result<()> {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let server = hex(running.address);
    let clients = clients.iter().map(|client| Ok(hex(client.local_address()?))).collect::<Result<HashSet<_>>>()?;
    let is_waiting = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, queues) = (fields.next(), fields.next(), fields.nth(1));
        local == Some(&server)
            && remote.is_some_and(|remote| clients.contains(remote))
            && queues.is_some_and(|queues| !queues.ends_with(":00000000"))
    };
    until("the server has read all requests", || Ok(!std::fs::read_to_string("/proc/net/tcp")?.lines().any(is_waiting)))
}
