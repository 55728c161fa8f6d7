//! The hosts of a setup, each with its cluster, and the balancer before them.

use super::{BALANCER, PORT, Setup, number};
use crate::catalog::Server;
use crate::console::interrupt;
use crate::measure::Session;
use crate::process::deploy::{Site, Supervised};
use crate::process::{Balancer, Host, Network, Start};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// How often the balancer is asked; it says nothing by itself.
pub const ASK: Duration = Duration::from_millis(20);
/// The longest wait for a host to be up.
const UNTIL_UP: Duration = Duration::from_secs(20);

/// A setup that runs. Dropped, all of it ends.
pub struct Fleet {
    pub balancer: Balancer,
    pub members: Vec<Member>,
    server: Server,
    start: Start,
    processes: usize,
}

/// A host and its cluster, which ends first.
pub struct Member {
    pub cluster: Supervised,
    pub host: Host,
    cores: Vec<usize>,
}

impl Fleet {
    pub fn start(network: &Network, session: &Session<'_>, setup: &Setup, state: &str) -> Result<Self> {
        let mut start = session.start_conditions();
        start.more.extend(["--state".to_owned(), state.to_owned()]);
        let mut members = Vec::new();
        for (index, cores) in setup.hosts.iter().enumerate() {
            let cores = cores.clone();
            members.push(member(network, index, cores, session.server, &start, setup.processes)?);
        }
        let host = network.host(BALANCER, &session.placement.driver_cores())?;
        let balancer = Balancer::start(host, PORT, &setup.configuration)?;
        let fleet = Fleet { balancer, members, server: session.server.clone(), start, processes: setup.processes };
        fleet.wait()?;
        Ok(fleet)
    }

    /// Processes of all hosts.
    pub fn processes(&self) -> usize {
        self.processes * self.members.len()
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.balancer.address
    }

    /// Waits until the balancer gives every host requests. It takes out a host that answers its checks too late, as one does that blockers keep
    /// busy.
    pub fn wait(&self) -> Result<()> {
        let began = Instant::now();
        for number in 1..=self.members.len() {
            while !self.balancer.seen(&format!("host{number}"))?.is_up {
                interrupt::check()?;
                if began.elapsed() > UNTIL_UP {
                    bail!("the balancer has not taken host {number} for {} s", UNTIL_UP.as_secs());
                }
                thread::sleep(ASK);
            }
        }
        Ok(())
    }

    /// Boots a host that was killed.
    pub fn boot(&mut self, network: &Network, index: usize) -> Result<()> {
        let cores = self.members[index].cores.clone();
        self.members[index] = member(network, index, cores, &self.server, &self.start, self.processes)?;
        Ok(())
    }
}

fn member(
    network: &Network,
    index: usize,
    cores: Vec<usize>,
    server: &Server,
    start: &Start,
    processes: usize,
) -> Result<Member> {
    let host = network.host(number(index), &cores)?;
    let site = Site { enter: host.enter(), listen: (host.address(), PORT).into(), processes, heals: false };
    let cluster = Supervised::start(server, start, site).with_context(|| format!("host {}", index + 1))?;
    Ok(Member { cluster, host, cores })
}
