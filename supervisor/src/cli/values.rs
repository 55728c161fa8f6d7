//! The values of options, as users type them.

use std::time::Duration;
use supervisor::control::Size;
use supervisor::spec::{LONGEST, LONGEST_FORMAT, SMALLEST_LOG, StopSignal};

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
        Err(error) => Err(error.to_string()),
    }
}

/// Rejects date formats that strftime does not know, and those that would make each line a page.
pub fn date_format(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_FORMAT {
        return Err(format!("expected at most {LONGEST_FORMAT} characters"));
    }
    jiff::fmt::strtime::format(text, &jiff::Zoned::now()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
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
        let own = signal_hook::low_level::signal_name(*number).unwrap_or_default();
        own == name || own.trim_start_matches("SIG") == name || number.to_string() == name
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_are_parsed_and_nonsense_is_rejected() {
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("5"), Ok(5));
        assert!(["", "M", "0", "-1", "99999999999G"].iter().all(|text| size(text).is_err()));
        assert_eq!((scale("+2"), scale("-1"), scale("4")), (Ok(Size::By(2)), Ok(Size::By(-1)), Ok(Size::To(4))));
        assert!(["", "x", "1001", "-1001"].iter().all(|text| instances(text).is_err()));
        assert_eq!((instances("3"), instances("0"), instances("-1000")), (Ok(3), instances("max"), Ok(1)));
    }
}
