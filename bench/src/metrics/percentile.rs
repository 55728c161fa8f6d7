//! The percentile of response time that stands for a trial.

use super::{Family, Role, Unit};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A percentile: 99 unless a round is read at another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile(f64);

impl Default for Percentile {
    fn default() -> Self {
        Percentile(99.0)
    }
}

impl Percentile {
    /// The median.
    pub const MEDIAN: Percentile = Percentile(50.0);

    /// As a share of all samples.
    pub fn quantile(self) -> f64 {
        self.0 / 100.0
    }

    /// The family of response times at this percentile: `p99_ms`.
    pub fn family(self) -> Family {
        Family { name: Cow::Owned(format!("{self}_ms")), ..Family::new("", Unit::Ms, Role::Latency) }
    }

    /// The family of what blockers add to it: `added_p99_ms`.
    pub fn added(self) -> Family {
        Family { name: Cow::Owned(format!("added_{self}_ms")), role: Role::Detail, ..self.family() }
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl FromStr for Percentile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_start_matches('p').parse().ok().filter(|number| *number > 0.0 && *number < 100.0);
        number.map(Percentile).ok_or_else(|| format!("'{text}' is not a percentile between 0 and 100"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_as_people_write_them() {
        assert_eq!("99.9".parse::<Percentile>().unwrap().family().name, "p99.9_ms");
        assert_eq!("p50".parse::<Percentile>().unwrap().to_string(), "p50");
        for wrong in ["0", "100", "-1", "much", "NaN"] {
            assert!(wrong.parse::<Percentile>().unwrap_err().contains(wrong));
        }
    }
}
