//! The values of options, as users type them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use supervisor::control::Size;
use supervisor::spec::{self, LONGEST, LONGEST_FORMAT, PERCENT, ReadyWhen, SMALLEST_LOG, StopSignal, Target};

/// Parses a number of instances.
pub fn instances(text: &str) -> Result<u32, String> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as i64);
    let number = if text == "max" { Ok(0) } else { text.parse::<i64>() };
    match number {
        Ok(count @ 1..=1000) => Ok(count as u32),
        Ok(less @ -1000..=0) => Ok((cores + less).max(1) as u32),
        _ => Err("expected a number from 1 to 1000, max or 0 for one per core, or -1 for one less".into()),
    }
}

pub fn scale(text: &str) -> Result<Size, String> {
    let by = || text.parse().map(Size::By);
    let size = if text.starts_with(['+', '-']) { by() } else { text.parse().map(Size::To) };
    size.map_err(|_| "expected a number of instances, or +N, or -N".into())
}

/// Parses a duration of at most a day. The limit keeps additions to clock times from overflowing.
pub fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err("expected at most a day".into()),
        Err(_) if text.parse::<u64>().is_ok() => Err(format!("expected a unit: {text}ms, as PM2 means it, or {text}s")),
        Err(error) => Err(error.to_string()),
    }
}

/// Rejects date formats that strftime does not know, and those that would make each line a page.
pub fn date_format(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_FORMAT {
        return Err(format!("expected at most {LONGEST_FORMAT} characters"));
    }
    if !text.contains('%') {
        return Err("expected a format of strftime, such as %Y-%m-%d %H:%M:%S".into());
    }
    jiff::fmt::strtime::format(text, &jiff::Zoned::now()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Rejects patterns that are none, or never come.
pub fn cron(text: &str) -> Result<String, String> {
    spec::schedule(text).map(|_| text.to_owned()).map_err(|error| format!("{error:#}"))
}

/// Parses permissions, which must let the supervisor write.
pub fn log_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o666 && mode & 0o111 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("expected permissions such as 600, 640 or 644".into()),
    }
}

/// Parses the name of any signal, with or without SIG, or its number.
pub fn signal(text: &str) -> Result<i32, String> {
    let name = text.to_ascii_uppercase();
    let known = (1..32).find(|number| {
        let own = signal_hook::low_level::signal_name(*number);
        own.is_some_and(|own| own == name || own.trim_start_matches("SIG") == name) || number.to_string() == name
    });
    known.ok_or_else(|| "expected the name of a signal, such as SIGUSR2".into())
}

/// Parses the name of a signal, with or without SIG.
pub fn stop_signal(text: &str) -> Result<StopSignal, String> {
    let name = text.to_ascii_uppercase();
    let is_meant = |signal: &StopSignal| signal.name() == name || signal.name()[3..] == name;
    StopSignal::ALL
        .into_iter()
        .find(is_meant)
        .ok_or_else(|| "expected SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 or SIGUSR2".into())
}

/// Parses what tells that a process is ready.
pub fn ready_when(text: &str) -> Result<ReadyWhen, String> {
    match text.split_once(':') {
        None if text == "listening" => Ok(ReadyWhen::Listening),
        Some(("http", rest)) if rest.starts_with("//") => target(text).map(ReadyWhen::Http),
        Some(("http", path)) => target(path).map(ReadyWhen::Http),
        Some(("log", text)) if !text.is_empty() => Ok(ReadyWhen::Log(text.to_owned())),
        _ => Err("expected listening, http:PATH, http://ADDR/PATH, or log:TEXT".into()),
    }
}

