//! `stallbench servers`: what there is, and what is available here.

use crate::catalog::{self, Blocking, Server};
use crate::host::placement::default_threads;
use crate::process::builder::{binary, receipt};
use crate::report::Table;
use anyhow::Result;
use common::Receipt;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Line {
    name: String,
    runtime: String,
    model: String,
    http: String,
    blocking: Blocking,
    is_peer: bool,
    about: String,
    /// Ready to be measured; otherwise `reason` says why not.
    available: bool,
    reason: Option<String>,
    receipt: Option<Receipt>,
}

/// Prints the list.
pub fn run(json: bool) -> Result<ExitCode> {
    let lines: Vec<Line> = catalog::load()?.iter().map(line).collect();
    if json {
        super::print(&(serde_json::to_string_pretty(&lines)? + "\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let row = |line: &Line| {
        let state = if line.available { "built".into() } else { line.reason.clone().unwrap_or_default() };
        vec![line.name.clone(), line.http.clone(), line.blocking.to_string(), state, line.about.clone()]
    };
    let columns = ["server", "http", "blocking", "state", "about"].map(String::from).to_vec();
    let table = Table { title: "Servers".into(), columns, rows: lines.iter().map(row).collect(), words: 4, ..Table::default() };
    super::print(&table.to_terminal());
    Ok(ExitCode::SUCCESS)
}

fn line(server: &Server) -> Line {
    let is_built = binary(&server.program).exists() || server.missing().is_some();
    let asked = if is_built { receipt(server, default_threads(), &[]) } else { Err(anyhow::anyhow!("not built")) };
    Line {
        name: server.name.clone(),
        runtime: server.runtime.clone(),
        model: server.model.clone(),
        http: server.http.clone(),
        blocking: server.blocking,
        is_peer: server.is_peer,
        about: server.about.clone(),
        available: asked.is_ok(),
        reason: asked.as_ref().err().map(|error| format!("{error:#}")),
        receipt: asked.ok(),
    }
}
