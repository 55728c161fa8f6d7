//! The keys of PM2's files, what they are called here, and how PM2 takes a text apart.

use regex_lite::{Captures, Regex};

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
    ("cron_restart", "cron", Kind::Text),
    ("cron", "cron", Kind::Text),
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

/// Returns the words of a text as PM2 parts them: what stands in quotes is one word.
pub fn words(text: &str) -> Vec<String> {
    let word = Regex::new(r#"[\w-]+="[^"]*"|[\w-]+='[^']*'|"([^"]*)"|'([^']*)'|\S+"#).expect("a valid pattern");
    // The part within the quotes, or else all of it.
    let own = |one: Captures<'_>| one.iter().flatten().last().map(|part| part.as_str().to_owned());
    word.captures_iter(text).filter_map(own).collect()
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
