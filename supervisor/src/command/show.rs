//! `show` prints all details of an instance.

use super::list::{Measured, measure, plain, size, uptime};
use super::{client, print};
use crate::cli::Show;
use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, Table as Grid};
use humantime::{format_duration, format_rfc3339_seconds};
use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

/// Prints the details.
///
/// # Errors
/// Fails if there is no such instance.
pub fn run(show: &Show) -> Result<()> {
    let mut table = client::table()?;
    let is_meant = |name: &str, id: u32| show.target == "all" || name == show.target || id.to_string() == show.target;
    let names: BTreeSet<String> = table.instances.iter().map(|one| one.name.clone()).collect();
    if names.is_empty() {
        bail!("no apps yet: run `supervisor start`");
    }
    table.instances.retain(|one| is_meant(&one.name, one.id));
    if table.instances.is_empty() {
        bail!("there is no app or id '{}'; the apps are: {}", show.target, names.into_iter().collect::<Vec<_>>().join(", "));
    }
    let measured = measure(table);
    if show.json {
        print(&(serde_json::to_string_pretty(&measured)? + "\n"))?;
        return Ok(());
    }
    for one in &measured {
        print(&format!("{}\n\n", grid(one)))?;
    }
    Ok(())
}

fn grid(one: &Measured) -> Grid {
    let view = &one.view;
    let mut grid = plain();
    grid.set_content_arrangement(ContentArrangement::Dynamic);
    grid.set_header([view.id.to_string(), view.name.clone()]);
    let mut row = |name: &str, value: Option<String>| {
        grid.add_row([name, value.as_deref().unwrap_or("–")]);
    };
    let options = &view.options;
    row("status", Some(view.status.clone()));
    row("mode", Some(mode(one)));
    row("pid", view.pid.map(|pid| pid.to_string()));
    row("uptime", view.uptime_ms.map(|ms| uptime(Duration::from_millis(ms))));
    row("cpu", one.cpu.map(|cpu| format!("{:.0} %", cpu * 100.0)));
    row("memory", one.memory.map(size));
    row("command", Some(view.command.join(" ")));
    row("directory", Some(view.directory.display().to_string()));
    row("listeners", (!view.listeners.is_empty()).then(|| view.listeners.join(", ")));
    row("generation", Some(view.generation.to_string()));
    row("restarts", Some(view.restarts.to_string()));
    row("last exit", view.last_end.clone());
    row("reports", view.says.clone());
    row("stdout", Some(view.logs[0].display().to_string()));
    row("stderr", Some(view.logs[1].display().to_string()));
    row("log error", view.log_trouble.clone());
    row("created", Some(format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(view.created_s)).to_string()));
    row(
        "limits",
        Some(format!(
            "ready within {}, stopped within {}, given up after more than {} exits in a row, each within {}",
            format_duration(options.listen_timeout),
            format_duration(options.kill_timeout),
            options.max_restarts,
            format_duration(options.min_uptime),
        )),
    );
    row("logs", Some(format!("rotated at {}, {} kept", size(options.log_max_size), options.log_keep)));
    row("memory limit", options.max_memory_restart.map(size));
    grid
}

fn mode(one: &Measured) -> String {
    let what = match one.view.mode.as_str() {
        "cluster" => "instances share listeners, and a reload drops no request",
        _ => "no shared listener (--listen): a reload stops the old process before the new one starts",
    };
    format!("{}: {what}", one.view.mode)
}
