//! The rows of a table that a user wants to see: `--filter tokio`, `--filter model=forked`, `--filter tag=readme`, `--filter 'metric=p99.*sleep'`.

use super::Row;
use crate::console::usage::refuse;
use anyhow::Result;
use regex_lite::Regex;
use std::fmt;
use std::str::FromStr;

/// The fields of a server that a filter may name, and `metric`.
const FIELDS: [&str; 7] = ["server", "runtime", "model", "http", "kind", "tag", "metric"];

/// A field, and a regular expression over it.
#[derive(Debug, Clone)]
pub struct Filter {
    field: &'static str,
    pattern: Regex,
}

impl Filter {
    /// Whether it narrows metrics rather than servers.
    pub fn is_about_metrics(&self) -> bool {
        self.field == "metric"
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field, self.pattern)
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, pattern) = match text.split_once('=') {
            Some((field, pattern)) => (field, pattern),
            None => ("server", text),
        };
        let known = FIELDS.into_iter().find(|known| *known == field);
        let field = known.ok_or_else(|| format!("there is no field '{field}'; there are: {}", FIELDS.join(", ")))?;
        let pattern = Regex::new(pattern).map_err(|error| format!("'{pattern}' is not a regular expression: {error}"))?;
        Ok(Filter { field, pattern })
    }
}

/// Whether all filters over fields of servers let this one through.
pub fn takes_server(filters: &[Filter], server: &Row) -> bool {
    filters.iter().all(|filter| {
        let value = match filter.field {
            "server" => &server.name,
            "runtime" => &server.runtime,
            "model" => &server.model,
            "http" => &server.http,
            "tag" => return server.tags.iter().any(|tag| filter.pattern.is_match(tag)),
            "kind" => return filter.pattern.is_match(if server.is_peer { "peer" } else { "own" }),
            _ => return true,
        };
        filter.pattern.is_match(value)
    })
}

/// Whether all filters over metrics let this one through.
pub fn takes_metric(filters: &[Filter], metric: &str) -> bool {
    filters.iter().all(|filter| filter.field != "metric" || filter.pattern.is_match(metric))
}

/// Drops the servers of a round that the filters leave out.
///
/// # Errors
/// None is left.
pub fn narrow(filters: &[Filter], servers: &mut Vec<Row>) -> Result<()> {
    let names: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    servers.retain(|server| takes_server(filters, server));
    if servers.is_empty() {
        refuse!("the filters leave no server; there are: {}", names.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(words: &[&str]) -> Vec<Filter> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn servers() -> Vec<Row> {
        let entry = |name: &str, model: &str, is_peer| Row {
            name: name.into(),
            runtime: name.split('-').next().unwrap_or_default().into(),
            model: model.into(),
            is_peer,
            ..Row::default()
        };
        vec![entry("tokio-forked", "forked", false), entry("smol-forked", "forked", false), entry("hyper-x", "x", true)]
    }

    #[test]
    fn names_and_fields_narrow_together() {
        for (words, left) in [(&["tokio"][..], 1), (&["model=forked"], 2), (&["model=forked", "smol"], 1), (&["kind=peer"], 1)] {
            let mut servers = servers();
            narrow(&filters(words), &mut servers).unwrap();
            assert_eq!(servers.len(), left, "{words:?}");
        }
        assert!(narrow(&filters(&["express"]), &mut servers()).unwrap_err().to_string().contains("tokio-forked"));
    }

    #[test]
    fn metrics_are_another_field() {
        let only = filters(&["metric=p99.*sleep"]);
        assert!(takes_metric(&only, "p99_ms[sleep,4]") && !takes_metric(&only, "cpu_us[kept-alive]"));
        assert!(takes_server(&only, &servers()[0]));
    }

    #[test]
    fn unknown_fields_and_broken_patterns_are_named() {
        assert!("colour=red".parse::<Filter>().unwrap_err().contains("there is no field 'colour'"));
        assert!("(".parse::<Filter>().unwrap_err().contains("'('"));
    }
}
