//! Two browser tabs on `/timer`: requests sent at the same instant, each on its own connection, and when each was done.

use super::contract::{Choices, Column, Experiment, Scene};
use crate::load::{Drive, Lane, Load, Opened, Pace, Target};
use crate::measure::{Mode, Session, learn, ms};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::process::Unread;
use crate::report::{self, View, waterfall};
use crate::validity;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const FIRST: Family = Family::new("first_ms", Unit::Ms, Role::Latency);
const LAST: Family = Family::new("last_ms", Unit::Ms, Role::Latency);
/// The tabs of a first look, and the length of their requests in ms.
const FIRST_LOOK: (usize, u64) = (2, 500);

/// One entry for each number of tabs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TwoTabs {
    /// Length of each request, in ms.
    length_ms: u64,
    /// The waterfalls.
    falls: Vec<Fall>,
}

/// When each of the tabs had its answer, in ms since all were sent, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fall {
    tabs: usize,
    finished_ms: Vec<f64>,
    /// When the server had read each of their requests, to the millisecond; what it has not read waits in the kernel. `None` where the kernel does not
    /// tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_ms: Option<Vec<f64>>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Numbers of tabs.
    tabs: Vec<usize>,
    /// Length of a tab's request, in ms.
    tab_ms: u64,
}

impl Experiment for TwoTabs {
    const NAME: &'static str = "two-tabs";
    const IS_STANDARD: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        let is_quick = mode == Mode::Quick;
        Settings { tabs: if is_quick { vec![2] } else { vec![2, 8] }, tab_ms: 200 }
    }

    fn settings_of_schema_1(old: &Json, mode: Mode) -> Settings {
        serde_json::from_value(old.clone()).unwrap_or_else(|_| Self::settings(mode, &Choices::default()))
    }

    fn seconds(settings: &Settings) -> f64 {
        0.5 + settings.tabs.iter().map(|tabs| *tabs as f64 * settings.tab_ms as f64 / 1500.0).sum::<f64>()
    }

    fn reduce(settings: &mut Settings) -> Option<String> {
        (settings.tabs.len() > 1)
            .then(|| settings.tabs.drain(1..).map(|tabs| format!("{tabs} tabs")).collect::<Vec<_>>().join(", "))
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let length_ms = settings.tab_ms;
        learn(&mut running, "/")?;
        let target = learn(&mut running, &format!("/timer?ms={length_ms}"))?;
        let _driver = session.placement.enter_driver(true);
        let open = |tabs: &usize| open_tabs(session.driver, &target, *tabs, length_ms, session.seed);
        let falls = settings.tabs.iter().map(|tabs| running.explain(open(tabs)));
        Ok(TwoTabs { length_ms, falls: falls.collect::<Result<_>>()? })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let ends = |fall: &Fall| {
            let at = |family: Family, end: Option<&f64>| {
                (
                    family.at(Self::NAME, fall.tabs.to_string()),
                    end.map(|ms| Value::Exact(*ms)).ok_or_else(|| "no tab ended".into()),
                )
            };
            [at(FIRST, fall.finished_ms.first()), at(LAST, fall.finished_ms.last())]
        };
        Ok(self.falls.iter().flat_map(ends).collect())
    }

    fn families(_: Percentile) -> Vec<Family> {
        vec![FIRST, LAST]
    }

    fn headline(settings: &Settings, _: &View<'_>) -> Vec<Column> {
        let tabs = settings.tabs.clone();
        let column = |tabs: usize, name: &str, family: Family| Column {
            column: report::Column::number(format!("{name} of {tabs} tabs ms")).wide(),
            cell: Box::new(move |view, row| view.cell(row, &family.at(Self::NAME, tabs.to_string()))),
        };
        tabs.into_iter().flat_map(|tabs| [column(tabs, "first", FIRST), column(tabs, "last", LAST)]).collect()
    }

    fn scenes(self) -> Vec<Scene> {
        let length_ms = self.length_ms as f64;
        self.falls
            .into_iter()
            .map(|fall| Scene::Waterfall { length_ms, finished_ms: fall.finished_ms, read_ms: fall.read_ms })
            .collect()
    }
}

/// A first look at several servers, as a picture of their waterfalls side by side.
pub fn picture(found: &[(&str, &Json)]) -> Option<String> {
    let read = |(name, outcome): &(&str, &Json)| {
        let tabs = TwoTabs::deserialize(*outcome).ok()?;
        let fall = tabs.falls.first()?;
        let title = format!("{name}: {} tabs on /timer?ms={}", fall.tabs, tabs.length_ms);
        Some((title, tabs.length_ms as f64, fall.finished_ms.clone()))
    };
    let falls: Vec<(String, f64, Vec<f64>)> = found.iter().map(read).collect::<Option<_>>()?;
    Some(waterfall(&falls))
}

