//! `apply` makes the list what a file says: what is new starts, what has changed is reloaded.

use super::{client, ecosystem, print, resolve, start};
use crate::cli::Apply;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use supervisor::control::{Request, Size, Table, View};
use supervisor::home::Home;
use supervisor::spec::Spec;

/// What `apply` does about an app.
enum Step {
    Start(Box<Spec>, u32),
    /// With the parts that differ, which may be none, and the number of instances if that changes.
    Change(Box<Spec>, Vec<String>, Option<u32>),
    Keep(String),
    /// It is as the file says, and these instances were given up: itself, if all were.
    Revive(String, Vec<String>),
    /// It is not in the file any more; with the app that takes its place, if one does.
    Delete(String, Option<String>),
    /// It is not in the file any more.
    Leave(String),
}

/// Applies a file, or prints what that would do.
///
/// # Errors
/// Fails if the file is not valid, or with the errors of all apps.
pub fn run(apply: &Apply) -> Result<()> {
    let steps = plan(apply)?;
    if apply.dry_run {
        return steps.iter().try_for_each(|step| print(&format!("{}\n", step.text())));
    }
    client::begin()?;
    // Apps that no other app replaces are deleted last, and only if the rest has succeeded: a file that cannot be applied must take nothing down.
    let (last, first): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(|step| matches!(step, Step::Delete(_, None)));
    let done = client::all(first.into_iter().map(act));
    if let Err(error) = &done
        && !last.is_empty()
    {
        let names: Vec<&str> = last.iter().filter_map(Step::deleted).collect();
        let names = names.join(" ");
        bail!(
            "{error:#}; until the rest of the file is applied, these stay: {names}; if one is in the way, run `supervisor delete {names}`"
        );
    }
    done.and_then(|()| client::all(last.into_iter().map(act)))
}

fn plan(apply: &Apply) -> Result<Vec<Step>> {
    let wanted = specs(&apply.file, apply.env.as_deref(), &apply.only)?;
    let table = client::table()?;
    let there = running(&table)?;
    let file = wanted.first().and_then(|(spec, _)| spec.file.clone());
    // Those of this file that it does not have any more, with what they were.
    let mut gone: Vec<(&String, &Spec)> = there.iter().filter_map(|(name, (old, _))| Some((name, old.as_ref()?))).collect();
    gone.retain(|(name, old)| {
        apply.only.is_empty()
            && is_same(old.file.as_deref(), file.as_deref())
            && !wanted.iter().any(|(spec, _)| spec.name == **name)
    });
    let mut steps = Vec::new();
    for (spec, instances) in &wanted {
        let serves = table.app(&spec.name).is_some_and(|app| !app.instances.iter().all(View::is_errored));
        let replaced = gone.extract_if(.., |(_, old)| apply.prune && replaces(spec, old, !serves));
        steps.extend(replaced.map(|(name, _)| Step::Delete(name.clone(), Some(spec.name.clone()))));
        let Some((old, count)) = there.get(&spec.name) else {
            steps.push(Step::Start(Box::new(spec.clone()), *instances));
            continue;
        };
        let differ =
            old.as_ref().map_or_else(|| vec!["a specification, which was lost".to_owned()], |old| differences(old, spec));
        let to = (count != instances).then_some(*instances);
        let views = table.app(&spec.name).map_or(&[][..], |app| &app.instances);
        // A change starts them again anyway. Others may have been stopped on purpose.
        let is_revived = |one: &&View| differ.is_empty() && one.is_errored();
        let errored: Vec<u32> = views.iter().take(*instances as usize).filter(is_revived).map(|one| one.id).collect();
        let errored =
            if errored.len() == views.len() { vec![spec.name.clone()] } else { errored.iter().map(u32::to_string).collect() };
        let is_same = differ.is_empty() && to.is_none();
        if is_same && errored.is_empty() {
            steps.push(Step::Keep(spec.name.clone()));
        }
        if !is_same {
            steps.push(Step::Change(Box::new(spec.clone()), differ, to));
        }
        if !views.is_empty() && !errored.is_empty() {
            steps.push(Step::Revive(spec.name.clone(), errored));
        }
    }
    steps.extend(
        gone.into_iter().map(|(name, _)| if apply.prune { Step::Delete(name.clone(), None) } else { Step::Leave(name.clone()) }),
    );
    Ok(steps)
}

/// Returns whether an app needs another to be gone: it wants its port or path, or, while it does not serve, it is the same program under a new name,
/// which may bind the address itself.
fn replaces(spec: &Spec, other: &Spec, is_down: bool) -> bool {
    spec.listeners.iter().any(|address| other.listeners.iter().any(|taken| collide(address, taken)))
        || is_down && (&spec.command, &spec.directory) == (&other.command, &other.directory)
}

/// Returns whether only one app can have two addresses: they are the same, or one is the other's port on every interface.
fn collide(one: &str, other: &str) -> bool {
    let is_wide = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port() && one.port() != 0 && (one.ip().is_unspecified() || other.ip().is_unspecified())
    };
    one == other || one.parse().is_ok_and(|one| other.parse().is_ok_and(|other| is_wide(one, other)))
}

/// Returns whether two paths lead to one file, however they were typed.
fn is_same(one: Option<&Path>, other: Option<&Path>) -> bool {
    let place = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    one.is_some() && one.map(place) == other.map(place)
}

