//! What the trials of a comparison cannot tell: a change of one cell alone among many.

use super::comparison::Judged;
use crate::metrics::Metric;
use crate::verdict::RATE;
use std::collections::BTreeMap;

/// The families in which a change of one cell alone cannot pass for more than chance, each with the trials that would do.
pub(super) fn alone(cells: &[(&Metric, &Judged)]) -> Option<String> {
    let mut families: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (metric, line) in cells.iter().filter(|(_, line)| line.comparison.can_differ) {
        families.entry(&metric.family.name).or_default().push(line.comparison.least_p);
    }
    let is_out_of_reach = |least: &Vec<f64>| least.iter().all(|p| *p > RATE / least.len() as f64);
    let words = |(family, least): (&str, Vec<f64>)| {
        format!("{family} ({} cells: {} trials on each side would do)", least.len(), trials_for(least.len()))
    };
    let families: Vec<String> = families.into_iter().filter(|(_, least)| is_out_of_reach(least)).map(words).collect();
    (!families.is_empty()).then(|| {
        format!(
            "with this few trials, one cell that changes alone passes for chance: of {}; compare fewer cells, or take more trials",
            families.join(", ")
        )
    })
}

/// The trials on each side with which values that are all apart are a discovery, though none of the other cells is one.
fn trials_for(cells: usize) -> usize {
    let most = RATE / cells as f64;
    // Two of the orders that n against n trials can have, all equally likely by chance, are all apart.
    let (mut trials, mut orders) = (1, 2.0);
    while 2.0 / orders > most {
        trials += 1;
        orders *= (2 * (2 * trials - 1)) as f64 / trials as f64;
    }
    trials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trials_that_a_lone_change_takes_are_those_of_the_exact_table() {
        // 2 / C(2n, n): 4 against 4 gives 0.0286, 5 against 5 gives 0.0079, 6 against 6 0.0022, 7 against 7 0.00058.
        assert_eq!([1, 2, 6, 7, 23, 24, 85, 86].map(trials_for), [4, 5, 5, 6, 6, 7, 7, 8]);
    }
}
