//! `stallbench check`: the contract, line by line, on real processes.

use crate::builder;
use crate::catalog;
use crate::check;
use crate::progress::Progress;
use anyhow::Result;
use std::process::ExitCode;

/// Checks the servers that the filters match; the exit code says whether all of them keep the contract.
pub fn run(filters: &[String]) -> Result<ExitCode> {
    let servers = catalog::select(catalog::load()?, filters)?;
    let progress = Progress::new(servers.len() as u64);
    builder::build(&servers, &progress)?;
    drop(progress);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for server in &servers {
        for (name, verdict) in check::all(server)? {
            let line = match verdict {
                check::Verdict::Kept => {
                    passed += 1;
                    continue;
                }
                check::Verdict::Unsupported(reason) => {
                    skipped += 1;
                    format!("  {name}: unsupported({reason})")
                }
                check::Verdict::Broken(why) => {
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
