//! State: many clients save launches and look for them at once on another connection, then in the whole list. Nothing may be missing, and no
//! number may be given twice, whichever process answers.
//!
//! Then they count: in the memory of each process, in memory that all of them share, and there without atomic operations.

use super::contract::{Choices, Experiment, Needs, keeps_launches};
use crate::catalog::{Row, Server};
use crate::console::interrupt;
use crate::http::{Client, Response, at_once, get};
use crate::measure::{Backend, Mode, Session, ms, save_launch};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::process::Running;
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::{Context, Result, bail};
use common::state::Launch;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Clients at once; each has one connection to save on and one to look on.
const CLIENTS: usize = 16;
/// Launches after which a client connects anew: connections that were opened at one moment may all belong to one process.
const RENEWED: usize = 32;
/// Requests of each client to `/hits`, and how often one of them counts.
const HITS: (usize, i64) = (25, 1000);
/// Launches on a page of the list.
const PAGE: usize = 1000;

const NOT_SEEN: Family = Family::new("not_seen", Unit::Share, Role::Detail);
const LOST: Family = Family::new("lost", Unit::Share, Role::Detail);
const DOUBLED: Family = Family::new("doubled", Unit::Share, Role::Detail);
const MISNUMBERED: Family = Family::new("misnumbered", Unit::Share, Role::Detail);
const SAVED: Family = Family::new("saved_per_s", Unit::PerSecond, Role::Cost).more_is_better();
const SAVE_P99: Family = Family::new("save_p99_ms", Unit::Ms, Role::Cost);
const HITS_SEEN: Family = Family::new("hits_in_one_process", Unit::Share, Role::Detail);
const HITS_SHARED: Family = Family::new("hits_shared", Unit::Share, Role::Detail);
const HITS_PLAIN: Family = Family::new("hits_without_atomics", Unit::Share, Role::Detail);

/// One entry for each backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    kept: Vec<Kept>,
    hits: Hits,
}

/// What became of the launches that were saved in one backend. Numbers are launches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The backend.
    place: Backend,
    /// Answered 201.
    saved: usize,
    /// Not found, or another launch in its place, right after that on another connection.
    not_seen: usize,
    /// Not in the list in the end.
    lost: usize,
    /// Had a number that another one had got before.
    doubled: usize,
    /// Entries of the list in the end that do not follow from the one before, or that nobody saved.
    misnumbered: usize,
    /// Saved in a second by all clients.
    saved_per_s: f64,
    /// 99th percentile of the time that saving took, in ms.
    save_p99_ms: f64,
}

/// What `/hits` says in the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hits {
    /// Sent.
    sent: i64,
    /// In the process that answered.
    process: i64,
    /// In shared memory.
    shared: i64,
    /// In shared memory, without atomic operations.
    unsynchronized: i64,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The backends.
    places: Vec<Backend>,
    /// Time for saving, in ms.
    window_ms: u64,
}