/// Parses where a request goes: a path, or an address and a path. A name becomes a number now, so that the daemon never waits for a name server.
pub fn target(text: &str) -> Result<Target, String> {
    let uri: http::Uri =
        text.parse().map_err(|error| format!("{error}: expected a path such as /healthz, or http://ADDR/PATH"))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let address = match (uri.scheme_str(), uri.host()) {
        (None, None) if path.starts_with('/') => None,
        (Some("http"), Some(host)) => {
            let mut all = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))
                .to_socket_addrs()
                .map_err(|error| error.to_string())?;
            // Of several, that of IPv4: a server that listens on one of both listens on that.
            let first = all.clone().find(SocketAddr::is_ipv4).or_else(|| all.next());
            Some(first.ok_or("it has no IP address")?.to_string())
        }
        _ => return Err("expected a path such as /healthz, or http://ADDR/PATH".into()),
    };
    Ok(Target { address, path })
}

/// Rejects sizes below a page, at which a log would be rotated more often than written.
pub fn log_size(text: &str) -> Result<u64, String> {
    size(text).and_then(|bytes| if bytes < SMALLEST_LOG { Err("expected at least 4K".into()) } else { Ok(bytes) })
}

/// Parses a number of bytes, such as `300M`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&text[..end], 1 << 10),
        Some((end, 'M' | 'm')) => (&text[..end], 1 << 20),
        Some((end, 'G' | 'g')) => (&text[..end], 1 << 30),
        _ => (text, 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a number of bytes, or a size such as 300K, 300M or 3G".into())
}

/// Parses a share of one processor, such as `150%`.
pub fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number
        .filter(|percent| PERCENT.contains(percent))
        .ok_or_else(|| "expected a share of one processor, such as 50% or 150%".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_are_parsed_and_nonsense_is_rejected() {
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("5"), Ok(5));
        assert!(["", "M", "0", "-1", "99999999999G"].iter().all(|text| size(text).is_err()));
        assert_eq!((percent("150%"), percent("5")), (Ok(150), Ok(5)));
        assert!(["", "%", "0%", "1.5", "-1", "100001%"].iter().all(|text| percent(text).is_err()));
        assert_eq!((scale("+2"), scale("-1"), scale("4")), (Ok(Size::By(2)), Ok(Size::By(-1)), Ok(Size::To(4))));
        assert!(["", "x", "1001", "-1001"].iter().all(|text| instances(text).is_err()));
        assert_eq!((instances("3"), instances("0"), instances("-1000")), (Ok(3), instances("max"), Ok(1)));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!((signal("usr2"), signal("SIGHUP"), signal("9")), (Ok(12), Ok(1), Ok(9)));
        assert!(["", "SIG", "0", "99", "SIGNAL"].iter().all(|text| signal(text).is_err()));
    }

    #[test]
    fn patterns_of_cron_are_checked() {
        assert!(["0 3 * * *", "*/5 * * * *", "* * * * * *", "@daily", "0 0 29 2 *"].iter().all(|text| cron(text).is_ok()));
        assert!(["", "x", "* * *", "61 * * * *", "0 0 31 2 *"].iter().all(|text| cron(text).is_err()));
    }

    #[test]
    fn checks_are_parsed_and_nonsense_is_rejected() {
        let path = |path: &str| Target { address: None, path: path.into() };
        let there = |address: &str, path: &str| Target { address: Some(address.into()), path: path.into() };
        assert_eq!(target("/healthz?full=1"), Ok(path("/healthz?full=1")));
        assert_eq!(target("http://127.0.0.1:3000"), Ok(there("127.0.0.1:3000", "/")));
        assert_eq!(target("http://[::1]:3000/x"), Ok(there("[::1]:3000", "/x")));
        assert_eq!(ready_when("listening"), Ok(ReadyWhen::Listening));
        assert_eq!(ready_when("log:Listening on http://"), Ok(ReadyWhen::Log("Listening on http://".into())));
        assert_eq!(ready_when("http:/ok"), Ok(ReadyWhen::Http(path("/ok"))));
        assert_eq!(ready_when("http://127.0.0.1:1/ok"), Ok(ReadyWhen::Http(there("127.0.0.1:1", "/ok"))));
        assert!(["", "log:", "http:", "http:ok", "tcp:80", "listen"].iter().all(|text| ready_when(text).is_err()));
        assert!(["", "healthz", "https://a/", "ftp://a/", "http://"].iter().all(|text| target(text).is_err()));
    }
}
