//! `import` converts the files of PM2's users to a supervisor.toml: ecosystem files, which may be programs, and what `pm2 save` has written.

use super::names;
use super::places::Places;
use super::pm2::{KEYS, NOTHING, STATE, USUAL, listed};
use super::resolve::runs_node;
use super::{print, remark};
use crate::cli::Import;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use toml::{Table, Value as Toml};

/// Prints what a file exports. Whatever the file prints itself goes to the standard error.
const READ: &str = "const write = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);
const { readFileSync } = require('node:fs'), { pathToFileURL } = require('node:url');
const evaluated = (file) => (0, eval)(`(${readFileSync(file, 'utf8')}\n)`);
(async ([file, isData]) => {
  const exported = isData ? evaluated(file) : await import(pathToFileURL(file));
  const apps = exported.default ?? exported;
  // Whatever else the file has begun, such as a server, is not waited for.
  write(JSON.stringify(typeof apps === 'function' ? await apps() : apps) ?? 'null', () => process.exit());
})(process.argv.slice(1));";

/// Converts a file.
///
/// # Errors
/// Fails if the file cannot be read, is a program and there is no node, or has no apps.
pub fn run(import: &Import) -> Result<()> {
    let value = read(&import.file)?;
    let places = Places::new(&import.file, import.output.as_deref())?;
    let (text, remarks) = converted(&value, &places).with_context(|| import.file.display().to_string())?;
    match &import.output {
        Some(path) if path.exists() => bail!("{} exists: name another file with --output", path.display()),
        Some(path) => fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?,
        None => print(&text)?,
    }
    remarks.iter().for_each(|text| remark(text));
    Ok(())
}

fn read(file: &Path) -> Result<Value> {
    let ending = file.extension().and_then(OsStr::to_str).unwrap_or_default();
    if ["yml", "yaml"].contains(&ending) {
        bail!("cannot read {}: export the apps in a .cjs or .json file", file.display());
    }
    if ["js", "cjs", "mjs"].contains(&ending) {
        return evaluated(file, false);
    }
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let value = serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()));
    // To PM2, it is an object of JavaScript, which may have comments.
    value.or_else(|error| if ending == "json" { evaluated(file, true).map_err(|_| error) } else { Err(error) })
}

