//! A `supervisor.toml`: the command lines of `start` for several apps, as data.
//!
//! ```toml
//! [[app]]
//! start = "server.js"              # the command, as on the command line; paths are relative to this file
//! instances = "max"                # every option of `start` is a key
//! listen = ["127.0.0.1:8080"]
//! arguments = ["--drain", "5s"]    # the arguments after `--`
//! depends-on = ["db"]              # these apps start first
//! env-file = ".env"
//!
//! [app.env]
//! PORT = 8080
//!
//! [app.env.production]             # beside or in place of those above, with `--env production`
//! NODE_ENV = "production"
//! ```

use super::dotenv;
use crate::cli::Start;
use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
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

/// An app of a file.
#[derive(Debug)]
pub struct Declared {
    pub start: Start,
    /// The environment variables that the file sets.
    pub environment: BTreeMap<String, String>,
    depends_on: Vec<String>,
    /// The line of its command.
    pub line: usize,
}

impl Declared {
    /// The name of the app, as far as the file says it.
    fn name(&self) -> &str {
        self.start.name.as_deref().unwrap_or(&self.start.what)
    }
}

/// A file, and where in it something stands.
struct Source<'s> {
    path: &'s Path,
    text: &'s str,
}

impl Source<'_> {
    fn error(&self, at: usize, why: &str) -> anyhow::Error {
        anyhow!("{}:{}: {why}", self.path.display(), self.line(at))
    }

    fn line(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].matches('\n').count() + 1
    }
}

/// Reads the apps of a file, with the variables of this environment: those that others depend on come first.
///
/// # Errors
/// Fails on the first invalid key, with its line.
pub fn read(path: &Path, environment: Option<&str>) -> Result<Vec<Declared>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let source = Source { path, text: &text };
    let file: File =
        toml::from_str(&text).map_err(|error| source.error(error.span().map_or(0, |span| span.start), error.message()))?;
    if file.app.is_empty() {
        bail!("{} has no [[app]]: add one with start = \"...\"", path.display());
    }
    let all = file.app.iter().map(|app| declared(app, &source, environment)).collect::<Result<Vec<_>>>()?;
    if let Some(environment) = environment
        && !file.app.iter().any(|app| environments(app).contains(environment))
    {
        bail!("{} has no [app.env.{environment}]", path.display());
    }
    ordered(all, path)
}

/// Sorts apps so that each comes after those that it depends on, and otherwise as they stand in the file.
fn ordered(mut left: Vec<Declared>, path: &Path) -> Result<Vec<Declared>> {
    let names: BTreeSet<String> = left.iter().map(|app| app.name().to_owned()).collect();
    for app in &left {
        if let Some(missing) = app.depends_on.iter().find(|name| !names.contains(*name)) {
            bail!("{}: {} depends on {missing}, which is not in the file: give that app this name", path.display(), app.name());
        }
    }
    let mut done: Vec<Declared> = Vec::new();
    while !left.is_empty() {
        let is_done = |name: &String| done.iter().any(|app| app.name() == name);
        let Some(next) = left.iter().position(|app| app.depends_on.iter().all(is_done)) else {
            let names: Vec<&str> = left.iter().map(Declared::name).collect();
            bail!("{}: {} depend on each other", path.display(), names.join(", "));
        };
        done.push(left.remove(next));
    }
    Ok(done)
}

fn declared(app: &BTreeMap<String, Spanned<Value>>, source: &Source<'_>, environment: Option<&str>) -> Result<Declared> {
    let command = app.get("start").and_then(|value| Some((value.get_ref().as_str()?, value.span().start)));
    let Some((what, at)) = command else {
        let at = app.values().map(|value| value.span().start).min().unwrap_or_default();
        return Err(source.error(at, "this [[app]] has no start key: add start = \"...\""));
    };
    let mut words = vec!["start".to_owned(), what.to_owned()];
    let mut last = Vec::new();
    let mut variables = BTreeMap::new();
    let mut depends_on = Vec::new();
    // The files come first, so that the table can say otherwise.
    for (key, value) in app.iter().filter(|(key, _)| matches!(key.as_str(), "env-file" | "env_file")) {
        for file in texts(value.get_ref()) {
            let path = source.path.parent().unwrap_or(Path::new(".")).join(&file);
            let text = fs::read_to_string(&path);
            let text = text
                .map_err(|error| source.error(value.span().start, &format!("{key}: cannot read {}: {error}", path.display())))?;
            variables.extend(dotenv::read(&text).map_err(|(line, why)| anyhow!("{}:{line}: {why}", path.display()))?);
        }
    }
    for (key, value) in app {
        let fail = |why: &str| source.error(value.span().start, &format!("{key}: {why}"));
        match key.replace('_', "-").as_str() {
            "start" | "env-file" => {}
            "force" if value.get_ref().as_bool() == Some(true) => {
                return Err(fail("a file has one app of each name: remove this key, and set instances for more processes"));
            }
            "depends-on" => depends_on = texts(value.get_ref()),
            "env" => {
                let Some(table) = value.get_ref().as_table() else {
                    return Err(fail("expected a table such as { PORT = 8080 }"));
                };
                let chosen = environment.and_then(|name| table.get(name)).and_then(Value::as_table);
                let own = table.iter().filter(|(_, value)| !value.is_table()).chain(chosen.into_iter().flatten());
                for (name, value) in own {
                    let value = text(value).ok_or_else(|| fail(&format!("{name} is not text, a number or a boolean")))?;
                    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                        return Err(fail(&format!(
                            "{name:?} = {value:?} cannot be a variable: a name is not empty and has no =, and nothing has a zero byte"
                        )));
                    }
                    variables.insert(name.clone(), value);
                }
            }
            _ => {
                let own = option(key, value.get_ref());
                // Parses each key alone first, so that an error has a line.
                if let Err(error) = Line::try_parse_from(words[..2].iter().chain(&own)) {
                    return Err(fail(&reason(&error)));
                }
                match value.get_ref() {
                    // A valid option that is not set.
                    Value::Boolean(false) => {}
                    _ if key == "arguments" => last = own,
                    _ => words.extend(own),
                }
            }
        }
    }
    let start = Line::try_parse_from(words.iter().chain(&last)).map_err(|error| source.error(at, &reason(&error)))?.start;
    Ok(Declared { start, environment: variables, depends_on, line: source.line(at) })
}

