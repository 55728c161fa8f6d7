//! `stallbench bench --command ...`, `--url ...`, or a `--servers-file` with blockers in it: how many slow requests freeze a user's own service?
//!
//! What blocks is a request of the user's choice; how long it takes is measured first. Reference servers are measured in the same round with
//! blockers of the same length, so that the answer holds for this machine.

use super::bench::settings;
use super::exit_code;
use crate::catalog::{self, Allocator, Ask, Blocking, MOST_BODY_MIB, Own, Program, REFERENCE, Row, Server, read_named};
use crate::cli::{Bench, OwnService};
use crate::console::output::{print, say};
use crate::console::progress::Progress;
use crate::console::usage::{Usage, refuse};
use crate::experiment::service;
use crate::host::placement::set_of;
use crate::http::Url;
use crate::metrics::Percentile;
use crate::process::{Start, deploy};
use crate::report::Terminal;
use crate::round::{self, Settings};
use crate::summary;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Name of the row where nobody gave it one.
const NAME: &str = "yours";
/// The experiment.
const SERVICE: &str = "service";

/// The user's own servers that the arguments name; none if they do not.
///
/// # Errors
/// A command without a place for the port; no address; no path; a file that mixes them with servers that keep the contract.
pub fn of(arguments: &Bench) -> Result<Vec<Server>> {
    if let Some(file) = &arguments.servers_file
        && arguments.command.is_none()
        && arguments.url.is_none()
    {
        let servers = from_file(file, &arguments.own)?;
        if !servers.is_empty() {
            refuse_ignored(file, arguments)?;
        }
        servers.iter().try_for_each(deploy::own::check)?;
        return Ok(servers);
    }
    Ok(single(arguments.command.as_deref(), arguments.url.as_deref(), &arguments.own)?.into_iter().collect())
}

/// Words that choose servers or experiments: a service has one experiment, and references beside it.
fn refuse_ignored(file: &Path, arguments: &Bench) -> Result<()> {
    let filter = arguments.filters.first().map(|filter| format!("'{filter}'"));
    let given = [
        ("--experiment", !arguments.experiment.is_empty()),
        ("--blockers", !arguments.blockers.is_empty()),
        ("--allocator", arguments.allocator != Allocator::Mimalloc),
    ];
    let option = given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| (*name).to_owned());
    match filter.or(option) {
        Some(word) => refuse!(
            "{word} cannot be combined with the servers of {}, which have a slow request of their own: leave it out",
            file.display()
        ),
        None => Ok(()),
    }
}

/// The one server of the user's that a command or an address names.
///
/// # Errors
/// As for [`of`].
pub fn single(command: Option<&str>, url: Option<&str>, own: &OwnService) -> Result<Option<Server>> {
    let server = match (command, url) {
        (Some(command), _) => Some(server(NAME, Program::Shell(command.to_owned()), own, None)?),
        (_, Some(url)) => Some(at_address(url, own)?),
        _ => None,
    };
    server.iter().try_for_each(deploy::own::check)?;
    Ok(server)
}

fn at_address(url: &str, own: &OwnService) -> Result<Server> {
    let parsed = Url::parse(url)?;
    let path = Some(parsed.path.clone()).filter(|path| path != "/");
    if path.is_some() && own.probe.is_some() {
        refuse!("--url has a path and --probe names another: leave one of them out");
    }
    let probe = path.map(|path| path.parse()).transpose().map_err(anyhow::Error::msg)?;
    let mut server = server(NAME, Program::Address(format!("http://{}/", parsed.authority)), own, probe)?;
    if let Some(own) = &mut server.own {
        own.host = Some(parsed.authority);
    }
    Ok(server)
}

/// A server that keeps no contract.
///
/// # Errors
/// No slow request is named.
pub fn server(name: &str, program: Program, own: &OwnService, probe: Option<Ask>) -> Result<Server> {
    let (probe, blocker) = questions(own, probe)?;
    let blocker = blocker.ok_or_else(|| Usage("--blocker is missing: the path of a slow request on your server".into()))?;
    Ok(Server {
        name: name.into(),
        runtime: name.into(),
        model: "own".into(),
        http: "own".into(),
        blocking: Blocking::Inline,
        runs_on: String::new(),
        pinned_to: None,
        about: "a user's own server".into(),
        is_peer: false,
        unsupported: BTreeMap::new(),
        args: Vec::new(),
        program,
        is_one_process: false,
        variant_of: None,
        tags: Vec::new(),
        own: Some(Own { probe, blocker, headers: own.headers.clone(), host: None }),
        requires: Vec::new(),
        needs: Vec::new(),
        only_if_asked: None,
        unmaintained: None,
    })
}

/// The quick and the slow request, with their bodies; `probe` goes before the one of the arguments.
fn questions(own: &OwnService, probe: Option<Ask>) -> Result<(Ask, Option<Ask>)> {
    let body = |path: &Option<PathBuf>| path.as_deref().map(|path| read_named(path, MOST_BODY_MIB)).transpose();
    let root = || "/".parse().map_err(anyhow::Error::msg);
    let probe = probe.or_else(|| own.probe.clone()).map_or_else(root, Ok)?;
    let probe = match body(&own.probe_body)? {
        Some(body) => probe.with_body(body),
        None => probe,
    };
    let blocker = match (own.blocker.clone(), body(&own.blocker_body)?) {
        (Some(blocker), Some(body)) => Some(blocker.with_body(body)),
        (blocker, _) => blocker,
    };
    Ok((probe, blocker))
}