impl TwoTabs {
    /// The settings of a first look.
    pub fn first_look() -> Json {
        let (tabs, tab_ms) = FIRST_LOOK;
        serde_json::json!({ "tabs": [tabs], "tab_ms": tab_ms })
    }
}

/// Sends one request on each of several new connections at the same instant.
fn open_tabs(driver: &dyn Drive, target: &Target, tabs: usize, length_ms: u64, seed: u64) -> Result<Fall> {
    let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(1), think: Duration::ZERO };
    let lane = Lane { pace, ..Lane::closed(target.clone(), tabs, 1) };
    // One after another they need tabs x T; twice that is more than any server should take.
    let window = Duration::from_millis(2 * length_ms * tabs as u64 + 1000);
    let opened = Opened::default();
    let load = Load { grace: Duration::ZERO, opened: Some(opened.clone()), ..Load::of(vec![lane], window, seed) };
    let (seen, read) = watched(target.address, &opened, || driver.drive(&load))?;
    validity::of_lane(&seen, 0)?;
    let mut finished = seen.lanes[0].finished.clone();
    if finished.len() != tabs {
        bail!("{} of {tabs} tabs were answered within {} ms", finished.len(), window.as_millis());
    }
    finished.sort_by_key(|(_, at)| *at);
    let finished_ms: Vec<f64> = finished.iter().map(|(_, at)| ms(*at)).collect();
    validity::block_floor(finished_ms[0], length_ms as f64)?;
    let read_at = |read: &BTreeMap<usize, f64>, (slot, _): &(usize, Duration), end: f64| {
        // What nobody saw unread was read at once, and what is answered was read.
        read.get(slot).map_or(0.0, |at| ((at - seen.started) * 1e3).clamp(0.0, end))
    };
    let read_ms = read.map(|read| finished.iter().zip(&finished_ms).map(|(one, end)| read_at(&read, one, *end)).collect());
    Ok(Fall { tabs, finished_ms, read_ms })
}

/// Says that it is over when it is dropped, also by a panic, or the watcher would be waited for for ever.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs a load, and watches meanwhile when the server reads what it is sent, if the kernel tells.
fn watched<T>(server: SocketAddr, opened: &Opened, run: impl FnOnce() -> Result<T>) -> Result<(T, Option<BTreeMap<usize, f64>>)> {
    let Ok(unread) = Unread::new() else { return Ok((run()?, None)) };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| unread.watch(server, opened, &is_over));
        let over = Over(&is_over);
        let ran = run();
        drop(over);
        let read = watcher.join().ok().context("the watcher panicked")?;
        Ok((ran?, read))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Sockets;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    const T: u64 = 200;

    /// Two tabs on a server that gives each connection to this function, in turn, as it comes.
    fn two_tabs(serve: impl Fn(TcpStream) + Send + 'static) -> Fall {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || listener.incoming().flatten().for_each(serve));
        let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".as_slice().into();
        let target = Target { address, request, is_head: false, status: 200, body: None };
        open_tabs(&Sockets, &target, 2, T, 1).unwrap()
    }

    fn answer(mut stream: TcpStream, work: impl FnOnce()) {
        let _ = stream.read(&mut [0; 512]);
        work();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    fn block() {
        thread::sleep(Duration::from_millis(T));
    }

    #[test]
    fn a_request_is_queued_until_it_is_read_and_waits_from_then_on() {
        // One loop reads the second request when it has answered the first.
        let one_loop = two_tabs(|stream| answer(stream, block));
        let read_ms = one_loop.read_ms.unwrap();
        assert!(read_ms[0] < T as f64 && read_ms[1] >= T as f64 - 1.0, "{read_ms:?}");
        // A thread for each connection reads at once, but one works at a time.
        let lock: &'static Mutex<()> = Box::leak(Box::new(Mutex::new(())));
        let locked = move || drop(lock.lock().map(|_guard| block()));
        let threads = two_tabs(move |stream| drop(thread::spawn(move || answer(stream, locked))));
        let (read_ms, finished_ms) = (threads.read_ms.unwrap(), threads.finished_ms);
        assert!(read_ms[1] < T as f64 && finished_ms[1] >= 2.0 * T as f64, "{read_ms:?} {finished_ms:?}");
    }
}
