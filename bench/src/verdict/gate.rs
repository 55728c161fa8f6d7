//! `--fail-if 'p99>10%'`: a change that must not pass.

use super::Comparison;
use std::str::FromStr;

/// Fails a comparison whose metric changed by more than this.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    metric: String,
    is_rise: bool,
    share: f64,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not of the form METRIC>10% or METRIC<-10%");
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let (metric, rest) = (text[..at].trim(), &text[at + 1..]);
        let percent = rest.trim().strip_suffix('%').and_then(|number| number.trim().parse().ok());
        let percent: f64 = percent.filter(|percent: &f64| percent.is_finite()).ok_or_else(wrong)?;
        if metric.is_empty() {
            return Err(wrong());
        }
        Ok(Gate { metric: metric.into(), is_rise: &text[at..=at] == ">", share: percent / 100.0 })
    }
}

impl Gate {
    /// Whether it speaks of this metric: `p99` of all that start with `p99_`, `p99_ms[sleep,4]` of that one.
    pub fn covers(&self, metric: &str) -> bool {
        let rest = metric.strip_prefix(self.metric.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '[']))
    }

    /// Whether the metric differs, and by more than is allowed.
    pub fn fails(&self, metric: &str, comparison: &Comparison) -> bool {
        // What was reached before and is not any more has risen without bound, and the other way round.
        let change = comparison.change.unwrap_or(comparison.after.median - comparison.before.median);
        let is_beyond = if self.is_rise { change > self.share } else { change < self.share };
        self.covers(metric) && comparison.differs && is_beyond
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Pair, judge};
    use super::*;

    const LOW: [f64; 6] = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5];

    fn fails(gate: &str, factor: f64) -> bool {
        let after = LOW.map(|value| value * factor);
        let metric = "p99_ms[sleep,4]";
        let judged = judge(&[Pair { metric, before: &LOW, after: &after }], &Default::default());
        gate.parse::<Gate>().unwrap().fails(metric, judged[0].as_ref().unwrap())
    }

    #[test]
    fn a_rise_beyond_the_limit_fails_and_a_smaller_one_passes() {
        assert!(fails("p99>10%", 1.5));
        assert!(fails("p99 > 10 %", f64::INFINITY));
        assert!(!fails("p99>100%", 1.5));
        assert!(!fails("p99>10%", 0.5));
        assert!(fails("p99<-10%", 0.5));
        assert!(!fails("cpu_us>10%", 1.5), "another metric");
    }

    #[test]
    fn words_that_are_no_gate_are_refused_with_the_form() {
        for wrong in ["p99", ">10%", "p99>ten", "p99>10", "p99>NaN%", ""] {
            assert!(wrong.parse::<Gate>().unwrap_err().contains("METRIC>10%"), "{wrong}");
        }
    }
}
