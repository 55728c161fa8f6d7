//! `stallbench servers`: all servers, and which are available here.

use crate::catalog::{self, Blocking, Server};
use crate::console::output::print;
use crate::host::placement::{Placement, default_threads};
use crate::process::deploy::package::{is_built, receipt};
use crate::report::{Cell, Column, Line, Table, Terminal};
use anyhow::Result;
use common::Receipt;
use serde::Serialize;
use std::process::ExitCode;

/// The longest reason that is shown whole.
const STATE: usize = 34;

/// The trap of the default backend.
const TRAP: &str = "launches: without --state they are in the memory of the process that saved them, so with several processes one does not see what another saved; see docs/state.md";

#[derive(Serialize)]
struct Listed {
    name: String,
    runtime: String,
    model: String,
    http: String,
    blocking: Blocking,
    runs_on: String,
    is_peer: bool,
    tags: Vec<String>,
    /// Built and measured only where it is asked for.
    is_optional: bool,
    /// Where launches are by default.
    launches: &'static str,
    about: String,
    /// What is known of a library that nobody seems to maintain, with a date.
    unmaintained: Option<String>,
    /// The reason why it can never run here, such as a missing program.
    missing: Option<String>,
    /// Ready to be measured; otherwise `reason` says why not.
    available: bool,
    reason: Option<String>,
    receipt: Option<Receipt>,
}

/// Prints the list.
///
/// # Errors
/// A manifest that cannot be read.
pub fn run(json: bool, wide: bool) -> Result<ExitCode> {
    let listed: Vec<Listed> = catalog::load()?.iter().map(list).collect();
    if json {
        print(&(serde_json::to_string_pretty(&listed)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let state = |one: &Listed| if one.available { "built".into() } else { short(one.reason.as_deref().unwrap_or_default()) };
    let line = |one: &Listed| Line {
        group: None,
        cells: [
            one.name.clone(),
            one.blocking.to_string(),
            state(one),
            one.unmaintained.clone().unwrap_or_default(),
            one.launches.into(),
            one.http.clone(),
            one.about.clone(),
        ]
        .map(Cell::Words)
        .to_vec(),
    };
    let columns = vec![
        Column::words("server"),
        Column::words("blocking"),
        Column::words("state"),
        Column::words("maintenance"),
        Column::words("launches").wide(),
        Column::words("http").wide(),
        Column::words("about").wide(),
    ];
    let lines = listed.iter().map(line).collect();
    let notes = vec![TRAP.into()];
    let table = Table { name: "servers", title: "Servers".into(), columns, lines, notes, ..Table::default() };
    print(&Terminal::of_stdout(wide, false).show(&table))?;
    Ok(ExitCode::SUCCESS)
}

fn list(server: &Server) -> Listed {
    let asked = match (server.missing(), is_built(server)) {
        (Some(missing), _) => Err(missing),
        (_, Err(why)) => Err(why),
        _ => receipt(server, default_threads(Placement::Shared), &[]).map_err(|error| first_line(&format!("{error:#}"))),
    };
    Listed {
        name: server.name.clone(),
        runtime: server.runtime.clone(),
        model: server.model.clone(),
        http: server.http.clone(),
        blocking: server.blocking,
        runs_on: server.runs_on.clone(),
        is_peer: server.is_peer,
        tags: server.tags.clone(),
        is_optional: server.only_if_asked.is_some(),
        launches: launches(server),
        about: server.about.clone(),
        unmaintained: server.unmaintained.clone(),
        missing: server.missing(),
        available: asked.is_ok(),
        reason: asked.as_ref().err().cloned(),
        receipt: asked.ok(),
    }
}

/// Where launches are unless `--state` names a database.
fn launches(server: &Server) -> &'static str {
    if server.unsupported.contains_key("launches") {
        "none"
    } else if server.args.iter().any(|argument| argument == "--processes") {
        "a list in each process"
    } else {
        "one list in memory"
    }
}

/// As much of a reason as a column has room for; JSON has all of it.
fn short(reason: &str) -> String {
    if reason.chars().count() <= STATE { reason.to_owned() } else { reason.chars().take(STATE - 1).chain(['…']).collect() }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}
