//! A PostgreSQL server of our own: in a folder that vanishes with it, reached by a socket in that folder or from the hosts of a network of our own, and
//! ended with this process.

use crate::catalog::find_program;
use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, getpid, getppid};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;
use tempfile::TempDir;

/// Where Debian keeps its programs, one folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The user that it runs as where this process is root, which it refuses to be.
const USER: &str = "postgres";
/// The time that it has to get ready.
const UNTIL_READY: Duration = Duration::from_secs(20);

/// A server that runs. Dropped, it is ended, and its data with it.
pub struct Database {
    server: Child,
    folder: TempDir,
    /// The address that it listens on besides; `None` if only its socket is there.
    address: Option<Ipv4Addr>,
}

impl Database {
    /// A value of `--state` that stands for all of its kind.
    pub const ANY: &str = "postgres://";

    /// The reason why there can be none here; `None` if there can.
    pub fn missing() -> Option<String> {
        let needs_user = Uid::effective().is_root() && !matches!(User::from_name(USER), Ok(Some(_)));
        match program("initdb") {
            Err(error) => Some(error.to_string()),
            Ok(_) if needs_user => Some(format!("PostgreSQL does not run as root, and there is no user {USER}")),
            Ok(_) => None,
        }
    }

    /// Starts a fresh one.
    ///
    /// # Errors
    /// It does not get ready, with its own words.
    pub fn start() -> Result<Self> {
        Self::start_at(None)
    }

    /// Starts a fresh one for all hosts of a network of our own, in which this process has the address.
    ///
    /// # Errors
    /// It does not get ready, with its own words.
    pub fn start_for_network(address: Ipv4Addr) -> Result<Self> {
        Self::start_at(Some(address))
    }

    fn start_at(address: Option<Ipv4Addr>) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for PostgreSQL")?;
        let data = folder.path().join("data");
        if let Some(user) = user()? {
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let made = command("initdb", folder.path())?
            .args(["--no-sync", "--auth=trust", "--username=stallbench", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data)
            .output()
            .context("cannot run initdb")?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        if address.is_some() {
            let rules = File::options().append(true).open(data.join("pg_hba.conf"));
            rules.and_then(|mut rules| writeln!(rules, "host all all samenet trust")).context("cannot let the hosts in")?;
        }
        let mut database = Database { server: serve(folder.path(), address)?, folder, address };
        database.wait()?;
        Ok(database)
    }

    /// Ends it, as a crash would; its data stays.
    pub fn stop(&mut self) {
        // It ends at once, and need not tidy up.
        let _ = kill(Pid::from_raw(self.server.id().cast_signed()), Signal::SIGQUIT);
        let _ = self.server.wait();
    }

    /// Starts it again after [`Database::stop`], with its data.
    ///
    /// # Errors
    /// It does not get ready, with its own words.
    pub fn start_again(&mut self) -> Result<()> {
        self.server = serve(self.folder.path(), self.address)?;
        self.wait()
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// It fails, with the reason.
    pub fn run(&self, statement: &str) -> Result<()> {
        let mut psql = command("psql", self.folder.path())?;
        psql.arg("-h").arg(self.folder.path()).args(["-U", "stallbench", "-d", "postgres", "-q", "-c", statement]);
        let done = psql.output().context("cannot run psql")?;
        if !done.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    /// The value of `--state` for it.
    pub fn state(&self) -> String {
        let host = match self.address {
            Some(address) => address.to_string(),
            None => self.folder.path().to_string_lossy().replace('/', "%2F"),
        };
        format!("postgres://stallbench@{host}/postgres")
    }

    /// Waits for the line in its log that says it is ready; a thread reads the log to its end, so that it never blocks.
    fn wait(&mut self) -> Result<()> {
        let Some(log) = self.server.stderr.take() else { bail!("PostgreSQL has no log") };
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut last = "it says nothing".to_owned();
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("database system is ready to accept connections") {
                    let _ = tell.send(Ok(()));
                }
                last = line;
            }
            let _ = tell.send(Err(last));
        });
        match told.recv_timeout(UNTIL_READY) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(words)) => bail!("PostgreSQL does not start: {words}"),
            Err(_) => bail!("PostgreSQL is not ready within {} s", UNTIL_READY.as_secs()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

fn serve(folder: &Path, address: Option<Ipv4Addr>) -> Result<Child> {
    let listen = address.map_or(String::new(), |address| address.to_string());
    let mut server = command("postgres", folder)?;
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).arg("-c").arg(format!("listen_addresses={listen}"));
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    server.spawn().context("cannot run postgres")
}

fn user() -> Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    User::from_name(USER)?.map(Some).with_context(|| format!("there is no user {USER}"))
}

fn program(name: &str) -> Result<PathBuf> {
    // The programs belong together: those of one version, the newest.
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let version: f64 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin").join(name)))
    });
    let newest = versions.filter(|(_, path)| path.exists()).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, path)| path);
    newest.or_else(|| find_program(name)).with_context(|| format!("PostgreSQL is not installed: {name} not found"))
}

/// A program of PostgreSQL, run as a user that it accepts, and ended with this process.
fn command(name: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(program(name)?);
    command.current_dir(folder).env_clear();
    if let Some(user) = user()? {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let harness = getpid();
    let prepare = move || {
        set_pdeathsig(Signal::SIGQUIT)?;
        if getppid() != harness {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
    unsafe { command.pre_exec(prepare) };
    Ok(command)
}
