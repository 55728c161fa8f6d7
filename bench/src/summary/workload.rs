//! From what people know of their load to the number of slow requests at a time.

use std::str::FromStr;

/// Numbers that are less likely than the likeliest one by more than this do not move a percentile.
const NEGLIGIBLE: f64 = 1e-15;

/// A load in which a share of all requests is slow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowShare {
    /// Share of slow requests, from 0 to 1.
    pub share: f64,
    /// All requests per second.
    pub rate: f64,
}

/// A share such as `5%` or `0.05`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        let share = number.trim().parse::<f64>().ok().map(|number| number / scale);
        let share = share.filter(|share| *share > 0.0 && *share <= 1.0);
        share.map(Share).ok_or_else(|| format!("'{text}' is not a share, such as 5% or 0.05"))
    }
}

/// How many slow requests there are at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowAtATime {
    /// On average: by Little's law, rate x share x seconds.
    pub mean: f64,
    /// In 99 % of all moments at most: arrivals at random make it a Poisson variable, if the server holds nobody up.
    pub p99: usize,
}

impl SlowShare {
    /// How many slow requests there are at a time, if each takes this long.
    pub fn numbers(self, seconds: f64) -> SlowAtATime {
        let mean = self.rate * self.share * seconds;
        SlowAtATime { mean, p99: poisson_quantile(mean, 0.99) }
    }

    /// The same as a sentence.
    pub fn describe(self, seconds: f64) -> String {
        let numbers = self.numbers(seconds);
        format!(
            "Your load: k = rate x share x seconds = {} x {} x {seconds:.3} = {:.2} slow requests at a time on average, {} at the 99th percentile, if none waits for another; where threads are few, more.",
            self.rate, self.share, numbers.mean, numbers.p99
        )
    }
}

/// The smallest number that a Poisson variable exceeds with a probability of at most 1 - `quantile`.
fn poisson_quantile(mean: f64, quantile: f64) -> usize {
    // Relative to the likeliest number, since the probability of none is too small for a float where the mean is large.
    let likeliest = mean.floor();
    let falling = |next: fn(f64, f64) -> (f64, f64)| {
        let step = move |(k, weight): &(f64, f64)| {
            let (to, ratio) = next(*k, mean);
            Some((to, weight * ratio)).filter(|(k, weight)| *k >= 0.0 && *weight > NEGLIGIBLE)
        };
        std::iter::successors(Some((likeliest, 1.0)), step)
    };
    let mut weights: Vec<(f64, f64)> = falling(|k, mean| (k - 1.0, k / mean)).collect();
    weights.reverse();
    weights.extend(falling(|k, mean| (k + 1.0, mean / (k + 1.0))).skip(1));
    let wanted = quantile * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut below = 0.0;
    let reached = weights.iter().find(|(_, weight)| {
        below += weight;
        below >= wanted
    });
    reached.map_or(likeliest, |(k, _)| *k) as usize
}

impl SlowAtATime {
    /// Whether a measured number of slow requests is the first that reaches the average or the 99th percentile.
    pub fn is_near(self, k: usize, measured: &[usize]) -> bool {
        let first = |wanted: f64| measured.iter().copied().filter(|one| *one as f64 >= wanted).min();
        first(self.mean) == Some(k) || first(self.p99 as f64) == Some(k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means, and the smallest k with P(X <= k) >= 0.99.
    const QUANTILES: [(f64, usize); 10] = [
        (0.01, 0),
        (1.0, 4),
        (5.0, 11),
        (10.0, 18),
        (100.0, 124),
        (745.0, 809),
        (746.0, 810),
        (1000.0, 1074),
        (20_000.0, 20_330),
        (1_000_000.0, 1002327),
    ];

    #[test]
    fn five_percent_of_two_hundred_a_second_that_take_fifty_milliseconds() {
        let load = SlowShare { share: 0.05, rate: 200.0 };
        // Poisson with mean 0.5: P(X <= 2) = 0.9856, P(X <= 3) = 0.9982, from the published tables.
        let numbers = load.numbers(0.05);
        assert!((numbers.mean - 0.5).abs() < 1e-12);
        assert_eq!(numbers.p99, 3);
        assert!(
            load.describe(0.05).contains("= 0.50 slow requests at a time on average, 3 at the 99th percentile, if none waits")
        );
        let measured = [0, 1, 2, 4, 16, 64];
        let near: Vec<usize> = measured.into_iter().filter(|k| numbers.is_near(*k, &measured)).collect();
        assert_eq!(near, [1, 4]);
    }

    #[test]
    fn the_99th_percentile_is_that_of_published_tables_and_of_large_means() {
        // The quantiles were computed with 60 decimal digits by another program, which agrees with published tables where there are any.
        for (mean, wanted) in QUANTILES {
            assert_eq!(poisson_quantile(mean, 0.99), wanted, "{mean}");
        }
    }

    #[test]
    fn shares_are_read_as_people_write_them() {
        assert_eq!("5%".parse(), Ok(Share(0.05)));
        assert_eq!("0.05".parse(), Ok(Share(0.05)));
        for wrong in ["0%", "101%", "-1", "much", "NaN"] {
            assert!(wrong.parse::<Share>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
