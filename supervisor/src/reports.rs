//! What servers report as their status, such as `983 requests, 2 failed, lag up to 0.1 ms`.

/// A status that says how a server is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Reported {
    /// Requests so far.
    pub requests: u64,
    /// Those that were answered with a status from 500 on.
    pub failed: u64,
    /// The longest time in milliseconds that one request has held the event loop since the last report.
    pub lag_ms: Option<f64>,
}

impl Reported {
    /// Reads a status; `None` if it says something else.
    pub fn read(says: &str) -> Option<Self> {
        let mut parts = says.split(", ");
        let mut reported = Reported { requests: parts.next()?.strip_suffix(" requests")?.parse().ok()?, ..Reported::default() };
        for part in parts {
            if let Some(failed) = part.strip_suffix(" failed") {
                reported.failed = failed.parse().ok()?;
            } else {
                reported.lag_ms = Some(part.strip_prefix("lag up to ")?.strip_suffix(" ms")?.parse().ok()?);
            }
        }
        Some(reported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_and_without_its_parts() {
        let reported = |requests, failed, lag_ms| Some(Reported { requests, failed, lag_ms });
        assert_eq!(Reported::read("7 requests"), reported(7, 0, None));
        assert_eq!(Reported::read("7 requests, lag up to 0.5 ms"), reported(7, 0, Some(0.5)));
        assert_eq!(Reported::read("7 requests, 2 failed, lag up to 0.5 ms"), reported(7, 2, Some(0.5)));
        assert!(["", "ready", "7 requests, fine", "x requests"].iter().all(|says| Reported::read(says).is_none()));
    }
}
