//! `--fail-if 'p99>10%'`, `--fail-if 'freeze_k<8'`: a change, or a value, that must not pass.

use super::Comparison;
use crate::metrics::{Metric, Value};
use std::fmt;
use std::str::FromStr;

/// A bound on metrics: on their relative change, or on their value.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    name: String,
    place: Option<String>,
    is_rise: bool,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// A share of the first median.
    Change(f64),
    /// The metric's own unit.
    Value(f64),
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' does not have the form METRIC>10%, METRIC<-10%, METRIC>50 or METRIC[PLACE]<8");
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let (metric, rest) = (text[..at].trim(), text[at + 1..].trim());
        let (number, is_share) = rest.strip_suffix('%').map_or((rest, false), |number| (number.trim(), true));
        let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(wrong)?;
        let (name, place) = match metric.split_once('[') {
            Some((name, place)) => (name, Some(place.strip_suffix(']').ok_or_else(wrong)?.to_owned())),
            None => (metric, None),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        let bound = if is_share { Bound::Change(number / 100.0) } else { Bound::Value(number) };
        Ok(Gate { name: name.into(), place, is_rise: &text[at..=at] == ">", bound })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_ref().map_or(String::new(), |place| format!("[{place}]"));
        let sign = if self.is_rise { '>' } else { '<' };
        match self.bound {
            Bound::Change(share) => write!(f, "{}{place}{sign}{}%", self.name, share * 100.0),
            Bound::Value(value) => write!(f, "{}{place}{sign}{value}", self.name),
        }
    }
}

impl Gate {
    /// The name of the metrics it is about.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is about this metric: `p99` is about all families that start with `p99_`; `p99_ms[4]` about those whose place is, or ends
    /// with, 4.
    pub fn covers(&self, metric: &Metric) -> bool {
        let is_there =
            |place: &String| metric.place == *place || metric.place.rsplit_once(',').is_some_and(|(_, last)| last == place);
        metric.family.is_covered_by(&self.name) && self.place.as_ref().is_none_or(is_there)
    }

    /// Whether it is about a change, which takes two rounds and enough trials to show one.
    pub fn is_about_change(&self) -> bool {
        matches!(self.bound, Bound::Change(_))
    }

    /// Whether a comparison fails it: by a change beyond noise and the bound, or by its second value.
    pub fn fails(&self, comparison: &Comparison) -> bool {
        match self.bound {
            Bound::Change(share) => comparison.differs && self.is_beyond(comparison.change.share(), share),
            Bound::Value(_) => self.fails_value(comparison.after.median),
        }
    }

    /// Whether a value fails it; a bound on a change says nothing of a value.
    pub fn fails_value(&self, value: Value) -> bool {
        match (self.bound, value) {
            (Bound::Change(_), _) => false,
            (Bound::Value(bound), Value::Exact(value)) => self.is_beyond(value, bound),
            // A lower bound above the limit is a rise for sure; below it, nothing is known.
            (Bound::Value(bound), value) => self.is_rise && value.is_above(bound) == Some(true),
        }
    }

    /// Whether a value that does not fail it may do so all the same, since only a bound of it is known that is short of the gate's.
    pub fn is_open(&self, value: Value) -> bool {
        let least = match value {
            Value::AtLeast(least) | Value::Never { tried: least } => least,
            Value::Exact(_) | Value::NotReached => return false,
        };
        match self.bound {
            Bound::Change(_) => false,
            Bound::Value(bound) if self.is_rise => value.is_above(bound).is_none(),
            Bound::Value(bound) => least < bound,
        }
    }

    /// Whether a rise that it does not see may be there all the same, since only a bound of the second value is known.
    pub fn is_open_rise(&self, comparison: &Comparison) -> bool {
        let is_bound = matches!(comparison.after.median, Value::AtLeast(_));
        self.is_about_change() && self.is_rise && is_bound && !self.fails(comparison)
    }

    /// The same of a fall, since fewer steps were tried than the first side is known to bear.
    pub fn is_open_fall(&self, comparison: &Comparison) -> bool {
        let Value::Never { tried } = comparison.after.median else { return false };
        let before = match comparison.before.median {
            Value::Exact(k) | Value::AtLeast(k) | Value::Never { tried: k } => k,
            Value::NotReached => return false,
        };
        self.is_about_change() && !self.is_rise && before > tried
    }

    /// Whether it names one place, and so means one cell of each server and not a whole family.
    pub fn names_a_place(&self) -> bool {
        self.place.is_some()
    }

    /// Whether it is about what stands beside no slow request.
    pub fn is_beside_none(&self) -> bool {
        self.place.as_deref().is_some_and(|place| place == "0" || place.ends_with(",0"))
    }