/// Returns what a program exports, or the object that a file of data consists of.
fn evaluated(file: &Path, is_data: bool) -> Result<Value> {
    let path = std::path::absolute(file)?;
    let output = Command::new("node").args(["-e", READ]).arg(&path).args(is_data.then_some("data")).output();
    let output = output.with_context(|| format!("{} is a program: cannot run node", file.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().find(|line| line.contains("Error")).unwrap_or("it ended with an error");
        bail!("cannot read {}: {why}", file.display());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{} exports something else than apps", file.display()))
}

/// What is said of a key that is not in the file.
const LEFT_OUT: &str = " has no counterpart here, and was left out";

/// Returns the text of a supervisor.toml, and what is to be said about it.
fn converted(value: &Value, places: &Places) -> Result<(String, Vec<String>)> {
    let apps = match value {
        Value::Array(apps) => apps.as_slice(),
        Value::Object(file) => match file.get("apps") {
            Some(Value::Array(apps)) => apps.as_slice(),
            // One app needs no list.
            Some(app @ Value::Object(_)) => std::slice::from_ref(app),
            _ => &[],
        },
        _ => &[],
    };
    if apps.is_empty() {
        bail!("there are no apps in it");
    }
    let others = value.as_object().into_iter().flat_map(Map::keys).filter(|key| *key != "apps");
    let mut missing: Vec<String> = others.cloned().collect();
    // A dump has an entry for each process.
    let mut all: Vec<(Value, Table, usize)> = Vec::new();
    for app in apps {
        let app = app.as_object().context("an app is not an object")?;
        let table = converted_app(app, places, &mut missing)?;
        let name = app.get("name").cloned().unwrap_or_default();
        match all.iter_mut().find(|(own, ..)| app.contains_key("pm_exec_path") && *own == name) {
            Some((.., count)) => *count += 1,
            None => all.push((name, table, 1)),
        }
    }
    let renamed = names::tell_apart(&mut all);
    let tables = all.into_iter().map(|(_, mut table, count)| {
        if count > 1 {
            table.insert("instances".into(), Toml::Integer(count as i64));
        }
        Toml::Table(table)
    });
    let file = Table::from_iter([("app".to_owned(), Toml::Array(tables.collect()))]);
    missing.sort();
    missing.dedup();
    let left_out = missing.into_iter().map(|key| key + LEFT_OUT);
    Ok((toml::to_string(&file)?, left_out.chain(renamed).collect()))
}

fn converted_app(app: &Map<String, Value>, places: &Places, missing: &mut Vec<String>) -> Result<Table> {
    let mut table = Table::new();
    let mut environment = Table::new();
    let is_dump = app.contains_key("pm_exec_path");
    for (key, value) in app.iter().filter(|(_, value)| !value.is_null()) {
        if let Some((_, own, kind)) = KEYS.iter().find(|(theirs, ..)| theirs == key) {
            match kind.converted(value) {
                Some(Some(value)) => drop(table.insert((*own).to_owned(), value)),
                Some(None) => {}
                None => missing.push(format!("{key} = {value}")),
            }
        } else if ["node_args", "interpreter_args", "interpreterArgs"].contains(&key.as_str()) {
            let words = listed(value);
            // The words of an interpreter are parted by spaces.
            let is_one = |word: &String| !word.is_empty() && !word.contains(char::is_whitespace);
            if !words.iter().all(is_one) {
                missing.push(format!("{key} = {value}"));
            } else if !words.is_empty() {
                let interpreter =
                    app.get("interpreter").or(app.get("exec_interpreter")).and_then(Value::as_str).unwrap_or("node");
                table.insert("interpreter".into(), Toml::String(format!("{interpreter} {}", words.join(" "))));
            }
        } else if let Some(name) = key.strip_prefix("env_") {
            missing.extend(not_text(key, value));
            environment.insert(name.to_owned(), Toml::Table(variables(value, false)));
        } else if NOTHING.contains(&key.as_str())
            || USUAL.contains(&(key.as_str(), value.to_string().as_str()))
            || is_dump && is_state(key)
        {
            // There is nothing to say about it.
        } else {
            missing.push(key.clone());
        }
    }
    if let Some(value) = app.get("env") {
        missing.extend(not_text("env", value).filter(|_| !is_dump));
        environment.extend(variables(value, is_dump));
    }
    if !environment.is_empty() {
        table.insert("env".into(), Toml::Table(environment));
    }
    if !table.contains_key("start") {
        bail!("an app has no script");
    }
    settle(&mut table, missing);
    places.place(&mut table);
    Ok(table)
}

/// Settles what only PM2 allows: settings together, and names.
fn settle(table: &mut Table, missing: &mut Vec<String>) {
    if table.contains_key("log-date-format") {
        table.remove("time");
    }
    // Only Node programs can say `ready` as PM2 has it.
    let text = |key: &str| table.get(key).and_then(Toml::as_str).unwrap_or_default();
    let interpreter = text("interpreter").split(' ').next().filter(|interpreter| !interpreter.is_empty());
    let ending = Path::new(text("start")).extension().and_then(OsStr::to_str).unwrap_or_default();
    let is_other = interpreter.map_or(["py", "rb", "pl", "sh"].contains(&ending), |interpreter| !runs_node(interpreter));
    // The ending says it.
    if ["js", "cjs", "mjs"].contains(&ending) && text("interpreter") == "node" {
        table.remove("interpreter");
    }
    if is_other && table.remove("wait-ready").is_some() {
        missing.push("wait_ready, for a program that is not Node's,".into());
    }
    if table.contains_key("output") || table.contains_key("error") {
        missing.extend(table.remove("log").map(|log| format!("log_file = {log}, beside out_file and error_file")));
    }
    names::settle(table);
}

/// Returns the variables that are neither text nor a number.
fn not_text<'v>(key: &'v str, value: &'v Value) -> impl Iterator<Item = String> + 'v {
    let wrong = value.as_object().into_iter().flatten().filter(|(_, value)| value.is_object() || value.is_null());
    wrong.map(move |(name, value)| format!("{key}.{name} = {value}"))
}

/// A dump has the state of an app among its settings, and repeats the environment there.
fn is_state(key: &str) -> bool {
    STATE.iter().any(|prefix| key.starts_with(prefix))
        || key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Converts variables. Those of a dump that this process has too are not the app's own.
fn variables(value: &Value, is_dump: bool) -> Table {
    let own = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_object() && !value.is_null());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let own = own.map(|(name, value)| (name.clone(), text(value)));
    let own = own.filter(|(name, value)| !is_dump || std::env::var(name).ok().as_ref() != Some(value) && name != "unique_id");
    own.map(|(name, value)| (name, Toml::String(value))).collect::<BTreeMap<_, _>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn converted_here(value: &Value) -> Result<(String, Vec<String>)> {
        let (text, remarks) = converted(value, &Places { folder: "/nowhere".into(), is_elsewhere: false })?;
        Ok((text, remarks.iter().map(|text| text.trim_end_matches(LEFT_OUT).to_owned()).collect()))
    }

    #[test]
    fn paths_are_those_of_pm2_wherever_the_new_file_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("api")).unwrap();
        fs::write(folder.path().join("api/index.js"), "").unwrap();
        let apps = json!([{ "script": "./index.js", "cwd": "./api", "out_file": "out.log" }, { "script": "npm", "error_file": "/var/err.log" }]);
        let lines = |is_elsewhere: bool| {
            let (text, _) = converted(&apps, &Places { folder: folder.path().into(), is_elsewhere }).unwrap();
            text.replace(&*folder.path().to_string_lossy(), "/there")
        };
        let both = "[[app]]\ncwd = \"{}api\"\noutput = \"{}api/out.log\"\nstart = \"{}api/./index.js\"\n\n[[app]]\n{}error = \"/var/err.log\"\nstart = \"npm\"\n";
        let both = |base: &str, cwd: &str| both.replacen("{}", base, 3).replace("{}", cwd);
        assert_eq!(lines(false).replace("./api", "api"), both("", ""));
        assert_eq!(lines(true).replace("./api", "api"), both("/there/", "cwd = \"/there\"\n"));
    }

    #[test]
    fn an_ecosystem_file_becomes_a_file_that_start_takes() {
        let file = json!({ "apps": [{
            "name": "api", "script": "./server.js", "args": "--port 3000", "instances": "max", "exec_mode": "cluster",
            "max_memory_restart": "300M", "kill_timeout": 5000, "autorestart": true, "watch": false, "node_args": "--max-old-space-size=200",
            "env": { "PORT": 3000 }, "env_production": { "NODE_ENV": "production" }, "log_date_format": "YYYY-MM-DD HH:mm:ss", "cron_restart": "0 3 * * *", "out_file": "logs/out.log", "error_file": "NULL", "post_update": ["npm install"]
        }] });
        let (text, missing) = converted_here(&file).unwrap();
        assert_eq!(missing, ["post_update"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.toml");
        fs::write(&path, &text).unwrap();
        let apps = super::super::ecosystem::read(&path, Some("production")).unwrap_or_else(|error| panic!("{error:#}: {text}"));
        let start = &apps[0].start;
        assert_eq!(
            (start.what.as_str(), start.name.as_deref(), start.arguments.as_slice()),
            ("./server.js", Some("api"), &["--port".to_owned(), "3000".into()][..])
        );
        assert_eq!(start.interpreter.as_deref(), Some("node --max-old-space-size=200"));
        assert_eq!(start.options.cron.as_deref(), Some("0 3 * * *"));
        assert_eq!((&start.output, &start.error), (&Some("logs/out.log".into()), &Some("/dev/null".into())));
        assert_eq!(start.options.log_date_format.as_deref(), Some("%Y-%m-%d %H:%M:%S"));
        assert_eq!(
            apps[0].environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            ["NODE_ENV=production", "PORT=3000"]
        );
    }

    #[test]
    fn a_dump_counts_the_processes_of_an_app() {
        let process = json!({ "name": "api", "pm_exec_path": "/srv/server.js", "pm_cwd": "/srv", "exec_interpreter": "node", "node_args": [],
            "env": { "ONLY_HERE": "1" }, "ONLY_HERE": "1", "pm_uptime": 1, "unstable_restarts": 0, "status": "online", "namespace": "default" });
        let (text, missing) = converted_here(&json!([process, process])).unwrap();
        assert!(
            text.contains("instances = 2") && text.contains("ONLY_HERE = \"1\"") && text.contains("start = \"/srv/server.js\""),
            "{text}"
        );
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn other_names_of_keys_and_numbers_of_users_are_known_and_what_stands_beside_the_apps_is_named() {
        let file = json!({ "apps": [{ "exec": "x.js", "uid": 1000, "cron": "0 3 * * *" }], "deploy": {} });
        let (text, missing) = converted_here(&file).unwrap();
        assert_eq!(missing, ["deploy"]);
        assert_eq!(text, "[[app]]\ncron = \"0 3 * * *\"\nstart = \"x.js\"\nuid = \"1000\"\n");
    }

    #[test]
    fn what_only_pm2_allows_becomes_a_file_that_start_takes() {
        let file = json!({ "apps": { "name": "My App", "script": "x.js", "time": true, "log_date_format": "YYYY", "log_file": "all.log",
            "out_file": "out.log", "env": { "A": null, "B": { "x": 1 }, "C": "c" } } });
        let (text, missing) = converted_here(&file).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.toml");
        fs::write(&path, &text).unwrap();
        let apps = super::super::ecosystem::read(&path, None).unwrap_or_else(|error| panic!("{error:#}: {text}"));
        assert_eq!(apps[0].start.name.as_deref(), Some("My-App"));
        let named = [
            "env.A = null",
            "env.B = {\"x\":1}",
            "log_file = \"all.log\", beside out_file and error_file",
            "the app 'My App' is called 'My-App' here",
        ];
        assert_eq!(missing, named);
    }

    #[test]
    fn apps_whose_names_become_the_same_stay_apart() {
        let dump = |name: &str, script: &str| json!({ "name": name, "pm_exec_path": script });
        let (first, second) = (
            "a service of the team that bills, in the west of Europe 1",
            "a service of the team that bills, in the west of Europe 2",
        );
        let all = [("My App", "a.js"), ("My-App", "b.js"), ("My App", "a.js"), (first, "c.js"), (second, "d.js")];
        let (text, missing) = converted_here(&Value::Array(all.map(|(name, script)| dump(name, script)).into())).unwrap();
        let file: Table = text.parse().unwrap();
        let apps = file["app"].as_array().unwrap();
        let names: BTreeSet<&str> = apps.iter().map(|app| app["name"].as_str().unwrap()).collect();
        assert_eq!((apps.len(), names.len()), (4, 4), "{text}");
        assert_eq!((apps[0]["name"].as_str(), apps[0]["instances"].as_integer()), (Some("My-App-2"), Some(2)));
        assert_eq!(apps[1]["name"].as_str(), Some("My-App"));
        assert!(missing.contains(&"the app 'My App' is called 'My-App-2' here".to_owned()), "{missing:?}");
    }

    #[test]
    fn only_node_programs_say_that_they_are_ready_as_pm2_has_it() {
        let file = json!({ "apps": [{ "script": "a.py", "wait_ready": true }, { "script": "b.js", "wait_ready": true }] });
        let (text, remarks) = converted_here(&file).unwrap();
        assert_eq!((text.matches("wait-ready").count(), remarks.len()), (1, 1), "{text}");
    }

    #[test]
    fn node_is_named_where_the_ending_does_not_say_it_and_a_cron_of_0_is_none() {
        let file = json!([{ "script": "bin/www", "interpreter": "node", "cron_restart": "0" }, { "script": "b.js", "interpreter": "node", "cron": 0 },
            { "script": "m.ts", "interpreter": "deno", "interpreterArgs": "run --allow-net" }]);
        let (text, remarks) = converted_here(&file).unwrap();
        let apps = "[[app]]\ninterpreter = \"node\"\nstart = \"bin/www\"\n\n[[app]]\nstart = \"b.js\"\n\n\
                    [[app]]\ninterpreter = \"deno run --allow-net\"\nstart = \"m.ts\"\n";
        assert_eq!((text.as_str(), remarks), (apps, Vec::new()));
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        let (_, missing) = converted_here(&json!([{ "script": "x.js", "watch": ["src"], "log_date_format": "dddd" }])).unwrap();
        assert_eq!(missing, ["log_date_format = \"dddd\"", "watch = [\"src\"]"]);
        assert!(converted_here(&json!({})).is_err() && converted_here(&json!([{ "name": "x" }])).is_err());
    }
}
