//! A `supervisor.toml`: the command lines of `start` for several apps, as data.
//!
//! ```toml
//! [[app]]
//! start = "tokio-current-thread"   # the server or command, as on the command line
//! instances = "max"                # every option of `start` is a key
//! listen = ["127.0.0.1:8080"]
//! arguments = ["--drain", "5s"]    # the arguments after `--`
//! ```

use crate::cli::Start;
use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use toml::{Spanned, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    app: Vec<BTreeMap<String, Spanned<Value>>>,
}

/// The arguments after `supervisor start`.
#[derive(Parser)]
#[command(name = "start")]
struct Line {
    #[command(flatten)]
    start: Start,
}

/// Reads the apps of a file.
///
/// # Errors
/// Fails on the first invalid key, with its line.
pub fn read(path: &Path) -> Result<Vec<Start>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line(&text, span.start));
        anyhow::anyhow!("{}:{line}: {}", path.display(), error.message())
    })?;
    if file.app.is_empty() {
        bail!("{} has no [[app]]: add one with start = \"...\"", path.display());
    }
    file.app.iter().map(|app| start(app, path, &text)).collect()
}

fn start(app: &BTreeMap<String, Spanned<Value>>, path: &Path, text: &str) -> Result<Start> {
    let Some(what) = app.get("start").and_then(|value| value.get_ref().as_str()) else {
        bail!("{}: an [[app]] has no start key: add start = \"...\"", path.display());
    };
    let mut words = vec!["start".to_owned(), what.to_owned()];
    let mut last = Vec::new();
    for (key, value) in app.iter().filter(|(key, _)| key.as_str() != "start") {
        let own = option(key, value.get_ref());
        // Parses each key alone first, so that an error has a line.
        let alone = Line::try_parse_from(words[..2].iter().chain(&own));
        if let Err(error) = alone {
            let why = error.to_string();
            let why = why.lines().next().unwrap_or_default().trim_start_matches("error: ");
            bail!("{}:{}: {key}: {why}", path.display(), line(text, value.span().start));
        }
        match value.get_ref() {
            // A valid option that is not set.
            Value::Boolean(false) => {}
            _ if key == "arguments" => last = own,
            _ => words.extend(own),
        }
    }
    Ok(Line::try_parse_from(words.iter().chain(&last)).with_context(|| path.display().to_string())?.start)
}

/// Converts a key to command-line arguments.
fn option(key: &str, value: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let name = format!("--{}", key.replace('_', "-"));
    match value {
        Value::Array(values) if key == "arguments" => std::iter::once("--".to_owned()).chain(values.iter().map(word)).collect(),
        Value::Array(values) => values.iter().map(|value| format!("{name}={}", word(value))).collect(),
        Value::Boolean(_) => vec![name],
        value => vec![format!("{name}={}", word(value))],
    }
}

fn line(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Start>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.toml");
        fs::write(&path, text).unwrap();
        super::read(&path)
    }

    fn wrong(text: &str) -> String {
        let error = read(text).unwrap_err().to_string();
        error.split_once("supervisor.toml").unwrap().1.to_owned()
    }

    #[test]
    fn an_app_is_parsed_like_the_command_line() {
        let apps = read(
            "[[app]]\nstart = \"smol\"\ninstances = 3\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nlog_max_size = \"1M\"\n\
             merge_logs = true\narguments = [\"--drain\", \"5s\"]\n[[app]]\nstart = \"sleep 5\"\n",
        )
        .unwrap();
        assert_eq!((apps[0].what.as_str(), apps[0].instances, apps[0].listen.len()), ("smol", Some(3), 2));
        assert_eq!((apps[0].options.log_max_size, apps[0].options.merge_logs), (1 << 20, true));
        assert_eq!(apps[0].arguments, ["--drain", "5s"]);
        assert_eq!(apps[1].what, "sleep 5");
    }

    #[test]
    fn an_error_names_its_line_and_key() {
        assert!(wrong("[[app]]\nstart = \"x\"\n\ninstances = 0\n").starts_with(":4: instances: invalid value '0'"));
        assert!(wrong("[[app]]\nstart = \"x\"\ninstancse = 2\n").starts_with(":3: instancse: unexpected argument '--instancse'"));
        assert!(wrong("[[app]]\nstart = \n").starts_with(":2: "));
        assert!(wrong("[[apps]]\n").contains("unknown field `apps`"));
        assert!(wrong("app = []\n").contains("no [[app]]"));
        assert!(wrong("[[app]]\nname = \"x\"\n").contains("has no start key"));
    }
}