/// Returns what is wrong with a command line, in one line.
fn reason(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Returns the names of the environments of an app.
fn environments(app: &BTreeMap<String, Spanned<Value>>) -> BTreeSet<&str> {
    let table = app.get("env").and_then(|value| value.get_ref().as_table());
    table.into_iter().flatten().filter(|(_, value)| value.is_table()).map(|(name, _)| name.as_str()).collect()
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

/// Returns one text, or several.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(text).collect(),
        value => text(value).into_iter().collect(),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(text: &str, environment: Option<&str>) -> Result<Vec<Declared>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.toml");
        fs::write(folder.path().join(".env"), "# comment\nexport A=\"one two\"\nB=2\n").unwrap();
        fs::write(&path, text).unwrap();
        read(&path, environment)
    }

    fn wrong(text: &str) -> String {
        let error = read_with(text, None).unwrap_err().to_string();
        error.split_once("supervisor.toml").unwrap().1.to_owned()
    }

    #[test]
    fn an_app_is_parsed_like_the_command_line() {
        let text = "[[app]]\nstart = \"smol\"\ninstances = 3\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nlog_max_size = \"1M\"\n\
                    merge-logs = true\narguments = [\"--drain\", \"5s\"]\n[[app]]\nstart = \"sleep 5\"\n";
        let apps = read_with(text, None).unwrap();
        let first = &apps[0].start;
        assert_eq!((first.what.as_str(), first.instances, first.listen.len()), ("smol", Some(3), 2));
        assert_eq!((first.options.log_max_size, first.options.merge_logs), (1 << 20, true));
        assert_eq!(first.arguments, ["--drain", "5s"]);
        assert_eq!(apps[1].start.what, "sleep 5");
    }

    #[test]
    fn variables_come_from_files_the_table_and_the_chosen_environment() {
        let text =
            "[[app]]\nstart = \"x\"\nenv-file = \".env\"\nenv = { B = 3, C = true, production = { C = false, D = \"d\" } }\n";
        let of = |environment| {
            let apps = read_with(text, environment).unwrap();
            apps[0].environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(of(None), ["A=one two", "B=3", "C=true"]);
        assert_eq!(of(Some("production")), ["A=one two", "B=3", "C=false", "D=d"]);
        assert!(read_with(text, Some("staging")).unwrap_err().to_string().contains("has no [app.env.staging]"));
    }

    #[test]
    fn apps_come_after_those_that_they_depend_on() {
        let app = |name: &str, on: &str| format!("[[app]]\nstart = \"x\"\nname = \"{name}\"\ndepends-on = [{on}]\n");
        let apps = read_with(&[app("web", "\"api\""), app("api", "\"db\""), app("db", "")].concat(), None).unwrap();
        assert_eq!(apps.iter().map(Declared::name).collect::<Vec<_>>(), ["db", "api", "web"]);
        assert!(wrong(&[app("a", "\"b\""), app("b", "\"a\"")].concat()).contains("depend on each other"));
        assert!(wrong(&app("a", "\"c\"")).contains("depends on c, which is not in the file"));
    }

    #[test]
    fn an_error_names_its_line_and_key() {
        assert!(wrong("[[app]]\nstart = \"x\"\n\ninstances = 5000\n").starts_with(":4: instances: invalid value '5000'"));
        assert!(wrong("[[app]]\nstart = \"x\"\ninstancse = 2\n").starts_with(":3: instancse: unexpected argument '--instancse'"));
        assert!(wrong("[[app]]\nstart = \"x\"\nforce = true\n").starts_with(":3: force: a file has one app of each name"));
        assert!(wrong("[[app]]\nstart = \"x\"\nenv = 3\n").starts_with(":3: env: expected a table"));
        assert!(wrong("[[app]]\nstart = \"x\"\nenv-file = \"none\"\n").starts_with(":3: env-file: cannot read"));
        assert!(wrong("[[app]]\nstart = \n").starts_with(":2: "));
        assert!(wrong("[[apps]]\n").contains("unknown field `apps`"));
        assert!(wrong("app = []\n").contains("no [[app]]"));
        assert!(wrong("[[app]]\nname = \"x\"\n").starts_with(":2: this [[app]] has no start key"));
    }
}
