//! `show` prints all details of an instance.

use super::list::{Measured, look, measure, plain, size, uptime};
use super::{client, print};
use crate::cli::{Env, Show};
use anyhow::{Context, Result, bail};
use comfy_table::{ContentArrangement, Table as Grid};
use humantime::{format_duration, format_rfc3339_seconds};
use std::fs;
use std::time::{Duration, UNIX_EPOCH};
use supervisor::control::Table;
use supervisor::home::Home;
use supervisor::selector::Selector;
use supervisor::spec::{Health, Options, Spec};

/// Prints the details.
///
/// # Errors
/// Fails if there is no such instance.
pub fn run(show: &Show) -> Result<()> {
    let (table, groups) = look()?;
    let measured = measure(meant(table, &show.target)?, groups)?;
    if show.json {
        print(&(serde_json::to_string_pretty(&measured)? + "\n"))?;
        return Ok(());
    }
    for one in &measured {
        print(&format!("{}\n\n", grid(one)))?;
    }
    Ok(())
}

/// Returns the instances of a target.
fn meant(mut table: Table, target: &str) -> Result<Table> {
    let selector = Selector::new(target);
    let names: Vec<String> = table.names().map(str::to_owned).collect();
    for app in &mut table.apps {
        let all = std::mem::take(&mut app.instances);
        app.instances = all.into_iter().filter(|one| app.is_meant(one, &selector)).collect();
    }
    table.apps.retain(|app| !app.instances.is_empty());
    if table.apps.is_empty() {
        bail!(selector.nothing(names.iter().map(String::as_str)));
    }
    Ok(table)
}

/// Prints the process ids of a target, one per line.
///
/// # Errors
/// Fails if there is no such instance.
pub fn pids(target: &str) -> Result<()> {
    let table = meant(client::table()?, target)?;
    table.all().filter_map(|(_, one)| one.pid).try_for_each(|pid| print(&format!("{pid}\n")))
}

/// Prints the environment of a target, which its processes are started with.
///
/// # Errors
/// Fails if there is no such instance, or its specification cannot be read.
pub fn environment(env: &Env) -> Result<()> {
    let table = meant(client::table()?, &env.target)?;
    for name in table.names() {
        let path = Home::open()?.spec(name);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let spec: Spec = serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
        for (variable, value) in spec.environment.0 {
            let (variable, value) = (variable.to_string_lossy(), value.to_string_lossy());
            let shown = if !env.show && is_secret(&variable, &value) { "***" } else { &value };
            print(&format!("{variable}={shown}\n"))?;
        }
    }
    Ok(())
}

/// Returns whether a variable looks like a secret: by its name, or since its value is an address with a password.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = ["SECRET", "TOKEN", "PASSW", "PASSPHRASE", "CREDENTIAL", "PRIVATE", "API_KEY", "APIKEY", "ACCESS_KEY", "AUTH"];
    let has_password = value.split_once("://").is_some_and(|(_, rest)| {
        let host = rest.split('/').next().unwrap_or_default();
        host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    has_password || words.iter().any(|word| name.contains(word)) || name.ends_with("_KEY")
}

fn grid(one: &Measured) -> Grid {
    let (app, view) = (&one.app, &one.view);
    let mut grid = plain();
    grid.set_content_arrangement(ContentArrangement::Dynamic);
    grid.set_header([view.id.to_string(), app.name.clone()]);
    let mut row = |name: &str, value: Option<String>| {
        grid.add_row([name, value.as_deref().unwrap_or("–")]);
    };
    let options = &app.options;
    row("status", Some(view.status.clone()));
    if let Some(why) = &app.damage {
        row(
            "damage",
            Some(format!(
                "its specification is lost ({why}): `supervisor resurrect` starts it if it was saved, and `supervisor apply` if it is in a file"
            )),
        );
    }
    row("mode", Some(mode(one)));
    row("pid", view.pid.map(|pid| pid.to_string()));
    row("uptime", view.uptime_ms.map(|ms| uptime(Duration::from_millis(ms))));
    row("cpu", one.cpu.map(|cpu| format!("{:.0} %", cpu * 100.0)));
    row("memory", one.memory.map(size));
    row("command", Some(app.command.join(" ")));
    row("directory", Some(app.directory.display().to_string()));
    row("listeners", (!app.listeners.is_empty()).then(|| app.listeners.join(", ")));
    row("generation", Some(view.generation.to_string()));
    row("restarts", Some(view.restarts.to_string()));
    row("last exit", view.last_end.clone());
    row("reports", view.says.clone());
    row("health", health(one));
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
    row("memory limit", options.max_memory_restart.map(|most| format!("replaced above {}", size(most))));
    row("cgroup limits", cgroup(options));
    grid
}

/// Returns the limits that the kernel keeps an instance within.
fn cgroup(options: &Options) -> Option<String> {
    let memory = options.memory_max.map(size);
    let cpu = options.cpu_max.map(|percent| format!("{percent} % of a processor"));
    let all: Vec<String> = memory.into_iter().chain(cpu).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Returns how the health of an instance is checked, and with what result.
fn health(one: &Measured) -> Option<String> {
    let view = &one.view;
    let Health { http, exec, interval, retries, stall, .. } = &one.app.options.health;
    let what = http.as_ref().map(ToString::to_string).or_else(|| exec.clone());
    let failure = view.last_failure.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let checked = what.map(|what| {
        format!("{what} each {}: {} of {retries} failed{failure}", format_duration(*interval), view.failed_checks.min(*retries))
    });
    let life = if view.sends_life { "" } else { ", but it has not sent WATCHDOG=1 yet" };
    let stalls = (!stall.is_zero()).then(|| format!("a sign of life each {}{life}", format_duration(*stall)));
    let all: Vec<String> = checked.into_iter().chain(stalls).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn mode(one: &Measured) -> String {
    let what = match one.app.mode.as_str() {
        "cluster" => "instances share listeners, and a reload drops no request",
        _ => "no shared listener (--listen): a reload stops the old process before the new one starts",
    };
    format!("{}: {what}", one.app.mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name_and_by_value() {
        for (name, value) in
            [("DB_PASSWORD", "x"), ("GITHUB_TOKEN", "x"), ("STRIPE_KEY", "x"), ("URL", "postgres://me:pw@host/db")]
        {
            assert!(is_secret(name, value), "{name}");
        }
        for (name, value) in [("PATH", "/bin"), ("URL", "http://host:80/a@b"), ("KEYBOARD", "us"), ("URL", "ssh://me@host")] {
            assert!(!is_secret(name, value), "{name}={value}");
        }
    }
}
