//! The change from one median to another, each case by its own name.

use super::Value;
use serde::Serialize;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Both are exact: the second divided by the first.
    Ratio(f64),
    /// From zero to this.
    FromZero(f64),
    /// The second is a bound above the first: the ratio is at least this.
    RatioAtLeast(f64),
    /// The first is a bound above the second: the ratio is at most this.
    RatioAtMost(f64),
    /// A number before, never reached or not measured now, since a smaller load passed the limit.
    NoLongerReached,
    /// Never reached, or not measured before; a number now.
    ReachedNow,
    /// Bounds on both sides, or equal words: nothing can be said.
    Unknown,
}

impl Change {
    /// From one value to another.
    pub fn between(before: Value, after: Value) -> Self {
        use Value::{AtLeast, Exact, Never, NotReached};
        match (before, after) {
            (Exact(0.0), Exact(after)) => {
                if after == 0.0 {
                    Change::Ratio(1.0)
                } else {
                    Change::FromZero(after)
                }
            }
            (Exact(before), Exact(after)) => Change::Ratio(after / before),
            (Exact(before), AtLeast(bound)) if bound >= before && before > 0.0 => Change::RatioAtLeast(bound / before),
            (AtLeast(bound), Exact(after)) if bound >= after && bound > 0.0 => Change::RatioAtMost(after / bound),
            (Exact(_), Never { .. } | NotReached) => Change::NoLongerReached,
            (Never { .. } | NotReached, Exact(_)) => Change::ReachedNow,
            _ => Change::Unknown,
        }
    }

    /// The relative change as far as it is known for certain: what a gate of the form `>10%` looks at. A threshold that is reached now
    /// has fallen from beyond all that was tried, one that is not reached any more has risen there.
    pub fn share(self) -> f64 {
        match self {
            Change::Ratio(ratio) | Change::RatioAtLeast(ratio) | Change::RatioAtMost(ratio) => ratio - 1.0,
            Change::FromZero(after) => after.signum() * f64::INFINITY,
            Change::NoLongerReached => f64::INFINITY,
            Change::ReachedNow => -1.0,
            Change::Unknown => 0.0,
        }
    }

    /// The natural logarithm of the ratio, where both values are exact.
    pub fn log_ratio(self) -> Option<f64> {
        match self {
            Change::Ratio(ratio) if ratio > 0.0 => Some(ratio.ln()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{AtLeast, Exact, Never, NotReached};

    #[test]
    fn each_kind_of_change_has_its_own_case() {
        let never = Never { tried: 64.0 };
        let cases = [
            (Exact(2.0), Exact(1.0), Change::Ratio(0.5)),
            (Exact(0.0), Exact(0.0), Change::Ratio(1.0)),
            (Exact(0.0), Exact(1.95), Change::FromZero(1.95)),
            (Exact(100.0), AtLeast(504.0), Change::RatioAtLeast(5.04)),
            (Exact(600.0), AtLeast(504.0), Change::Unknown),
            (AtLeast(500.0), Exact(5.0), Change::RatioAtMost(0.01)),
            (AtLeast(504.0), AtLeast(900.0), Change::Unknown),
            (Exact(4.0), never, Change::NoLongerReached),
            (never, Exact(4.0), Change::ReachedNow),
            (Exact(4.0), NotReached, Change::NoLongerReached),
            (never, never, Change::Unknown),
        ];
        for (before, after, change) in cases {
            assert_eq!(Change::between(before, after), change, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_gate_sees_both_directions_of_a_threshold() {
        assert_eq!(Change::between(Exact(4.0), Exact(2.0)).share(), -0.5);
        assert_eq!(Change::between(Never { tried: 64.0 }, Exact(4.0)).share(), -1.0);
        assert!(Change::between(Exact(4.0), NotReached).share() > 1e9);
    }
}