/// Reads the specifications in a file, or those with these names. Paths are relative to it.
///
/// # Errors
/// Fails if the file is not valid, or has no app of such a name.
pub fn specs(file: &Path, environment: Option<&str>, only: &[String]) -> Result<Vec<(Spec, u32)>> {
    let declared = ecosystem::read(file, environment)?;
    let path = std::path::absolute(resolve::here()?.join(file))?;
    resolve::go_to(path.parent().context("a file has a folder")?)?;
    let mut lines = BTreeMap::new();
    let specs = declared.into_iter().map(|one| {
        let mut spec = start::spec(&one.start).with_context(|| format!("{}:{}", file.display(), one.line))?;
        spec.declared = one.environment.keys().cloned().collect();
        spec.environment.0.retain(|(name, _)| !name.to_str().is_some_and(|name| one.environment.contains_key(name)));
        spec.environment.0.extend(one.environment.into_iter().map(|(name, value)| (name.into(), value.into())));
        spec.file = Some(path.clone());
        if let Some(other) = lines.insert(spec.name.clone(), one.line) {
            let (first, second) = (other.min(one.line), other.max(one.line));
            bail!("{}:{second}: {} is the name of the app in line {first} too: set name", file.display(), spec.name);
        }
        Ok((spec, one.start.instances.unwrap_or(1)))
    });
    let mut specs = specs.collect::<Result<Vec<_>>>()?;
    if let Some(name) = only.iter().find(|name| !specs.iter().any(|(spec, _)| spec.name == **name)) {
        bail!("{} has no app {name}", file.display());
    }
    specs.retain(|(spec, _)| only.is_empty() || only.contains(&spec.name));
    Ok(specs)
}

/// Returns the specification of each app in the list, if it can be read, and the number of its instances.
fn running(table: &Table) -> Result<BTreeMap<String, (Option<Spec>, u32)>> {
    let home = Home::open()?;
    let read = |name: &str| fs::read(home.spec(name)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    Ok(table.apps.iter().map(|app| (app.name.clone(), (read(&app.name), app.instances.len() as u32))).collect())
}

/// Returns the parts in which two specifications differ. The environment counts as far as the file sets it: the rest is that of whoever typed the command.
pub fn differences(old: &Spec, new: &Spec) -> Vec<String> {
    let mut parts: Vec<String> = [
        ("command", old.command != new.command),
        ("directory", old.directory != new.directory),
        ("listeners", !same_listeners(old, new)),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(part, _)| part.to_owned())
    .collect();
    let of = |spec: &Spec, name: &str| spec.environment.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    let declared = old.declared.union(&new.declared);
    parts.extend(declared.filter(|name| of(old, name) != of(new, name)).cloned());
    let options = |spec: &Spec| match serde_json::to_value(&spec.options) {
        Ok(Value::Object(options)) => options,
        _ => serde_json::Map::default(),
    };
    let (old, new) = (options(old), options(new));
    parts.extend(
        new.iter()
            .filter(|(name, value)| old.get(*name) != Some(value))
            .map(|(name, _)| name.trim_end_matches("_ms").replace('_', "-")),
    );
    parts
}

/// Earlier versions kept with the listeners of a Node program those that it had asked for.
fn same_listeners(old: &Spec, new: &Spec) -> bool {
    if new.is_node { new.listeners.iter().all(|address| old.listeners.contains(address)) } else { old.listeners == new.listeners }
}

impl Step {
    /// The app that it deletes, if it does.
    fn deleted(&self) -> Option<&str> {
        match self {
            Step::Delete(name, _) => Some(name),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Step::Start(spec, 1) => format!("+ {}: starts", spec.name),
            Step::Start(spec, instances) => format!("+ {}: starts, {instances} instances", spec.name),
            Step::Change(spec, differ, to) => {
                let mut parts = Vec::new();
                parts.extend((!differ.is_empty()).then(|| format!("is reloaded: {} changed", differ.join(", "))));
                parts.extend(to.map(|to| format!("gets {to} instances")));
                format!("~ {}: {}", spec.name, parts.join("; "))
            }
            Step::Keep(name) => format!("= {name}"),
            Step::Revive(name, _) => format!("~ {name}: is errored, and starts again"),
            Step::Delete(name, None) => format!("- {name}: is deleted"),
            Step::Delete(name, Some(next)) => format!("- {name}: is deleted, and {next} takes its place"),
            Step::Leave(name) => format!("- {name}: is not in the file, and stays: --prune deletes it"),
        }
    }
}

fn act(step: Step) -> Result<()> {
    match step {
        Step::Start(spec, instances) => client::ask(&Request::Start { spec, instances }),
        Step::Change(spec, differ, to) => {
            let name = spec.name.clone();
            if !differ.is_empty() {
                client::ask(&Request::Change { spec })?;
            }
            to.map_or(Ok(()), |to| client::ask(&Request::Scale(name, Size::To(to))))
        }
        Step::Delete(name, _) => client::ask(&Request::Delete(name)),
        Step::Revive(_, targets) => client::ask_each(&targets, Request::Resume),
        Step::Keep(_) => Ok(()),
        Step::Leave(_) => print(&format!("{}\n", step.text())),
    }
}
