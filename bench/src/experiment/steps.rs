//! What the steps of a climb say together: the freeze threshold, and what blockers add.

use crate::metrics::Value;

/// A ratio of times below this is one of noise, and is not shown.
const LEAST_RATIO_MS: f64 = 2.0;

/// What blockers add, within one trial.
pub fn added(base: &Result<Value, String>, beside: &Result<Value, String>) -> Result<Value, String> {
    let (base, beside) = (base.clone()?, beside.clone()?);
    let base = base.exact().ok_or("the step without blockers is only known as a bound")?;
    Ok(beside.map(|value| value - base))
}

/// How many times slower, within one trial; `None` below what is claimed, where the ratio would be one of noise.
pub fn slowdown(base: &Result<Value, String>, beside: &Result<Value, String>) -> Option<Value> {
    let (base, beside) = (base.as_ref().ok()?.exact()?, *beside.as_ref().ok()?);
    let is_claimed = beside.number().is_some_and(|value| value >= LEAST_RATIO_MS) && base > 0.0;
    is_claimed.then(|| beside.map(|value| value / base))
}

/// One trial's smallest number of blockers whose percentile passes the limit. A step that is invalid, or only known as a bound below the limit,
/// makes what lies above it unknown.
pub fn freeze_k(ladder: &[(usize, Result<Value, String>)], limit_ms: f64) -> Result<Value, String> {
    for (k, response) in ladder {
        match response.clone()?.is_above(limit_ms) {
            Some(true) => return Ok(Value::Exact(*k as f64)),
            Some(false) => {}
            None => return Err(format!("with {k} blockers it is not known whether {limit_ms} ms were passed")),
        }
    }
    let tried = ladder.last().map_or(0, |(k, _)| *k) as f64;
    Ok(Value::Never { tried })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{AtLeast, Exact, Never};

    #[test]
    fn one_trial_freezes_at_the_smallest_number_of_blockers_that_passes_the_limit() {
        let ladder = [(1, Ok(Exact(99.0))), (2, Ok(Exact(150.0))), (4, Ok(Exact(120.0))), (16, Ok(AtLeast(1600.0)))];
        assert_eq!(freeze_k(&ladder, 100.0), Ok(Exact(2.0)));
        assert_eq!(freeze_k(&ladder, 1000.0), Ok(Exact(16.0)));
        assert_eq!(freeze_k(&ladder[..1], 100.0), Ok(Never { tried: 1.0 }));
        assert!(freeze_k(&[(1, Ok(AtLeast(504.0)))], 1000.0).unwrap_err().contains("not known"));
    }

    #[test]
    fn an_invalid_step_below_the_threshold_makes_it_invalid_but_not_one_above_it() {
        let bad = || Err("lag".to_owned());
        assert_eq!(freeze_k(&[(1, bad()), (2, Ok(Exact(500.0)))], 100.0), bad());
        assert_eq!(freeze_k(&[(1, Ok(Exact(500.0))), (2, bad())], 100.0), Ok(Exact(1.0)));
    }

    #[test]
    fn differences_and_ratios_are_taken_within_a_trial_and_an_invalid_base_is_not_zero() {
        let bad = || Err("lag".to_owned());
        assert_eq!(added(&Ok(Exact(1.0)), &Ok(Exact(99.0))), Ok(Exact(98.0)));
        assert_eq!(added(&Ok(Exact(1.0)), &Ok(AtLeast(504.0))), Ok(AtLeast(503.0)));
        assert_eq!(added(&bad(), &Ok(Exact(99.0))), bad());
        assert_eq!(slowdown(&Ok(Exact(0.5)), &Ok(Exact(100.0))), Some(Exact(200.0)));
        assert_eq!(slowdown(&Ok(Exact(0.5)), &Ok(Exact(1.9))), None, "below what is claimed");
        assert_eq!(slowdown(&bad(), &Ok(Exact(100.0))), None);
    }
}
