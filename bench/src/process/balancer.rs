//! HAProxy on a host of its own, with a configuration that `stallbench deploy` prints.

use super::network::Host;
use crate::catalog::find_program;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The program.
const HAPROXY: &str = "haproxy";
/// The time that it has to get ready.
const UNTIL_READY: Duration = Duration::from_secs(10);

/// A balancer that runs. Dropped, it ends with its host.
pub struct Balancer {
    host: Host,
    process: Child,
    folder: TempDir,
    /// Where clients reach it.
    pub address: SocketAddr,
}

/// One host as the balancer sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// It gets requests.
    pub is_up: bool,
    /// Requests in flight on it.
    pub in_flight: u64,
    /// Requests that it was given since the balancer began.
    pub requests: u64,
}

impl Balancer {
    /// The reason why there can be none here; `None` if there can.
    pub fn missing() -> Option<String> {
        find_program(HAPROXY).is_none().then(|| format!("{HAPROXY} not found"))
    }

    /// Starts it on a host, and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready, with its own words.
    pub fn start(host: Host, port: u16, configuration: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for HAProxy")?;
        let [file, notify, words] = ["haproxy.cfg", "notify", "words"].map(|name| folder.path().join(name));
        fs::write(&file, configuration)?;
        let notified = UnixDatagram::bind(&notify)?;
        notified.set_read_timeout(Some(UNTIL_READY))?;
        let mut command = host.enter().command(&find_program(HAPROXY).context("haproxy not found")?)?;
        command
            .arg("-Ws")
            .arg("-S")
            .arg(folder.path().join("master"))
            .arg("-f")
            .arg(&file)
            .env_clear()
            .env("NOTIFY_SOCKET", &notify);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&words)?).spawn()?;
        let address = SocketAddr::from((host.address(), port));
        let balancer = Balancer { host, process, folder, address };
        let mut message = [0; 256];
        while !message.starts_with(b"READY=1") {
            message.fill(0);
            if notified.recv(&mut message).is_err() {
                let said = fs::read_to_string(&words).unwrap_or_default();
                bail!("HAProxy is not ready within {} s: {}", UNTIL_READY.as_secs(), said.trim());
            }
        }
        Ok(balancer)
    }

    /// One of its hosts, by the name that the configuration gives it.
    ///
    /// # Errors
    /// HAProxy does not answer, or knows no such host.
    pub fn seen(&self, name: &str) -> Result<Seen> {
        let mut socket = UnixStream::connect(self.folder.path().join("master")).context("cannot ask HAProxy")?;
        socket.write_all(b"@1 show stat\n")?;
        let mut text = String::new();
        let mut reader = BufReader::new(socket);
        // A blank line ends the answer; the connection ends later.
        while reader.read_line(&mut text)? > 1 {}
        of_statistics(&text, name).with_context(|| format!("HAProxy says nothing of {name}"))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.host.kill();
        let _ = self.process.wait();
    }
}

/// The line of a host in what `show stat` prints.
fn of_statistics(text: &str, name: &str) -> Option<Seen> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let heads = reader.headers().ok()?.clone();
    let column = |wanted: &str| heads.iter().position(|head| head == wanted);
    let (server, status, current, total) = (column("svname")?, column("status")?, column("scur")?, column("stot")?);
    let line = reader.records().flatten().find(|line| line.get(server) == Some(name))?;
    Some(Seen {
        is_up: line.get(status)?.starts_with("UP"),
        in_flight: line.get(current)?.parse().ok()?,
        requests: line.get(total)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_in_the_statistics() {
        let text =
            "# pxname,svname,qcur,scur,stot,status\nweb,FRONTEND,,3,9,OPEN\nweb,host1,0,2,5,UP 1/2\nweb,host2,0,0,4,DOWN\n\n";
        assert_eq!(of_statistics(text, "host1"), Some(Seen { is_up: true, in_flight: 2, requests: 5 }));
        assert_eq!(of_statistics(text, "host2"), Some(Seen { is_up: false, in_flight: 0, requests: 4 }));
        assert_eq!(of_statistics(text, "host3"), None);
        assert_eq!(of_statistics("Unknown command\n", "host1"), None);
    }
}