fn from_file(file: &Path, own: &OwnService) -> Result<Vec<Server>> {
    let mut servers = catalog::read(file)?;
    let (some, all) = (servers.iter().any(|server| server.own.is_some()), servers.iter().all(|server| server.own.is_some()));
    // Without a blocker, servers that name none are not asked at all.
    if let Some(word) = own.first_question().filter(|_| all || some && own.blocker.is_none()) {
        refuse!("{word} is for servers that name no blocker, and those of {} name theirs: leave it out", file.display());
    }
    // A blocker on the command line is for those of the file that name none.
    if let (probe, Some(blocker)) = questions(own, None)? {
        for server in servers.iter_mut().filter(|server| server.own.is_none()) {
            let (probe, blocker) = (probe.clone(), blocker.clone());
            server.own = Some(Own { probe, blocker, headers: Vec::new(), host: None });
        }
    }
    let count = servers.iter().filter(|server| server.own.is_some()).count();
    if count > 0 && count < servers.len() {
        bail!("{}: some servers have a blocker and some do not; put them into two files", file.display());
    }
    servers.retain(|server| server.own.is_some());
    for server in &mut servers {
        if let Some(questions) = &mut server.own {
            questions.headers.clone_from(&own.headers);
        }
    }
    Ok(servers)
}

/// Measures the services beside references, keeps the round, and prints the answer.
///
/// # Errors
/// A service that does not start, or answers wrongly when asked alone.
pub fn run(owns: Vec<Server>, arguments: &Bench) -> Result<ExitCode> {
    if let Some(folder) = arguments.out.as_deref().filter(|folder| folder.exists()) {
        bail!("{} exists, and rounds are never overwritten: choose another with --out", folder.display());
    }
    let mut settings = settings(arguments, &[SERVICE.into()])?;
    // Not one that a page may quote.
    settings.filters = owns.iter().map(|own| own.name.clone()).collect();
    build(&owns, arguments.no_build)?;
    let learned = learn(&owns, &settings)?;
    warn(&owns, &learned);
    settings.experiments.insert(SERVICE.into(), serde_json::to_value(&learned)?);
    let mut servers = if arguments.alone { Vec::new() } else { references(arguments)? };
    let rows = owns.iter().map(|own| own_row(own, &learned)).chain(servers.iter().map(|server| round::row(server, &settings)));
    let rows: Vec<Row> = rows.collect();
    servers.retain(|server| rows.iter().any(|row| row.name == server.name && row.unavailable.is_none()));
    let all: Vec<Server> = owns.into_iter().chain(servers).collect();
    catalog::refuse_same_names(&all)?;
    let mut round = round::begin(arguments.out.as_deref(), rows, settings)?;
    round::measure(&mut round, &all)?;
    let numbers = round::numbers(&round, Percentile::default())?;
    let tables = summary::tables(&round, &numbers, Percentile::default())?;
    let terminal = Terminal::of_stdout(arguments.wide, arguments.intervals);
    if arguments.json {
        print(&summary::to_json(&round, &tables, &numbers)?)?;
    } else {
        print(&summary::screen(&round, &numbers, &terminal, arguments.load())?)?;
        summary::invalid(&round, &numbers)?.iter().for_each(|reason| say(reason));
    }
    // Last, since the disk may be full.
    let report = super::report::at_the_end(&round, &numbers);
    say(&format!("round: {} (all tables: stallbench tables {0}){report}", round.folder.display()));
    Ok(exit_code(summary::is_complete(&round)?))
}

/// Builds the services of a file that says how.
///
/// # Errors
/// One that cannot run here, or does not build.
fn build(owns: &[Server], no_build: bool) -> Result<()> {
    if let Some((own, missing)) = owns.iter().find_map(|own| Some((own, own.missing()?))) {
        bail!("{} cannot run here: {missing}", own.name);
    }
    if no_build { Ok(()) } else { deploy::package::build_services(owns) }
}

/// T of the slowest of the services, a rate that each of them bears, and steps long enough for both.
///
/// # Errors
/// A service that does not start, or answers wrongly.
pub fn learn(owns: &[Server], settings: &Settings) -> Result<service::Settings> {
    let cores = set_of(&settings.conditions.placement.server_cores());
    let start = Start { threads: settings.conditions.threads, more: Vec::new(), cores };
    let own = settings.experiments.get(SERVICE).context("the round does not measure a service")?;
    let own: service::Settings = serde_json::from_value(own.clone())?;
    for server in owns {
        let Some(questions) = &server.own else { continue };
        // What follows may take seconds, without a bar.
        say(&format!("{}: asks {} and {} alone, to learn how long they take", server.name, questions.probe, questions.blocker));
    }
    own.learn(owns, &start, settings.conditions.mode)
}

