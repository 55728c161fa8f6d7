//! One host against several, on one machine: a cluster under our supervisor on each host, HAProxy in front, PostgreSQL behind.
//!
//! The same questions as to one server, asked through the balancer: what blockers do to everybody else, what becomes of the launches, and what a
//! reload and the loss of a host cost.

mod fleet;
mod outage;
mod tables;

pub use tables::tables;

use crate::catalog::{Row, Server};
use crate::driver::Sockets;
use crate::experiment::{Climb, kept_by};
use crate::measure::{Backend, Conditions, Kind, Mode, Session, learn};
use crate::metrics::{Numbers, Percentile, Reading};
use crate::process::{Balancer, Database, Network, Running};
use anyhow::{Context, Result};
use fleet::Fleet;
use std::time::Duration;

/// The name of its metrics and tables.
const NAME: &str = "scale-out";
/// Addresses, by their last number: this process, which is the client and the database, has the first.
const CLIENT: u8 = 1;
const BALANCER: u8 = 2;
const FIRST_HOST: u8 = 11;
/// The port of every host and of the balancer.
pub const PORT: u16 = 8080;
/// T, in ms, as in collateral.
const BLOCK_MS: f64 = 110.0;
/// Numbers of blockers.
const BLOCKERS: [usize; 7] = [0, 1, 2, 4, 8, 16, 64];
/// The p99 at which k stops to ascend, in ms.
const LIMIT_MS: f64 = 1000.0;
/// Probes per second, and their connections.
const PROBES: (f64, usize) = (500.0, 256);
/// Time for saving launches.
const SAVING: Duration = Duration::from_secs(1);

/// Hosts, and the balancer before them.
pub struct Setup {
    /// In a few words.
    pub name: String,
    /// The cores of each host.
    pub hosts: Vec<Vec<usize>>,
    /// Processes on each host.
    pub processes: usize,
    /// HAProxy's configuration.
    pub configuration: String,
}

/// The reason why there can be no hosts here; `None` if there can.
pub fn missing() -> Option<String> {
    Network::missing().or_else(Balancer::missing)
}

/// The address of the balancer.
pub fn balancer() -> String {
    Network::address(BALANCER).to_string()
}

/// The address of a host, counted from 0.
pub fn host(index: usize) -> String {
    Network::address(number(index)).to_string()
}

fn number(index: usize) -> u8 {
    u8::try_from(index).map_or(u8::MAX, |index| FIRST_HOST.saturating_add(index))
}

/// The rows of the setups, and their numbers.
pub struct Found {
    /// A row for each setup.
    pub rows: Vec<Row>,
    /// The numbers.
    pub numbers: Numbers,
    /// The conditions.
    pub conditions: Conditions,
    /// The reason why nothing was kept in PostgreSQL; `None` if it was.
    pub without_database: Option<String>,
}

/// Runs `trials` trials of each setup, interleaved, and reports the next one to `say` before it begins.
///
/// # Errors
/// A setup that does not start; an interrupt.
pub fn measure(server: &Server, setups: &[Setup], trials: u32, mut say: impl FnMut(&str)) -> Result<Found> {
    let network = Network::enter()?;
    let mut found = Found {
        rows: setups.iter().map(|setup| Row { name: setup.name.clone(), ..Row::default() }).collect(),
        numbers: Numbers::default(),
        conditions: Conditions::here(Mode::Standard),
        without_database: Database::missing(),
    };
    for trial in 1..=trials {
        for setup in setups {
            let of = Trial { network: &network, server, setup, conditions: &found.conditions, seed: u64::from(trial) };
            say(&format!("trial {trial} of {trials}: {}", setup.name));
            let readings = of.run(found.without_database.is_none()).with_context(|| setup.name.clone())?;
            found.numbers.add(&setup.name, readings);
        }
    }
    Ok(found)
}

/// One trial of one setup.
struct Trial<'t> {
    network: &'t Network,
    server: &'t Server,
    setup: &'t Setup,
    conditions: &'t Conditions,
    seed: u64,
}

impl Trial<'_> {
    fn run(&self, has_database: bool) -> Result<Vec<Reading>> {
        let session = Session {
            server: self.server,
            conditions: self.conditions,
            seed: self.seed,
            placement: self.conditions.placement,
            keeps_timelines: false,
            driver: &Sockets,
            tell: &|_| (),
        };
        let start = || Fleet::start(self.network, &session, self.setup, Backend::Memory.name());
        let fleet = start()?;
        let mut readings = self.collateral(&session, &mut Running::elsewhere(fleet.address())?)?;
        // What blocked is still being worked off.
        drop(fleet);
        let mut fleet = start()?;
        let mut balancer = Running::elsewhere(fleet.address())?;
        readings.extend(kept_by(&mut balancer, Backend::Memory, SAVING)?.readings(NAME));
        readings.extend(outage::reload(&session, &fleet)?);
        if self.setup.hosts.len() > 1 {
            readings.extend(outage::lost_host(&session, self.network, &mut fleet)?);
        }
        drop(fleet);
        if has_database {
            readings.extend(self.in_database(&session)?);
        }
        Ok(readings)
    }

    fn collateral(&self, session: &Session<'_>, balancer: &mut Running) -> Result<Vec<Reading>> {
        let probe = learn(balancer, "/")?;
        let blocker = Kind::Sleep.target(Duration::from_secs_f64(BLOCK_MS / 1e3), balancer)?;
        session.warm_up(&probe, PROBES.1)?;
        let climb = Climb {
            kind: Kind::Sleep.name(),
            block_ms: BLOCK_MS,
            connecting: Duration::ZERO,
            window: Duration::from_secs(1),
            limit: Duration::from_secs_f64(LIMIT_MS / 1e3),
            blockers: &BLOCKERS,
            probe: (&probe, PROBES.0, PROBES.1),
            blocker: &blocker,
            at_once: &|k| Some(k),
            is_lenient: false,
        };
        let _driver = session.placement.enter_driver(true);
        climb.run(session)?.read(NAME, &BLOCKERS, Percentile::default())
    }

    fn in_database(&self, session: &Session<'_>) -> Result<Vec<Reading>> {
        let database = Database::start_for_network(Network::address(CLIENT))?;
        let server = self.server.with_state(Database::ANY);
        let session = Session { server: &server, ..*session };
        let fleet = Fleet::start(self.network, &session, self.setup, &database.state())?;
        let mut balancer = Running::elsewhere(fleet.address())?;
        Ok(kept_by(&mut balancer, Backend::Postgres, SAVING)?.readings(NAME))
    }
}
