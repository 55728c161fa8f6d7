//! Choosing servers by name, runtime, pattern or tag, and the variants of a choice.

use super::{AGAIN, Program, SYSTEM, Server};
use crate::console::hint::nearest;
use crate::console::usage::refuse;
use anyhow::{Context, Result};
use regex_lite::Regex;

/// The servers that at least one filter matches: a server's name, a runtime's name, or a regular expression over names. No filter takes
/// all.
///
/// # Errors
/// A filter that matches nothing, with the nearest known names.
pub fn select(servers: Vec<Server>, filters: &[String]) -> Result<Vec<Server>> {
    if filters.is_empty() {
        return Ok(servers);
    }
    let mut is_wanted = vec![false; servers.len()];
    for filter in filters {
        if filter.is_empty() {
            refuse!("an empty filter matches nothing in particular; leave it out to take all servers");
        }
        // A name is that server, a runtime's name all of its servers, and anything else a pattern.
        let is_server = servers.iter().any(|server| server.name == *filter);
        let is_runtime = servers.iter().any(|server| server.runtime == *filter);
        let pattern = Regex::new(filter).with_context(|| format!("'{filter}' is neither a server nor a regular expression"))?;
        let mut found = false;
        for (server, is_wanted) in servers.iter().zip(&mut is_wanted) {
            let matches = match (is_server, is_runtime) {
                (true, _) => server.name == *filter,
                (_, true) => server.runtime == *filter,
                _ => pattern.is_match(&server.name),
            };
            *is_wanted |= matches;
            found |= matches;
        }
        if !found {
            let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            refuse!("no server matches '{filter}'; {}", nearest(filter, &names));
        }
    }
    Ok(servers.into_iter().zip(is_wanted).filter_map(|(server, is_wanted)| is_wanted.then_some(server)).collect())
}

/// The one server that a user means: by name, or a runtime's first.
///
/// # Errors
/// An unknown name, with the nearest known ones.
pub fn find(servers: &[Server], name: &str) -> Result<Server> {
    let by_name = servers.iter().find(|server| server.name == name);
    if let Some(server) = by_name.or_else(|| servers.iter().find(|server| server.runtime == name)) {
        return Ok(server.clone());
    }
    let names: Vec<&str> = servers.iter().flat_map(|server| [server.name.as_str(), server.runtime.as_str()]).collect();
    refuse!("no server or runtime is named '{name}'; {}", nearest(name, &names))
}

/// The servers of a named selection.
pub fn tagged(servers: &[Server], tag: &str) -> Vec<Server> {
    servers.iter().filter(|server| server.has_tag(tag)).cloned().collect()
}

/// The allocators that a round compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Allocator {
    /// The one that every server has unless told otherwise
    Mimalloc,
    /// The operating system's
    System,
    /// One row for each
    Both,
}

/// Each server with each allocator.
pub fn with_allocators(servers: Vec<Server>, allocator: Allocator) -> Vec<Server> {
    // Only what is built from this workspace has a choice.
    let system = |server: &Server| {
        let mut server = server.clone();
        let Program::Package(build) = &mut server.program else { return None };
        build.features.push("system-allocator".into());
        server.name.push_str(SYSTEM);
        Some(server)
    };
    match allocator {
        Allocator::Mimalloc => servers,
        Allocator::System => servers.iter().filter_map(system).collect(),
        Allocator::Both => servers.iter().flat_map(|server| [Some(server.clone()), system(server)]).flatten().collect(),
    }
}

/// The rows of a null round: each server under two names.
pub fn with_second_names(servers: &[Server]) -> Vec<Server> {
    let again = |server: &Server| Server { name: format!("{}{AGAIN}", server.name), ..server.clone() };
    servers.iter().flat_map(|server| [server.clone(), again(server)]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;

    #[test]
    fn filters_take_names_and_patterns_and_refuse_what_matches_nothing() {
        let names = |filters: &[&str]| -> Result<Vec<String>> {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            Ok(select(load()?, &filters)?.into_iter().map(|server| server.name).collect())
        };
        assert_eq!(names(&["smol-forked"]).unwrap(), ["smol-forked"]);
        assert_eq!(names(&["std"]).unwrap(), ["std-thread-per-connection", "std-thread-pool", "std-event-loop"], "not async-std");
        assert_eq!(
            names(&["^smol-.*thread$", "tokio-forked"]).unwrap(),
            ["smol-current-thread", "smol-multi-thread", "tokio-forked"]
        );
        let error = names(&["smoll-forked"]).unwrap_err().to_string();
        assert!(error.contains("did you mean smol-forked"), "{error}");
        assert!(names(&["("]).is_err());
        assert!(names(&[""]).is_err());
    }

    #[test]
    fn a_runtime_stands_for_its_first_server() {
        assert_eq!(find(&load().unwrap(), "smol").unwrap().name, "smol-current-thread");
        assert!(find(&load().unwrap(), "smal").unwrap_err().to_string().contains("did you mean smol"));
    }
}