/// A slow request that is no slower than the quick one shows nothing, and a quick one that is slow is slowed down by the probes themselves.
pub(super) fn warn(owns: &[Server], learned: &service::Settings) {
    if let Some(share) = learned.too_many_probes() {
        say(&format!(
            "stallbench: warning: the quick request takes {:.0} ms, so the fewest probes are {:.0} % of what a service that answers one at a time can bear: name a quicker one with --probe",
            learned.probe_ms,
            share * 100.0
        ));
    }
    if !learned.has_slow_request() {
        for own in owns {
            let Some(questions) = &own.own else { continue };
            say(&format!(
                "stallbench: warning: {} takes only {} ms, and {} takes {:.1} ms: name a request that is slow with --blocker",
                questions.blocker, learned.block_ms, questions.probe, learned.probe_ms
            ));
        }
    }
}

fn own_row(own: &Server, learned: &service::Settings) -> Row {
    let questions = own.own.as_ref().map_or(String::new(), |own| {
        format!(": {} beside {}, which takes {} ms alone", own.probe, own.blocker, learned.block_ms)
    });
    let what = format!("{}{questions}", deploy::own::describe(own));
    Row { unavailable: None, own: Some(what), ..Row::new(own, BTreeMap::new(), Err(String::new())) }
}

/// The reference servers, built.
fn references(arguments: &Bench) -> Result<Vec<Server>> {
    let servers = match catalog::load() {
        Ok(all) => catalog::tagged(&all, REFERENCE),
        Err(error) => {
            say(&format!("stallbench: without reference servers: {error:#}"));
            return Ok(Vec::new());
        }
    };
    if !arguments.no_build {
        let progress = Progress::new(deploy::package::programs(&servers));
        deploy::package::build(&servers, &progress)?;
    }
    Ok(servers)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::measure::Mode;
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    /// A server whose answers to `/` and to `/slow` take these times.
    pub(in crate::cmd) fn timed(name: &str, quick_ms: u64, slow_ms: u64) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let is_slow = head.next().is_some_and(|line| line.contains("/slow"));
                head.find(String::is_empty);
                std::thread::sleep(Duration::from_millis(if is_slow { slow_ms } else { quick_ms }));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
        });
        Server { name: name.into(), ..at(address) }
    }

    /// A server that looks at each new connection for this time before it serves it.
    fn slow_to_connect(accept_ms: u64) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::sleep(Duration::from_millis(accept_ms));
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                for _ in lines.filter(String::is_empty) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            }
        });
        at(address)
    }

    fn at(address: SocketAddr) -> Server {
        let own = OwnService { blocker: Some("/slow".parse().unwrap()), ..OwnService::default() };
        server("mine", Program::Address(format!("http://{address}/")), &own, None).unwrap()
    }

    #[test]
    fn a_body_makes_a_request_a_post_unless_it_names_its_method() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(b"{}").unwrap();
        let body = Some(file.path().to_path_buf());
        let (probe, blocker) = ["/quick", "PUT /slow"].map(|text| text.parse::<Ask>().unwrap()).into();
        let own = OwnService {
            probe: Some(probe),
            blocker: Some(blocker),
            blocker_body: body.clone(),
            probe_body: body,
            ..OwnService::default()
        };
        let (probe, blocker) = questions(&own, None).unwrap();
        assert_eq!((probe.to_string(), probe.body.as_deref()), ("POST /quick".into(), Some(&b"{}"[..])));
        assert_eq!(blocker.map(|blocker| (blocker.to_string(), blocker.body)), Some(("PUT /slow".into(), Some(b"{}".into()))));
        let gone = OwnService { probe_body: Some("/no-such-file".into()), ..OwnService::default() };
        assert!(questions(&gone, None).unwrap_err().to_string().contains("cannot read /no-such-file"));
    }

    #[test]
    fn the_load_of_several_services_is_one_that_each_of_them_bears() {
        let before = service::Settings {
            blockers: vec![0, 1],
            block_ms: 0.0,
            slow_ms: Default::default(),
            lone: Default::default(),
            probe_ms: 0.0,
            fresh_ms: 0.0,
            window_ms: 1000,
            reference_blockers: Vec::new(),
            reference_window_ms: 1000,
            rate: 1000.0,
            connections: 256,
        };
        let cores: CpuSet = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let start = Start { threads: 1, more: Vec::new(), cores };
        // Who is connected already is not delayed by it.
        let connecting = before.clone().learn(&[slow_to_connect(200)], &start, Mode::Quick).unwrap();
        assert!(connecting.fresh_ms >= 200.0 && connecting.probe_ms < 200.0 && connecting.block_ms < 200.0, "{connecting:?}");
        // The slow request of the one takes longest, and the quick request of the other.
        let learned = before.learn(&[timed("a", 1, 90), timed("b", 25, 40)], &start, Mode::Quick).unwrap();
        assert!(learned.block_ms >= 90.0 && learned.probe_ms >= 25.0, "{learned:?}");
        assert!(learned.rate <= 8.0 && learned.rate * learned.window_ms as f64 >= 20_000.0, "{learned:?}");
    }
}
