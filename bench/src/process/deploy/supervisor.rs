//! A cluster under this project's supervisor.

use super::manager::{Act, PROCESSES, end, run};
use super::package;
use crate::catalog::Server;
use crate::process::{Running, Start};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The time that a replacement has to get ready, so that one that never does is found out soon.
const LISTEN_TIMEOUT: &str = "1s";

/// A cluster under the supervisor.
pub struct Supervised {
    /// Holds the supervisor's home, and the link that is its program.
    folder: TempDir,
    program: PathBuf,
    pub(super) cluster: Running,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.supervisor(&["kill"]);
    }
}

impl Supervised {
    pub(super) fn start(server: &Server, start: &Start) -> Result<Self> {
        // A short path: it becomes that of sockets.
        let folder = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").context("cannot make a folder")?;
        let program = folder.path().join("server");
        symlink(package::binary(&server.program), &program)?;
        let own = package::command(server, start.threads, &start.more);
        let own: Vec<String> = own.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let path = program.to_string_lossy().into_owned();
        let count = PROCESSES.to_string();
        let mut words = vec!["start", &path, "-i", &count, "--listen", "127.0.0.1:0", "--listen-timeout", LISTEN_TIMEOUT, "--"];
        words.extend(own.iter().map(String::as_str));
        supervisor(folder.path(), &words)?;
        let listed = listed(folder.path())?;
        let address = listed["instances"][0]["listeners"][0].as_str().context("the supervisor names no address")?.parse()?;
        Ok(Supervised { cluster: Running::elsewhere(address)?, folder, program })
    }

    fn supervisor(&self, arguments: &[&str]) -> Result<String> {
        supervisor(self.folder.path(), arguments)
    }

    pub(super) fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Reload => self.supervisor(&["reload", "all"]).map(drop),
            Act::Restart => self.supervisor(&["restart", "all"]).map(drop),
            Act::Scale => ["4", "1", "2"].iter().try_for_each(|count| self.supervisor(&["scale", "server", count]).map(drop)),
            Act::BadBuild => self.reload_badly(),
            Act::KillWorker => end(self.listed()?["instances"][0]["pid"].as_i64()),
            Act::KillDaemon => end(self.listed()?["supervisor"]["daemon"].as_i64()),
            Act::KillKeeper => end(self.listed()?["supervisor"]["keeper"].as_i64()),
        }
    }

    pub(super) fn own_pids(&self) -> Result<Vec<i64>> {
        let own = &self.listed()?["supervisor"];
        Ok(["keeper", "daemon"].iter().filter_map(|role| own[*role].as_i64()).collect())
    }

    /// Reloads into two bad builds; the supervisor must refuse both.
    fn reload_badly(&self) -> Result<()> {
        let good = fs::read_link(&self.program)?;
        let refused = ["exit 3", "exec sleep 100"].iter().try_for_each(|script| {
            fs::remove_file(&self.program)?;
            fs::write(&self.program, format!("#!/bin/sh\n{script}\n"))?;
            fs::set_permissions(&self.program, fs::Permissions::from_mode(0o755))?;
            match self.supervisor(&["reload", "all"]) {
                Ok(_) => bail!("the supervisor accepted a reload into `{script}`"),
                Err(_) => Ok(()),
            }
        });
        fs::remove_file(&self.program)?;
        symlink(good, &self.program)?;
        refused
    }

    fn listed(&self) -> Result<Value> {
        listed(self.folder.path())
    }
}

fn listed(folder: &Path) -> Result<Value> {
    serde_json::from_str(&supervisor(folder, &["list", "--json"])?).context("supervisor list --json")
}

fn supervisor(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(package::supervisor());
    command.args(arguments).env_clear().env("SUPERVISOR_HOME", folder.join("home"));
    run(command)
}