    fn is_beyond(&self, value: f64, bound: f64) -> bool {
        if self.is_rise { value > bound } else { value < bound }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::super::tests::{LOW, all, cpu, exact, p99, threshold};
    use super::super::{Pair, judge};
    use super::*;
    use crate::metrics::Cell;

    fn fails(gate: &str, metric: &Metric, before: Cell, after: Cell) -> bool {
        let judged = judge(&[Pair { metric, before, after }], &Noise::default());
        let gate = gate.parse::<Gate>().unwrap();
        gate.covers(metric) && gate.fails(judged[0].as_ref().unwrap())
    }

    fn scaled(factor: f64) -> Cell {
        exact(&LOW.map(|value| value * factor))
    }

    #[test]
    fn a_rise_beyond_the_limit_fails_and_a_smaller_one_or_a_fall_passes() {
        assert!(fails("p99>10%", &p99(), scaled(1.0), scaled(1.5)));
        assert!(!fails("p99>100%", &p99(), scaled(1.0), scaled(1.5)));
        assert!(!fails("p99>10%", &p99(), scaled(1.0), scaled(0.5)));
        assert!(fails("p99<-10%", &p99(), scaled(1.0), scaled(0.5)));
        assert!(!fails("cpu_us>10%", &p99(), scaled(1.0), scaled(1.5)), "another metric");
        assert!(fails("cpu_us>10%", &cpu(), scaled(1.0), scaled(1.5)));
    }

    #[test]
    fn a_threshold_that_halves_fails_its_gate_as_does_one_that_is_reached_now() {
        let k = |k: f64| all(Value::Exact(k));
        assert!(fails("freeze_k<-10%", &threshold(), k(4.0), k(2.0)));
        assert!(fails("freeze_k<-10%", &threshold(), all(Value::Never { tried: 64.0 }), k(4.0)));
        assert!(!fails("freeze_k<-10%", &threshold(), k(2.0), k(4.0)));
        assert!(fails("freeze_k>10%", &threshold(), k(2.0), k(4.0)));
    }

    #[test]
    fn absolute_bounds_look_at_the_value_alone() {
        let k = |k: f64| all(Value::Exact(k));
        assert!(fails("freeze_k<8", &threshold(), k(4.0), k(4.0)));
        assert!(!fails("freeze_k<8", &threshold(), k(4.0), all(Value::Never { tried: 64.0 })));
        assert!(fails("p99_ms[4]>5", &p99(), scaled(1.0), scaled(1.0)));
        assert!(!fails("p99_ms[4]>50", &p99(), scaled(1.0), scaled(1.0)));
        assert!(!fails("p99_ms[16]>5", &p99(), scaled(1.0), scaled(1.0)), "another place");
        assert!(fails("p99_ms[sleep@110,4]>50", &p99(), scaled(1.0), all(Value::AtLeast(504.0))));
    }

    #[test]
    fn a_bound_short_of_the_gate_leaves_it_open_and_any_other_value_does_not() {
        let is_open = |gate: &str, value: Value| gate.parse::<Gate>().unwrap().is_open(value);
        let (at_least, never) = (Value::AtLeast(504.0), Value::Never { tried: 64.0 });
        assert!(is_open("p99_ms[4]>900", at_least) && is_open("p99_ms[4]<900", at_least));
        assert!(!is_open("p99_ms[4]>500", at_least) && !is_open("p99_ms[4]<500", at_least));
        assert!(is_open("freeze_k>100", never) && is_open("freeze_k<100", never));
        assert!(!is_open("freeze_k>64", never) && !is_open("freeze_k<64", never));
        for known in [Value::Exact(504.0), Value::NotReached] {
            assert!(!is_open("p99_ms>900", known) && !is_open("p99_ms<900", known), "{known}");
        }
        assert!(!is_open("p99_ms>10%", at_least), "it is about a change");
    }

    #[test]
    fn a_rise_to_a_bound_is_open_unless_it_is_seen() {
        let is_open = |before: Cell, after: Cell| {
            let metric = p99();
            let judged = judge(&[Pair { metric: &metric, before, after }], &Noise::default());
            "p99>20%".parse::<Gate>().unwrap().is_open_rise(judged[0].as_ref().unwrap())
        };
        assert!(is_open(all(Value::AtLeast(504.0)), all(Value::AtLeast(504.0))));
        assert!(!is_open(scaled(1.0), all(Value::AtLeast(504.0))), "the gate fails");
        assert!(!is_open(all(Value::AtLeast(504.0)), scaled(1.0)), "it fell");
    }

    #[test]
    fn a_threshold_that_was_looked_for_less_far_may_have_fallen() {
        let is_open = |before: Value, after: Value| {
            let metric = threshold();
            let judged = judge(&[Pair { metric: &metric, before: all(before), after: all(after) }], &Noise::default());
            "freeze_k<-10%".parse::<Gate>().unwrap().is_open_fall(judged[0].as_ref().unwrap())
        };
        let never = |tried: f64| Value::Never { tried };
        assert!(is_open(never(64.0), never(4.0)) && is_open(Value::Exact(16.0), never(4.0)));
        assert!(!is_open(never(64.0), never(64.0)) && !is_open(Value::Exact(2.0), never(4.0)));
    }

    #[test]
    fn words_that_are_not_a_gate_are_refused_with_the_form() {
        for wrong in ["p99", ">10%", "p99>ten", "p99>NaN%", "", "p99[4>3"] {
            assert!(wrong.parse::<Gate>().unwrap_err().contains("METRIC>10%"), "{wrong}");
        }
        assert_eq!("p99_ms[4]>50".parse::<Gate>().unwrap().to_string(), "p99_ms[4]>50");
    }
}
