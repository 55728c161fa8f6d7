//! `stallbench check`: the contract, line by line, on real processes.

use crate::catalog;
use crate::cli::Check;
use crate::console::progress::Progress;
use crate::contract;
use crate::process::builder;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// The word that stands for the harness itself.
const HARNESS: &str = "harness";

/// Checks what is asked for: the harness, or servers.
pub fn run(arguments: &Check) -> Result<ExitCode> {
    match arguments.filters.as_slice() {
        [word] if word == HARNESS => harness(arguments),
        filters if arguments.small => {
            bail!("--small is for the harness, not for {}", if filters.is_empty() { "servers" } else { &filters[0] })
        }
        filters => servers(filters),
    }
}

/// The self-tests; the null test only in full, since it takes a quarter of an hour.
fn harness(arguments: &Check) -> Result<ExitCode> {
    let mut all = catalog::load()?;
    all.retain(|server| !server.is_peer && server.only_if_asked.is_none() && server.missing().is_none());
    let needed: Vec<_> =
        all.iter().filter(|server| !arguments.small || server.name == crate::selftest::SERVER).cloned().collect();
    let progress = Progress::new(needed.len() as u64);
    builder::build(&needed, &progress)?;
    drop(progress);
    let mut failed = 0;
    let mut say = |name: &str, result: Result<String>| -> Result<()> {
        crate::console::interrupt::check()?;
        failed += usize::from(result.is_err());
        let words = result.unwrap_or_else(|error| format!("BROKEN: {error:#}"));
        super::print(&format!("{name}: {words}\n"));
        Ok(())
    };
    for (name, test) in crate::selftest::FAULTS {
        say(name, test())?;
    }
    if !arguments.small {
        say("null", crate::selftest::null_test(&needed, arguments.out.as_deref()))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(crate::SOME_FAILED) })
}

/// Checks the servers that the filters match; the exit code says whether all of them keep the contract.
fn servers(filters: &[String]) -> Result<ExitCode> {
    let mut servers = catalog::select(catalog::load()?, filters)?;
    if filters.is_empty() {
        servers.retain(|server| server.only_if_asked.is_none());
    }
    let progress = Progress::new(builder::programs(&servers));
    builder::build(&servers, &progress)?;
    drop(progress);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for server in &servers {
        if let Some(missing) = server.missing() {
            super::print(&format!("{}: skipped: unavailable({missing})\n", server.name));
            continue;
        }
        for (name, verdict) in contract::all(server)? {
            let line = match verdict {
                contract::Verdict::Kept => {
                    passed += 1;
                    continue;
                }
                contract::Verdict::Unsupported(reason) => {
                    skipped += 1;
                    format!("  {name}: unsupported({reason})")
                }
                contract::Verdict::Broken(why) => {
                    failed += 1;
                    format!("  {name}: BROKEN: {why}")
                }
            };
            super::print(&format!("{}{line}\n", server.name));
        }
        super::print(&format!("{}: checked\n", server.name));
    }
    super::print(&format!("{passed} passed, {failed} failed, {skipped} skipped\n"));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(crate::SOME_FAILED) })
}