impl Experiment for State {
    const NAME: &'static str = "state";
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        Settings { places: Backend::here(), window_ms: if mode == Mode::Quick { 500 } else { 1000 } }
    }

    fn seconds(settings: &Settings) -> f64 {
        settings.places.len() as f64 * (0.6 + settings.window_ms as f64 / 1e3) + 1.0
    }

    fn unsupported(server: &Server, _: &Settings) -> Option<String> {
        keeps_launches(server).err()
    }

    fn needs(server: &Server, settings: &Settings) -> Needs {
        let needs = settings.places.contains(&Backend::Postgres) && keeps_launches(server).is_ok();
        if needs { Needs::Postgres } else { Needs::Nothing }
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let window = Duration::from_millis(settings.window_ms);
        let kept = settings.places.iter().map(|place| in_place(session, *place, window).with_context(|| place.name()));
        Ok(State { kept: kept.collect::<Result<_>>()?, hits: hits(session)? })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        for kept in &self.kept {
            readings.extend(kept.readings(Self::NAME));
        }
        let share = |count: i64| Ok(Value::Exact(count as f64 / self.hits.sent.max(1) as f64));
        readings.push((HITS_SEEN.at(Self::NAME, ""), share(self.hits.process)));
        readings.push((HITS_SHARED.at(Self::NAME, ""), share(self.hits.shared)));
        readings.push((HITS_PLAIN.at(Self::NAME, ""), share(self.hits.unsynchronized)));
        Ok(readings)
    }

    fn families(_: Percentile) -> Vec<Family> {
        vec![SAVED, SAVE_P99]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let mut tables: Vec<Table> = settings.places.iter().map(|place| table(view, Self::NAME, *place)).collect();
        let heads = [("one process", HITS_SEEN), ("shared", HITS_SHARED), ("without atomics", HITS_PLAIN)];
        let columns = heads.iter().map(|(head, _)| report::Column::number(*head)).collect();
        let cells = |row: &Row| -> Vec<Cell> {
            heads.iter().map(|(_, family)| view.cell(row, &family.clone().at(Self::NAME, ""))).collect()
        };
        tables.push(view.table(Self::NAME, "Hits: the share of all requests that each number has counted", columns, cells));
        tables
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let names: Vec<&str> = settings.places.iter().map(|place| place.name()).collect();
        let of = |name: &str, title: String, scale: Scale, family: Family| {
            let x = Places::even("where launches are kept", &names);
            view.figure(name, title, x, scale, |at| family.clone().at(Self::NAME, names[at]))
        };
        let clients = format!("by {CLIENTS} clients at once");
        [
            of("state-saved", format!("Launches saved each second {clients}"), Scale::logarithmic("saved", "/s"), SAVED),
            of(
                "state-not-seen",
                format!("Launches that the next request does not see, saved {clients}"),
                Scale::linear("not seen", "%"),
                NOT_SEEN,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What became of the launches in one backend.
pub fn table(view: &View<'_>, experiment: &'static str, place: Backend) -> Table {
    let heads = [
        ("not seen", NOT_SEEN),
        ("lost", LOST),
        ("doubled", DOUBLED),
        ("misnumbered", MISNUMBERED),
        ("saved/s", SAVED),
        ("p99 ms", SAVE_P99),
    ];
    let columns = heads.iter().map(|(head, _)| report::Column::number(*head)).collect();
    let cells = |row: &Row| -> Vec<Cell> {
        heads.iter().map(|(_, family)| view.cell(row, &family.clone().at(experiment, place.name()))).collect()
    };
    let title = format!("Launches in {place}, saved by {CLIENTS} clients at once: shares that went wrong");
    view.table(experiment, title, columns, cells)
}

impl Kept {
    /// Its metrics.
    pub fn readings(&self, experiment: &'static str) -> Vec<Reading> {
        let share = |count: usize| count as f64 / self.saved.max(1) as f64;
        let of = |family: Family, value: f64| (family.at(experiment, self.place.name()), Ok(Value::Exact(value)));
        vec![
            of(NOT_SEEN, share(self.not_seen)),
            of(LOST, share(self.lost)),
            of(DOUBLED, share(self.doubled)),
            of(MISNUMBERED, share(self.misnumbered)),
            of(SAVED, self.saved_per_s),
            of(SAVE_P99, self.save_p99_ms),
        ]
    }
}

/// Saves launches in one backend until the window ends, and looks what became of them.
fn in_place(session: &Session<'_>, place: Backend, window: Duration) -> Result<Kept> {
    let mut keeping = session.start_keeping(place)?;
    kept_by(&mut keeping.running, place, window)
}

/// The same with a server that runs, and has kept nothing yet.
///
/// # Errors
/// It does not answer, or wrongly.
pub fn kept_by(running: &mut Running, place: Backend, window: Duration) -> Result<Kept> {
    let address = running.address;
    let saved = running.explain(at_once(CLIENTS, |client| save(address, client, window)))?;
    let elapsed = saved.iter().map(|client| client.elapsed).max().unwrap_or_default();
    let saved: Vec<Saved> = saved.into_iter().flat_map(|client| client.saved).collect();
    let list = running.explain(whole_list(address))?;
    Ok(judge(place, &saved, &list, elapsed))
}

/// What one client did.
struct ByClient {
    saved: Vec<Saved>,
    elapsed: Duration,
}

/// A launch that was answered 201.
struct Saved {
    flight: i64,
    mission: String,
    took: Duration,
    is_seen: bool,
}

fn save(address: SocketAddr, client: usize, window: Duration) -> Result<ByClient> {
    let (mut saving, mut looking) = (Client::connect(address)?, Client::connect(address)?);
    let (mut saved, host, started) = (Vec::new(), address.to_string(), Instant::now());
    while started.elapsed() < window {
        interrupt::check()?;
        if saved.len() % RENEWED == 0 {
            (saving, looking) = (Client::connect(address)?, Client::connect(address)?);
        }
        let mission = format!("{client}-{}", saved.len());
        let sent = Instant::now();
        let answer = saving.ask(&save_launch(&host, &mission).to_bytes())?;
        let took = sent.elapsed();
        if answer.status != 201 {
            bail!("a launch is answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
        }
        let flight = read::<Launch>(&answer)?.flight_number;
        let found = looking.ask(&get(&format!("/launches/{flight}")))?;
        let is_seen = found.status == 200 && read::<Launch>(&found)?.chosen.mission == mission;
        saved.push(Saved { flight, mission, took, is_seen });
    }
    Ok(ByClient { saved, elapsed: started.elapsed() })
}

fn read<T: serde::de::DeserializeOwned>(answer: &Response) -> Result<T> {
    serde_json::from_slice(&answer.body).with_context(|| format!("status {} with an unexpected body", answer.status))
}

/// All launches, as one connection sees them.
fn whole_list(address: SocketAddr) -> Result<Vec<Launch>> {
    let (mut client, mut all) = (Client::connect(address)?, Vec::new());
    for page in 1.. {
        let launches: Vec<Launch> = read(&client.ask(&get(&format!("/launches?limit={PAGE}&page={page}")))?)?;
        let is_last = launches.len() < PAGE;
        all.extend(launches);
        if is_last {
            break;
        }
    }
    Ok(all)
}

fn judge(place: Backend, saved: &[Saved], list: &[Launch], elapsed: Duration) -> Kept {
    let mut numbers: HashMap<i64, usize> = HashMap::new();
    saved.iter().for_each(|launch| *numbers.entry(launch.flight).or_default() += 1);
    let missions: HashMap<&str, i64> = saved.iter().map(|launch| (launch.mission.as_str(), launch.flight)).collect();
    let listed: HashMap<&str, i64> = list.iter().map(|launch| (launch.chosen.mission.as_str(), launch.flight_number)).collect();
    let is_right = |(index, launch): (usize, &Launch)| {
        launch.flight_number == index as i64 + 1 && missions.get(launch.chosen.mission.as_str()) == Some(&launch.flight_number)
    };
    let mut times: Vec<f64> = saved.iter().map(|launch| ms(launch.took)).collect();
    times.sort_by(f64::total_cmp);
    Kept {
        place,
        saved: saved.len(),
        not_seen: saved.iter().filter(|launch| !launch.is_seen).count(),
        lost: saved.iter().filter(|launch| listed.get(launch.mission.as_str()) != Some(&launch.flight)).count(),
        doubled: numbers.values().map(|count| count - 1).sum(),
        misnumbered: list.iter().enumerate().filter(|entry| !is_right(*entry)).count(),
        saved_per_s: saved.len() as f64 / elapsed.as_secs_f64(),
        save_p99_ms: times.get(times.len() * 99 / 100).copied().unwrap_or_default(),
    }
}

/// Counts, all clients at once, and asks for the numbers in the end.
fn hits(session: &Session<'_>) -> Result<Hits> {
    let mut running = session.start()?;
    let address = running.address;
    let (requests, times) = HITS;
    let count = |_| {
        let mut client = Client::connect(address)?;
        for _ in 0..requests {
            client.ask(&get(&format!("/hits?times={times}")))?;
        }
        Ok(())
    };
    running.explain(at_once(CLIENTS, count))?;
    let last = Client::connect(address)?.ask(&get("/hits"))?;
    let told: serde_json::Value = read(&last)?;
    let number = |name: &str| told[name].as_i64().with_context(|| format!("/hits does not tell '{name}'"));
    let sent = (CLIENTS * requests) as i64 * times + 1;
    Ok(Hits { sent, process: number("process")?, shared: number("shared")?, unsynchronized: number("unsynchronized")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::state::NewLaunch;

    fn launch(flight_number: i64, mission: &str) -> Launch {
        let chosen = NewLaunch::read(
            format!(r#"{{"mission":"{mission}","rocket":"r","launch_date":"2030-12-27","target":"t"}}"#).as_bytes(),
        );
        Launch { flight_number, chosen: chosen.unwrap() }
    }

    fn saved(flight: i64, mission: &str) -> Saved {
        Saved { flight, mission: mission.into(), took: Duration::from_millis(2), is_seen: true }
    }

    fn faults(saved: &[Saved], list: &[Launch]) -> [usize; 4] {
        let kept = judge(Backend::Memory, saved, list, Duration::from_secs(1));
        [kept.not_seen, kept.lost, kept.doubled, kept.misnumbered]
    }

    #[test]
    fn each_fault_is_counted_where_it_belongs() {
        let both = [saved(1, "a"), saved(2, "b")];
        assert_eq!(faults(&both, &[launch(1, "a"), launch(2, "b")]), [0, 0, 0, 0]);
        assert_eq!(faults(&both, &[launch(1, "a")]), [0, 1, 0, 0]);
        assert_eq!(faults(&both, &[launch(1, "a"), launch(3, "b")]), [0, 1, 0, 1]);
        // Two processes, each with a list of its own.
        assert_eq!(faults(&[saved(1, "a"), saved(1, "b")], &[launch(1, "b")]), [0, 1, 1, 0]);
        let unseen = Saved { is_seen: false, ..saved(1, "a") };
        assert_eq!(faults(&[unseen], &[launch(1, "a")]), [1, 0, 0, 0]);
        assert_eq!(faults(&[], &[launch(1, "of nobody")]), [0, 0, 0, 1]);
    }
}
