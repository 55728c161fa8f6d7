//! `stallbench soak`: a bad day for each server, and how it took it.

use super::{exit_code, splice};
use crate::catalog;
use crate::cli::Soak;
use crate::console::interrupt;
use crate::console::output::print;
use crate::console::progress::Progress;
use crate::contract::{self, Soaked};
use crate::metrics::Unit;
use crate::process::deploy::package;
use crate::report::{Absence, Cell, Column, Line, Table, Terminal};
use anyhow::Result;
use std::process::ExitCode;
use std::time::Duration;

/// The name in a server's `unsupported`, and of the table.
const SOAK: &str = "soak";

/// Soaks the servers that the filters match; the exit code says whether all of them took it.
///
/// # Errors
/// What keeps a server from being built; a page that cannot be written; an interrupt.
pub fn run(arguments: &Soak) -> Result<ExitCode> {
    let mut servers = catalog::select(catalog::load()?, &arguments.filters)?;
    if arguments.filters.is_empty() {
        servers.retain(|server| server.only_if_asked.is_none());
    }
    let building = Progress::new(package::programs(&servers));
    package::build(&servers, &building)?;
    drop(building);
    let length = Duration::from_secs(arguments.seconds.into());
    let progress = Progress::new(servers.len() as u64);
    let (mut lines, mut faults) = (Vec::new(), 0);
    for server in &servers {
        progress.say(&server.name);
        let absent = server.missing().map(|_| Absence::Unavailable);
        let absent = absent.or_else(|| server.unsupported.get(SOAK).cloned().map(Absence::Unsupported));
        let (fault, cells) = match absent {
            Some(absence) => (None, vec![Cell::Absent(absence)]),
            None => {
                let soaked = contract::soak(server, length);
                interrupt::check()?;
                match soaked {
                    Ok(soaked) => (soaked.fault().or_else(|| soaked.was_late()), cells(&soaked)),
                    Err(error) => (Some(format!("{error:#}")), Vec::new()),
                }
            }
        };
        faults += usize::from(fault.is_some());
        lines.push(line(&server.name, cells, fault));
        progress.step(1);
    }
    drop(progress);
    let table = table(lines, arguments.seconds);
    match &arguments.splice {
        Some(page) => splice::one(page, SOAK, &table.to_markdown(false))?,
        None => print(&Terminal::of_stdout(arguments.wide, false).show(&table))?,
    }
    Ok(exit_code(faults == 0))
}

fn cells(soaked: &Soaked) -> Vec<Cell> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    vec![
        Cell::number(soaked.answered as f64, Unit::Count),
        Cell::number(soaked.closed as f64, Unit::Count),
        Cell::number(soaked.wrong as f64, Unit::Count),
        Cell::number(soaked.recovery.as_secs_f64() * 1e3, Unit::Ms),
        Cell::number(mib(soaked.memory.0), Unit::Mib),
        Cell::number(mib(soaked.memory.1), Unit::Mib),
        Cell::number(soaked.unread as f64 / 1024.0, Unit::Kib),
        Cell::words(format!("{} → {}", soaked.descriptors.0, soaked.descriptors.1)),
        Cell::number(soaked.killed as f64, Unit::Count),
    ]
}

fn line(name: &str, mut cells: Vec<Cell>, fault: Option<String>) -> Line {
    cells.insert(0, Cell::words(name));
    cells.resize(10, Cell::Absent(Absence::Nothing));
    cells.push(Cell::words(fault.unwrap_or_default()));
    Line { group: None, cells }
}

fn table(lines: Vec<Line>, seconds: u32) -> Table {
    let columns = vec![
        Column::words("server"),
        Column::number("answered"),
        Column::number("closed"),
        Column::number("wrong"),
        Column::number("/ after ms"),
        Column::number("MiB after ⅓").wide(),
        Column::number("MiB after"),
        Column::number("unread KiB").wide(),
        Column::words("descriptors"),
        Column::number("killed").wide(),
        Column::words("fault"),
    ];
    let title = format!("A bad day: {seconds} s of slow, greedy and rude clients, 256 descriptors");
    let notes = vec![
        "closed: connections that ended without an answer, since the server had no descriptor left or its worker was killed".into(),
        "/ after: from the end of the load to the first answer; then descriptors and resident memory, compared with the first third of the load".into(),
        "unread: memory that the server holds for each client which asks without end and never reads".into(),
    ];
    Table { name: SOAK, title, columns, lines, notes, ..Table::default() }
}
