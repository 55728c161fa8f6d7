//! The keys of PM2's files, what they are called here, how their values are written here, and how PM2 takes a text apart.

use regex_lite::{Captures, Regex};
use serde_json::Value;
use toml::Value as Toml;

/// Keys that mean the same under another name, and how their value is written here.
pub const KEYS: [(&str, &str, Kind); 46] = [
    ("script", "start", Kind::Text),
    ("exec", "start", Kind::Text),
    ("cmd", "start", Kind::Text),
    ("command", "start", Kind::Text),
    ("pm_exec_path", "start", Kind::Text),
    ("name", "name", Kind::Text),
    ("namespace", "namespace", Kind::Namespace),
    ("cwd", "cwd", Kind::Text),
    ("pm_cwd", "cwd", Kind::Text),
    ("interpreter", "interpreter", Kind::Interpreter),
    ("exec_interpreter", "interpreter", Kind::Interpreter),
    ("instances", "instances", Kind::Instances),
    ("watch", "watch", Kind::Switch),
    ("max_memory_restart", "max-memory-restart", Kind::Size),
    ("min_uptime", "min-uptime", Kind::Time),
    ("max_restarts", "max-restarts", Kind::Number),
    ("restart_delay", "restart-delay", Kind::Time),
    ("exp_backoff_restart_delay", "restart-delay", Kind::Time),
    ("kill_timeout", "kill-timeout", Kind::Time),
    ("listen_timeout", "listen-timeout", Kind::Time),
    ("wait_ready", "wait-ready", Kind::Switch),
    ("autorestart", "no-autorestart", Kind::Opposite),
    ("stop_exit_codes", "stop-exit-codes", Kind::Codes),
    ("log_date_format", "log-date-format", Kind::Date),
    ("merge_logs", "merge-logs", Kind::Switch),
    ("combine_logs", "merge-logs", Kind::Switch),
    ("time", "time", Kind::Switch),
    ("uid", "uid", Kind::User),
    ("gid", "gid", Kind::User),
    ("user", "uid", Kind::User),
    ("cron_restart", "cron", Kind::Cron),
    ("cron", "cron", Kind::Cron),
    ("log_file", "log", Kind::Text),
    ("log", "log", Kind::Text),
    ("out_file", "output", Kind::Log),
    ("output", "output", Kind::Log),
    ("out", "output", Kind::Log),
    ("out_log", "output", Kind::Log),
    ("error_file", "error", Kind::Log),
    ("error", "error", Kind::Log),
    ("err", "error", Kind::Log),
    ("err_file", "error", Kind::Log),
    ("err_log", "error", Kind::Log),
    ("args", "arguments", Kind::Words),
    ("env_file", "env-file", Kind::Text),
    ("kill_signal", "stop-signal", Kind::Text),
];
/// Keys that say nothing that would have to be said here.
pub const NOTHING: [&str; 10] = [
    "source_map_support",
    "exec_mode",
    "automation",
    "vizion",
    "pmx",
    "windowsHide",
    "kill_retry_time",
    "username",
    "merge_type",
    "env",
];
/// Values that say what is so here in any case.
pub const USUAL: [(&str, &str); 3] = [("autostart", "true"), ("treekill", "true"), ("instance_var", "\"NODE_APP_INSTANCE\"")];
/// What `pm2 save` writes beside an app's own settings.
pub const STATE: [&str; 7] = ["pm_", "_pm2", "unstable_restarts", "created_at", "prev_restart_delay", "status", "axm_"];

/// How a value is written here.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// A name or a number.
    User,
    Namespace,
    Interpreter,
    Instances,
    /// A pattern, or `0` for none.
    Cron,
    Switch,
    Opposite,
    Number,
    /// Milliseconds, or a text such as `10s`.
    Time,
    /// Bytes, or a text such as `300M`.
    Size,
    Codes,
    /// A file, or `NULL` for none.
    Log,
    /// PM2's date formats are those of moment.js.
    Date,
    /// Words, or a text of words.
    Words,
}

