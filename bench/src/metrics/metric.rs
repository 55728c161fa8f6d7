//! A metric: its family (name, unit, direction), and where it was measured.

use std::borrow::Cow;
use std::fmt;

/// The unit of a family's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Per second.
    PerSecond,
    /// Mebibytes.
    Mib,
    /// Kibibytes.
    Kib,
    /// Things.
    Count,
    /// Blockers in flight.
    Blockers,
    /// A share between 0 and 1.
    Share,
    /// One quantity divided by another.
    Ratio,
    /// A count per request.
    PerRequest,
}

impl Unit {
    /// The sign behind a number.
    pub fn word(self) -> &'static str {
        match self {
            Unit::Ms => "ms",
            Unit::Us => "µs",
            Unit::PerSecond => "/s",
            Unit::Mib => "MiB",
            Unit::Kib => "KiB",
            Unit::Share => "%",
            Unit::Count | Unit::Blockers | Unit::Ratio | Unit::PerRequest => "",
        }
    }
}

/// Which direction is an improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Smaller values.
    Less,
    /// Larger values.
    More,
}

/// How two values of a family are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A response time: arithmetic of the blockers more than the speed of the machine.
    Latency,
    /// A cost, which moves with the speed of the machine.
    Cost,
    /// A step on a ladder, such as a freeze threshold: ordered, but without relative noise.
    Threshold,
    /// Shown, but not compared: another metric says the same, or it says too little.
    Detail,
}

/// A kind of metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Name, with the unit last: `p99_ms`.
    pub name: Cow<'static, str>,
    /// Unit.
    pub unit: Unit,
    /// Direction.
    pub better: Better,
    /// Comparison.
    pub role: Role,
}

impl Family {
    /// A family of which less is better.
    pub const fn new(name: &'static str, unit: Unit, role: Role) -> Self {
        Family { name: Cow::Borrowed(name), unit, better: Better::Less, role }
    }

    /// The same, of which more is better.
    pub const fn more_is_better(mut self) -> Self {
        self.better = Better::More;
        self
    }

    /// Differences below this are not claimed: the driver's own lag may be a tenth of it.
    pub fn least_claim(&self) -> f64 {
        match (self.role, self.unit) {
            (Role::Latency | Role::Detail, Unit::Ms) => 2.0,
            _ => 0.0,
        }
    }

    /// The metric of this family in one place, such as `sleep@110,4`; an empty place for the only one.
    pub fn at(&self, experiment: &'static str, place: impl Into<String>) -> Metric {
        Metric { experiment, family: self.clone(), place: place.into() }
    }

    /// Whether a name that a user typed covers this family: `p99` covers `p99_ms`.
    pub fn is_covered_by(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }
}

/// One quantity of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// The experiment that measures it.
    pub experiment: &'static str,
    /// Its kind.
    pub family: Family,
    /// Where it was measured.
    pub place: String,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.family.name)?;
        if self.place.is_empty() { Ok(()) } else { write!(f, "[{}]", self.place) }
    }
}
