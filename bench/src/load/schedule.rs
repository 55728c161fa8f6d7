//! The instants at which an open lane's requests are due.

/// The longest gap between two requests, in nanoseconds: longer than any run, and still a number that can be added to.
const LONGEST_GAP: f64 = 1e18;

/// Instants in nanoseconds since the start of a run.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    gap_ns: f64,
    phase_ns: f64,
    is_poisson: bool,
}

impl Schedule {
    /// The schedule of one of several lanes. Even lanes of one load have a phase each, so that they are not due at the same instants. A rate that
    /// is no rate has gaps that end all the same.
    pub fn new(rate: f64, is_poisson: bool, lane: usize, lanes: usize) -> Self {
        let gap = 1e9 / rate;
        let gap_ns = if gap.is_finite() { gap.clamp(1.0, LONGEST_GAP) } else { LONGEST_GAP };
        Schedule { gap_ns, phase_ns: gap_ns * lane as f64 / lanes.max(1) as f64, is_poisson }
    }

    /// The first instant.
    pub fn first(&self, random: &mut fastrand::Rng) -> u64 {
        if self.is_poisson { self.gap(random) } else { self.phase_ns as u64 }
    }

    /// The instant after that of request `number` (from 0), which is `at`.
    pub fn next(&self, number: usize, at: u64, random: &mut fastrand::Rng) -> u64 {
        // Even instants are counted from the start, so that rounding does not add up.
        if self.is_poisson {
            at.saturating_add(self.gap(random))
        } else {
            (self.phase_ns + (number + 1) as f64 * self.gap_ns) as u64
        }
    }

    fn gap(&self, random: &mut fastrand::Rng) -> u64 {
        (-(1.0 - random.f64()).ln() * self.gap_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instants(schedule: Schedule, count: usize) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut all = vec![schedule.first(&mut random)];
        (0..count - 1).for_each(|number| all.push(schedule.next(number, all[number], &mut random)));
        all
    }

    #[test]
    fn even_lanes_of_one_load_are_never_due_at_the_same_instant() {
        let lanes: Vec<Vec<u64>> = (0..4).map(|lane| instants(Schedule::new(245.0, false, lane, 4), 1000)).collect();
        let mut all: Vec<u64> = lanes.concat();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] > 900_000), "a millisecond apart");
        assert!(lanes[0].windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(4_081_632) < 2));
    }

    #[test]
    fn whatever_the_rate_time_goes_on_from_request_to_request() {
        for rate in [1e-300, 0.0, -1.0, f64::MIN_POSITIVE, f64::INFINITY, f64::NAN, 1e12] {
            let even = instants(Schedule::new(rate, false, 0, 1), 10);
            assert!(even.windows(2).all(|pair| pair[0] < pair[1]), "{rate}: {even:?}");
            let poisson = instants(Schedule::new(rate, true, 0, 1), 1000);
            assert!(poisson.first() < poisson.last(), "{rate}");
        }
        let slow = instants(Schedule::new(1e-300, false, 1, 2), 2);
        assert!(slow[0] > 1_000_000_000_000, "{slow:?}");
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let at = instants(Schedule::new(1000.0, true, 0, 1), 20_000);
        let gaps: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean - 1.0).abs() < 0.03 && (deviation - 1.0).abs() < 0.04, "{mean} {deviation}");
    }
}