impl Kind {
    /// Returns the value here: `Some(None)` if it is the usual one, and `None` if it cannot be said.
    pub fn converted(self, value: &Value) -> Option<Option<Toml>> {
        let text = |text: &str| Some(Some(Toml::String(text.to_owned())));
        match (self, value) {
            (Kind::Log, Value::String(own)) if own == "NULL" => text("/dev/null"),
            (Kind::Text | Kind::User | Kind::Log, Value::String(own)) => text(own),
            (Kind::User, Value::Number(id)) => text(&id.to_string()),
            (Kind::Namespace, Value::String(own)) if own == "default" => Some(None),
            (Kind::Namespace, Value::String(own)) => text(own),
            (Kind::Interpreter, Value::String(own)) => text(own),
            (Kind::Instances, Value::String(own)) if own == "max" => text(own),
            (Kind::Instances | Kind::Number, value) => {
                Some(Some(Toml::Integer(value.as_i64().or_else(|| value.as_str()?.parse().ok())?)))
            }
            // PM2's way to say that there is none.
            (Kind::Cron, Value::Bool(false)) => Some(None),
            (Kind::Cron, Value::String(own)) if ["", "0"].contains(&own.as_str()) => Some(None),
            (Kind::Cron, Value::String(own)) => text(own),
            (Kind::Cron, Value::Number(own)) if own.as_i64() == Some(0) => Some(None),
            (Kind::Switch, Value::Bool(is_on)) => Some(is_on.then_some(Toml::Boolean(true))),
            // Paths to watch: here it is the program.
            (Kind::Switch, Value::Array(_) | Value::String(_)) => None,
            (Kind::Opposite, Value::Bool(is_on)) => Some((!is_on).then_some(Toml::Boolean(true))),
            (Kind::Time, Value::Number(ms)) => text(&format!("{ms}ms")),
            (Kind::Time, Value::String(own)) if own.parse::<u64>().is_ok() => text(&format!("{own}ms")),
            (Kind::Time | Kind::Size, Value::String(own)) => text(own),
            (Kind::Size, Value::Number(bytes)) => text(&bytes.to_string()),
            (Kind::Codes, Value::Array(codes)) => {
                Some(Some(Toml::Array(codes.iter().filter_map(Value::as_i64).map(Toml::Integer).collect())))
            }
            (Kind::Codes, Value::Number(code)) => Some(Some(Toml::Array(vec![Toml::Integer(code.as_i64()?)]))),
            (Kind::Date, Value::String(own)) if own.is_empty() => Some(None),
            (Kind::Date, Value::String(own)) => text(&strftime(own)?),
            (Kind::Words, value) => {
                let words = listed(value);
                Some((!words.is_empty()).then(|| Toml::Array(words.into_iter().map(Toml::String).collect())))
            }
            _ => None,
        }
    }
}

/// Returns the words of a list, or of a text.
pub fn listed(value: &Value) -> Vec<String> {
    match value {
        Value::Array(words) => words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect(),
        Value::String(text) => words(text),
        _ => Vec::new(),
    }
}

/// Returns the words of a text as PM2 parts them: what stands in quotes is one word.
pub fn words(text: &str) -> Vec<String> {
    let word = Regex::new(r#"[\w-]+="[^"]*"|[\w-]+='[^']*'|"([^"]*)"|'([^']*)'|\S+"#).expect("a valid pattern");
    // The part within the quotes, or else all of it.
    let own = |one: Captures<'_>| one.iter().flatten().last().map(|part| part.as_str().to_owned());
    word.captures_iter(text).filter_map(own).collect()
}

/// Converts a date format of moment.js, if it consists of the usual parts.
fn strftime(format: &str) -> Option<String> {
    let parts = [
        ("YYYY", "%Y"),
        ("MM", "%m"),
        ("DD", "%d"),
        ("HH", "%H"),
        ("mm", "%M"),
        ("ss", "%S"),
        ("SSS", "%3f"),
        ("ZZ", "%z"),
        ("Z", "%:z"),
        ("YY", "%y"),
    ];
    let mut rest = format;
    let mut own = String::new();
    while let Some(first) = rest.chars().next() {
        if let Some((theirs, ours)) = parts.iter().find(|(theirs, _)| rest.starts_with(theirs)) {
            own.push_str(ours);
            rest = &rest[theirs.len()..];
        } else if first.is_ascii_alphabetic() && first != 'T' {
            return None;
        } else {
            own.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_quotes_is_one_word() {
        let own = words(r#"--title 'My app' --msg="a b" -p  3000 "x y" it's"#);
        assert_eq!(own, ["--title", "My app", r#"--msg="a b""#, "-p", "3000", "x y", "it's"]);
    }
}
