//! `stallbench check`: the contract, line by line, on real processes; or the harness itself.

use super::exit_code;
use crate::catalog::{self, DATABASE, REFERENCE, SELF_TEST, Server};
use crate::cli::Check;
use crate::console::interrupt;
use crate::console::output::print;
use crate::console::progress::Progress;
use crate::console::usage::refuse;
use crate::contract::{self, ON_POSTGRES, Verdict};
use crate::process::{Database, deploy::package};
use crate::selftest;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// The word that stands for the harness itself.
const HARNESS: &str = "harness";

/// Checks what is asked for: the harness, the database, or servers.
///
/// # Errors
/// What keeps the checks from running; a check that fails is told by the exit code.
pub fn run(arguments: &Check) -> Result<ExitCode> {
    match arguments.filters.as_slice() {
        [word] if arguments.no_build && (word == HARNESS || word == DATABASE) => {
            refuse!("--no-build is for servers, not for {word}")
        }
        [word] if word == HARNESS => harness(arguments),
        filters if arguments.small || !arguments.servers.is_empty() => {
            let option = if arguments.small { "--small" } else { "--servers" };
            refuse!("{option} is for the harness, not for {}", filters.first().map_or("servers", String::as_str))
        }
        [word] if word == DATABASE => database(),
        filters => servers(filters, !arguments.no_build),
    }
}

/// The self-tests; the null test only in full, since it takes long.
fn harness(arguments: &Check) -> Result<ExitCode> {
    let mut all = catalog::load()?;
    all.retain(|server| server.only_if_asked.is_none() && server.missing().is_none());
    let Some(driven) = catalog::tagged(&all, SELF_TEST).into_iter().next() else { bail!("no server has the tag {SELF_TEST}") };
    let measured: Vec<Server> = match (arguments.small, arguments.servers.is_empty()) {
        (true, _) => Vec::new(),
        (_, true) => catalog::tagged(&all, REFERENCE),
        _ => catalog::select(all, &arguments.servers)?,
    };
    let needed: Vec<Server> = measured.iter().cloned().chain([driven.clone()]).collect();
    let progress = Progress::new(package::programs(&needed));
    package::build(&needed, &progress)?;
    drop(progress);
    let mut failed = 0;
    let mut say = |name: &str, result: Result<String>| -> Result<()> {
        interrupt::check()?;
        failed += usize::from(result.is_err());
        let words = result.unwrap_or_else(|error| format!("BROKEN: {error:#}"));
        print(&format!("{name}: {words}\n"))
    };
    for (name, test) in selftest::FAULTS {
        say(name, test(&driven))?;
    }
    for (name, test) in selftest::ANSWERS {
        say(name, test())?;
    }
    if !arguments.small {
        say("null", selftest::null_test(&measured, arguments.out.as_deref()))?;
    }
    Ok(exit_code(failed == 0))
}

/// Launches in PostgreSQL; where that is not installed, only says so.
fn database() -> Result<ExitCode> {
    if let Some(missing) = Database::missing() {
        print(&format!("{DATABASE}: skipped: unavailable({missing})\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let all = catalog::load()?;
    let Some(server) = catalog::tagged(&all, DATABASE).into_iter().next() else { bail!("no server has the tag {DATABASE}") };
    let server = server.with_state(Database::ANY);
    let progress = Progress::new(1);
    package::build(std::slice::from_ref(&server), &progress)?;
    drop(progress);
    let mut failed = 0;
    for (name, check) in ON_POSTGRES {
        interrupt::check()?;
        let result = check(&server);
        failed += usize::from(result.is_err());
        print(&format!("{name}: {}\n", result.map_or_else(|error| format!("BROKEN: {error:#}"), |()| "kept".into())))?;
    }
    Ok(exit_code(failed == 0))
}

/// Checks the servers that the filters match; the exit code says whether all of them keep the contract.
fn servers(filters: &[String], builds: bool) -> Result<ExitCode> {
    let mut servers = catalog::select(catalog::load()?, filters)?;
    if filters.is_empty() {
        servers.retain(|server| server.only_if_asked.is_none());
    }
    if builds {
        package::build(&servers, &Progress::new(package::programs(&servers)))?;
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for server in &servers {
        if let Some(missing) = server.missing() {
            print(&format!("{}: skipped: unavailable({missing})\n", server.name))?;
            continue;
        }
        for (name, verdict) in contract::all(server)? {
            let line = match verdict {
                Verdict::Kept => {
                    passed += 1;
                    continue;
                }
                Verdict::Unsupported(reason) => {
                    skipped += 1;
                    format!("  {name}: unsupported({reason})")
                }
                Verdict::Broken(why) => {
                    failed += 1;
                    format!("  {name}: BROKEN: {why}")
                }
            };
            print(&format!("{}{line}\n", server.name))?;
        }
        print(&format!("{}: checked\n", server.name))?;
    }
    print(&format!("{passed} passed, {failed} failed, {skipped} skipped\n"))?;
    Ok(exit_code(failed == 0))
}
