//! `stallbench scale-out`: one host against several, on this machine.

use super::{deploy, splice};
use crate::catalog::{self, Program, Server};
use crate::cli::{Balance, Deploy, Engine, ScaleOut};
use crate::console::output::print;
use crate::console::progress::Progress;
use crate::console::usage::refuse;
use crate::host::placement::Placement;
use crate::process::Database;
use crate::process::deploy::package;
use crate::report::{Format, Terminal, render};
use crate::scale_out::{self, Setup};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::process::ExitCode;

/// The name of the marks in a page.
const NAME: &str = "scale-out";

/// Measures one small host, one large one, and several small ones.
///
/// # Errors
/// A server that keeps no launches or does not build; what keeps a host from being started; a page that cannot be written.
pub fn run(arguments: &ScaleOut) -> Result<ExitCode> {
    let server = catalog::find(&catalog::load()?, &arguments.name)?;
    if !matches!(server.program, Program::Package(_)) || server.unsupported.contains_key("launches") {
        refuse!("{} does not run under the supervisor, or keeps no launches", server.name);
    }
    if let Some(reason) = scale_out::missing().or_else(|| server.missing()) {
        print(&format!("{NAME}: unavailable({reason})\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    build(&server)?;
    let setups = setups(arguments, &server)?;
    let progress = Progress::new(u64::from(arguments.trials) * setups.len() as u64);
    progress.quiet();
    let mut is_first = true;
    let found = scale_out::measure(&server, &setups, arguments.trials, |next| {
        progress.step(u64::from(!std::mem::take(&mut is_first)));
        progress.say(next);
    })?;
    drop(progress);
    let cluster = format!("{} with {} processes on each core", server.name, arguments.instances);
    let tables = scale_out::tables(&found, &cluster, arguments.trials);
    let shown = |format| render(&tables, format, &Terminal::of_stdout(arguments.wide, false));
    match &arguments.splice {
        Some(page) => splice::one(page, NAME, &shown(Format::Markdown)?)?,
        None => print(&shown(if arguments.json { Format::Json } else { Format::Text })?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn build(server: &Server) -> Result<()> {
    let mut servers = vec![server.clone()];
    if Database::missing().is_none() {
        servers.push(server.with_state(Database::ANY));
    }
    package::build(&servers, &Progress::new(package::programs(&servers)))?;
    package::build_supervisor()
}

/// The setups that are set against each other.
fn setups(arguments: &ScaleOut, server: &Server) -> Result<Vec<Setup>> {
    let (count, each) = (usize::from(arguments.hosts), usize::from(arguments.instances));
    let cores = Placement::default_here().server_cores();
    // Where there are fewer cores than hosts, some hosts share one.
    let small: Vec<Vec<usize>> = (0..count).map(|index| vec![cores[index % cores.len()]]).collect();
    let large: Vec<usize> = cores.iter().copied().take(count).collect();
    let setup = |name: String, hosts: Vec<Vec<usize>>, processes: usize, balance: Balance| -> Result<Setup> {
        let configuration = configuration(server, hosts.len(), balance)?;
        Ok(Setup { name, hosts, processes, configuration })
    };
    let one = |cores: usize| format!("1 host, {cores} {}", if cores == 1 { "core" } else { "cores" });
    let many = |how: &str| format!("{count} hosts, {how}");
    Ok(vec![
        setup(one(1), small[..1].to_vec(), each, Balance::RoundRobin)?,
        setup(one(large.len()), vec![large.clone()], count * each, Balance::RoundRobin)?,
        setup(many("in turn"), small.clone(), each, Balance::RoundRobin)?,
        setup(many("fewest connections"), small.clone(), each, Balance::LeastConn)?,
    ])
}

/// HAProxy's configuration, as `stallbench deploy haproxy` prints it.
fn configuration(server: &Server, hosts: usize, balance: Balance) -> Result<String> {
    let listen: SocketAddr = format!("{}:{}", scale_out::balancer(), scale_out::PORT).parse()?;
    let arguments = Deploy {
        engine: Engine::Haproxy,
        name: server.name.clone(),
        instances: 1,
        hosts: (0..hosts).map(|index| scale_out::host(index).parse()).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?,
        listen,
        balance,
        image: None,
        out: None,
        knobs: Vec::new(),
    };
    let files = deploy::files(&arguments, server)?;
    Ok(files.into_iter().next().context("no configuration")?.1)
}
