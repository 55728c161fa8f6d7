//! A cluster under PM2, with a home of its own.

use super::manager::{Act, PROCESSES, end, run, stick};
use crate::catalog::{Program, Server};
use crate::process::{Running, Start};
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The model of servers whose processes PM2 keeps.
const MODEL: &str = "pm2";

/// Whether PM2 keeps this server's processes.
pub(super) fn keeps(server: &Server) -> bool {
    server.model == MODEL
}

/// A cluster under PM2.
pub struct Pm2 {
    pub(super) cluster: Running,
    program: PathBuf,
    home: PathBuf,
}

impl Pm2 {
    pub(super) fn start(server: &Server, start: &Start) -> Result<Self> {
        let cluster = Running::start(server, &Start { threads: PROCESSES, ..start.clone() })?;
        let home = cluster.pids().into_iter().find_map(|pid| variable(pid, "PM2_HOME"));
        let home = home.context("no process of PM2's has a PM2_HOME")?;
        let Program::Foreign(foreign) = &server.program else { bail!("PM2 is not a package of this workspace") };
        Ok(Pm2 { cluster, program: foreign.folder.join("node_modules/.bin/pm2"), home: home.into() })
    }

    fn pm2(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", &self.home).env("PM2_HOME", &self.home).env("PM2_DISABLE_VERSION_CHECK", "true");
        run(command)
    }

    /// Whether it can be told to.
    pub(super) fn can(act: Act) -> bool {
        !matches!(act, Act::BadBuild | Act::Apply | Act::Update | Act::KillKeeper)
    }

    pub(super) fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Reload => self.pm2(&["reload", "all"]).map(drop),
            Act::Restart => self.pm2(&["restart", "all"]).map(drop),
            Act::Scale => ["4", "1", "2"].iter().try_for_each(|count| self.pm2(&["scale", "express", count]).map(drop)),
            Act::KillWorker => {
                let listed = self.pm2(&["jlist"])?;
                let begin = listed.find('[').context("pm2 jlist prints no list")?;
                let listed: Value = serde_json::from_str(&listed[begin..]).context("pm2 jlist")?;
                end(listed[0]["pid"].as_i64())
            }
            Act::KillDaemon => end(self.daemon().map(i64::from)),
            Act::Stick => stick(self.cluster.address),
            Act::BadBuild | Act::Apply | Act::Update | Act::KillKeeper => bail!("PM2 knows no act '{}'", act.name()),
        }
    }

    pub(super) fn daemon(&self) -> Option<i32> {
        fs::read_to_string(self.home.join("pm2.pid")).ok()?.trim().parse().ok()
    }
}

fn variable(pid: Pid, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    variables.filter_map(|variable| variable.split_once('=')).find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_act_that_pm2_cannot_do_is_an_error_and_not_a_success() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = Running::elsewhere(listener.local_addr().unwrap()).unwrap();
        let mut pm2 = Pm2 { cluster, program: "/nowhere/pm2".into(), home: "/nowhere".into() };
        for act in Act::ALL.into_iter().filter(|act| !Pm2::can(*act)) {
            assert!(pm2.act(act).unwrap_err().to_string().contains(act.name()), "{act:?}");
        }
    }
}
